//! The API server in memory answers as the real one does: every scenario is played on both, and what was answered must
//! be the same. And kubectl, which knows only the real one, works with it.
//!
//! One control plane serves all scenarios, so this program has a harness of its own. Each scenario has Nodes and a
//! namespace of its own. Needs `make control-plane` and kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod budgets;
mod deletes;
mod fields;
mod kubectl;
mod lists;
mod side;
mod watches;
mod writes;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use reboot_tests::{
    control_plane::{ControlPlane, Controllers, Options, client_from},
    memory::{Fair, MemoryApi},
    scratch::Scratch,
};
use side::Side;
use tokio::runtime::{Builder, Runtime};

/// What is asked, and in which order; the answers are in the [`Side`].
type Scenario = fn(&mut Side) -> LocalBoxFuture<'_, ()>;

/// Scenarios by their names.
macro_rules! scenarios {
    ($($module:ident::$scenario:ident as $name:literal),+ $(,)?) => {
        [$(($name, (|side| Box::pin($module::$scenario(side))) as Scenario)),+]
    };
}

fn scenarios() -> Vec<(&'static str, Scenario)> {
    scenarios![
        writes::creates as "creates_are_answered_alike",
        writes::merge_patches as "merge_patches_are_answered_alike",
        writes::other_patches as "json_patches_and_strategic_patches_are_answered_alike",
        writes::replaces as "replaces_are_answered_alike",
        writes::leases as "leases_are_created_by_a_replace_and_need_a_version",
        writes::statuses as "the_status_is_a_part_of_its_own",
        writes::dry_runs as "dry_runs_change_nothing",
        writes::events as "events_are_the_same_in_both_of_their_apis",
        fields::cordons as "whose_cordon_it_is_is_told_alike",
        fields::many_managers as "more_than_ten_managers_are_merged_alike",
        deletes::plain as "deletes_with_preconditions_and_finalizers_are_answered_alike",
        deletes::pods as "pods_are_deleted_after_their_grace_period",
        lists::pages as "lists_come_in_pages",
        lists::selectors as "fields_and_labels_select_alike",
        lists::forms as "metadata_and_tables_look_alike",
        watches::changes as "watches_tell_the_same_story",
        watches::starts as "watches_begin_alike",
        watches::selected as "a_watch_tells_what_enters_and_leaves_its_selector",
        budgets::refusals as "budgets_refuse_evictions_alike",
        budgets::statuses as "the_status_of_budgets_is_computed_alike",
        budgets::unguarded as "evictions_that_no_budget_holds_up_are_answered_alike",
    ]
    .into()
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let (runtime, scratch) = (Runtime::new().unwrap(), Scratch::new("conformance").unwrap());
    // The control plane is started by whoever needs it first, and ends with this function.
    let real =
        std::sync::Arc::new(Real { runtime, dir: scratch.path().join("cp"), running: std::sync::OnceLock::new() });
    let of = |name: &'static str, play: fn(&Real, &str) -> Result<[Vec<String>; 2]>| {
        let real = real.clone();
        Trial::test(name, move || compare(&play(&real, name)?))
    };
    let mut trials: Vec<Trial> = scenarios().into_iter().map(|(name, _)| of(name, requests)).collect();
    trials.push(of("kubectl_reads_annotates_cordons_and_drains_alike", |real, _| {
        talk(real, |to| Box::pin(kubectl::session(to)))
    }));
    trials.push(of("kubectl_watches_alike", |real, _| talk(real, |to| Box::pin(kubectl::watching(to)))));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop((real, scratch));
    conclusion.exit_code()
}

/// The real one, once it is needed.
struct Real {
    runtime: Runtime,
    dir: std::path::PathBuf,
    running: std::sync::OnceLock<Result<ControlPlane, String>>,
}

impl Real {
    fn control_plane(&self) -> Result<&ControlPlane> {
        let options = Options {
            controllers: Controllers::Budgets,
            // Pods need no account here, and Nodes no taint.
            apiserver_args: vec!["--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned()],
            ..Options::default()
        };
        let start =
            || self.runtime.block_on(ControlPlane::start(&self.dir, options)).map_err(|error| format!("{error:#}"));
        self.running.get_or_init(start).as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// Plays the scenario of this name on both sides.
fn requests(real: &Real, name: &str) -> Result<[Vec<String>; 2]> {
    let kubeconfig = real.control_plane()?.kubeconfig();
    let (_, scenario) =
        scenarios().into_iter().find(|(other, _)| *other == name).context("there is no such scenario")?;
    let play = async |client| {
        let mut side = Side::new(name, client);
        scenario(&mut side).await;
        side.into_log()
    };
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let memory = MemoryApi::new(jiff::Timestamp::now, Fair);
        Ok([play(client_from(&kubeconfig).await?).await, play(memory.client("admin")).await])
    })
}

/// Has kubectl talk to both sides.
fn talk(
    real: &Real,
    session: fn(kubectl::Place) -> LocalBoxFuture<'static, Result<Vec<String>>>,
) -> Result<[Vec<String>; 2]> {
    let kubeconfig = real.control_plane()?.kubeconfig();
    let scratch = Scratch::new("kubectl")?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let memory = MemoryApi::new(jiff::Timestamp::now, Fair);
        let listening = memory.listen().await?;
        let own = scratch.path().join("kubeconfig");
        listening.write_kubeconfig(&own, "admin")?;
        let mut told = [Vec::new(), Vec::new()];
        for (told, (kubeconfig, cache)) in told.iter_mut().zip([(kubeconfig, "real"), (own, "memory")]) {
            let client = client_from(&kubeconfig).await?;
            *told = session(kubectl::Place { kubeconfig, cache: scratch.path().join(cache), client }).await?;
        }
        Ok(told)
    })
}

/// Fails where the two sides differ for the first time.
fn compare([expected, found]: &[Vec<String>; 2]) -> Result<(), Failed> {
    if expected == found && !expected.is_empty() {
        return Ok(());
    }
    let first = expected.iter().zip(found).position(|(one, other)| one != other);
    let at = first.unwrap_or(expected.len().min(found.len()));
    let line = |log: &[String]| log.get(at).cloned().unwrap_or_default();
    let before = expected.get(at.saturating_sub(3)..at).unwrap_or_default().join("\n  ");
    let lengths = (expected.len(), found.len());
    Err(format!("after\n  {before}\nreal:   {}\nmemory: {}\n{lengths:?} lines", line(expected), line(found)).into())
}
