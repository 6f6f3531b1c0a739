//! Scenarios on nodes that really reboot: the operator deployed by its manifests on systemd, logind, D-Bus, containerd
//! and kubelet, judged by the referee.
//!
//! Each scenario is a process in namespaces of its own, so this program has a harness of its own: it starts itself
//! again for each of them. By default it runs the scenarios of `make test`; `SCENARIOS=all` runs them all but for the long
//! ones, `SCENARIOS=long` those as well, and a name on the command line chooses among all. `JOBS` run at a time, by
//! default three on two cores, and beside them the long ones, which are first and mostly wait. Where nodes cannot be had
//! it says why and fails; `SKIP_REAL_NODES=1` leaves all of them out.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a harness reports")]
#![allow(
    clippy::unwrap_used,
    reason = "steps of tests, which panic on failure; with a harness of its own none counts as a test"
)]

mod crashes;
mod drains;
mod faults;
mod fleet;
mod health;
mod host;
mod outages;
mod people;
mod phases;
mod stage;
mod tokens;
mod whole;

use std::{
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use reboot_tests::real::namespaces;

/// A scenario and what it is called.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) play: fn() -> LocalBoxFuture<'static, ()>,
}

/// When a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// By `make test`.
    Usual,
    /// By `make test-all`.
    Whole,
    /// By `make test-all`, in its first round: it takes many minutes, in which next to nothing is done.
    Long,
}

macro_rules! kind {
    (usual) => {
        $crate::Kind::Usual
    };
    (whole) => {
        $crate::Kind::Whole
    };
    (long) => {
        $crate::Kind::Long
    };
}

/// Scenarios by their kinds and names.
macro_rules! scenarios {
    ($($kind:ident $($module:ident)::+ ($($argument:expr)?) as $name:literal),+ $(,)?) => {
        vec![$($crate::Scenario {
            name: $name,
            kind: kind!($kind),
            play: || Box::pin($($module)::+($($argument)?)),
        }),+]
    };
}

fn scenarios() -> Vec<Scenario> {
    scenarios![
        long faults::still_for_ten_minutes() as "an_api_server_that_stands_still_for_ten_minutes_in_a_drain_is_waited_for",
        long tokens::expired() as "tokens_that_expire_in_a_drain_are_replaced",
        usual whole::update(1) as "an_update_reboots_every_node_once_one_at_a_time",
        usual whole::update(2) as "a_quota_of_two_is_used_and_kept",
        whole whole::slow_machine() as "a_reboot_that_takes_a_minute_holds_up_the_next_and_nothing_more",
        whole whole::lost_machine() as "a_machine_that_never_comes_back_keeps_its_slot_and_the_rest_go_on",
        whole whole::update_that_does_not_take() as "an_update_that_does_not_take_is_not_tried_again_at_once",
        usual fleet::twenty_nodes() as "twenty_machines_are_rebooted_two_at_a_time",
        usual whole::sabotage() as "a_quota_that_is_not_kept_and_a_drain_that_is_skipped_are_seen",
        usual fleet::uncordons_at_its_start() as "an_uncordon_at_an_agents_start_is_seen",
        usual drains::every_kind_of_pod() as "every_kind_of_pod_is_drained_in_its_own_time",
        whole host::inhibitor() as "a_lock_on_shutdown_is_a_refusal_that_names_its_holder",
        whole host::forbidden_by_policy() as "a_reboot_that_the_bus_forbids_is_given_back",
        whole host::bus_and_engine_restart() as "update_engine_and_the_bus_may_restart",
        whole host::late_kubelet() as "a_node_is_uncordoned_only_when_kubelet_has_told_of_the_new_boot",
        usual host::graceful_shutdown() as "nothing_is_given_back_while_kubelet_delays_the_shutdown",
        usual crashes::power_failure() as "a_power_failure_in_any_phase_ends_in_service",
        usual crashes::agent_ends(crashes::End::Killed) as "an_agent_killed_in_any_phase_changes_nothing_in_the_end",
        whole crashes::agent_ends(crashes::End::Deleted) as "an_agents_pod_deleted_in_any_phase_changes_nothing_in_the_end",
        whole crashes::roll_out() as "agents_may_be_rolled_out_in_the_middle_of_a_cycle",
        whole crashes::leaders_node() as "the_leaders_own_node_is_rebooted",
        usual crashes::only_node() as "a_cluster_of_one_node_is_rebooted_with_its_controller",
        whole people::rebooted_by_hand() as "machines_rebooted_by_hand_are_not_rebooted_again",
        usual people::interventions() as "people_may_pause_force_cordon_and_delete_at_the_worst_moments",
        whole people::ledger_lost() as "a_ledger_deleted_or_garbled_in_a_cycle_is_made_whole",
        usual outages::killed(outages::Part::ApiServer) as "the_api_server_may_die_in_any_phase",
        whole outages::killed(outages::Part::Etcd) as "etcd_may_die_in_any_phase",
        whole outages::stopped_for_a_minute() as "the_api_server_may_stop_answering_for_a_minute_in_any_phase",
        whole faults::leader_killed() as "the_leader_may_be_killed_in_any_phase",
        whole faults::leader_cut_off() as "a_leader_that_is_cut_off_is_succeeded_and_stands_by",
        whole faults::nodes_cut_off() as "nodes_that_are_cut_off_use_up_the_quota_and_go_on_when_they_are_back",
        whole faults::refused_for_half_a_minute() as "half_a_minute_of_429_or_500_delays_a_cycle_and_no_more",
        whole tokens::invalidated() as "tokens_that_are_worth_nothing_any_more_are_replaced_without_a_restart",
    ]
}

fn main() -> ExitCode {
    if namespaces::inside().is_some() {
        return play();
    }
    let mut arguments = Arguments::from_args();
    let jobs = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok());
    // Half of a scenario is waiting, and the other half keeps more than one core busy.
    let by_cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() + cores.get() / 2);
    let jobs = arguments.test_threads.or(jobs).unwrap_or_else(by_cores);
    let skipped = std::env::var("SKIP_REAL_NODES").is_ok_and(|skip| skip == "1");
    let missing = if arguments.list || skipped { Vec::new() } else { namespaces::missing() };
    for what in &missing {
        eprintln!("real nodes are not to be had here: {what}");
    }
    let chosen = match std::env::var("SCENARIOS").unwrap_or_default().as_str() {
        _ if arguments.filter.is_some() => Kind::Long,
        "long" => Kind::Long,
        "all" => Kind::Whole,
        _ => Kind::Usual,
    };
    let chosen: Vec<_> = scenarios().into_iter().filter(|scenario| scenario.kind <= chosen).collect();
    arguments.test_threads = Some(jobs + chosen.iter().filter(|scenario| scenario.kind == Kind::Long).count());
    let seats = Arc::new(Seats { free: Mutex::new(jobs), risen: Condvar::new() });
    let trials = chosen.into_iter().map(|Scenario { name, kind, .. }| {
        let (missing, seats) = (missing.clone(), seats.clone());
        let run = move || match kind {
            Kind::Long => run(name, &missing),
            Kind::Usual | Kind::Whole => seats.with(|| run(name, &missing)),
        };
        Trial::test(name, run).with_ignored_flag(skipped)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// For as many scenarios as may run at a time; the long ones stand.
struct Seats {
    free: Mutex<usize>,
    risen: Condvar,
}

impl Seats {
    /// Waits for a seat and does this in it.
    fn with<T>(&self, act: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *self.risen.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        let done = act();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.risen.notify_one();
        done
    }
}

/// Runs a scenario in a process of its own; what it printed is told when it fails.
fn run(name: &str, missing: &[String]) -> Result<(), Failed> {
    if !missing.is_empty() {
        return Err(format!("missing: {}; SKIP_REAL_NODES=1 leaves these scenarios out", missing.join("; ")).into());
    }
    let began = Instant::now();
    let (mut command, mut place) = namespaces::rerun(&[name])?;
    let output = command.output()?;
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !output.status.success() {
        // At once as well: the other scenarios may take an hour.
        eprintln!("{told}");
        let files = place.keep_files();
        let words = format!("{}, after {:.0?}; its files are in {}", output.status, began.elapsed(), files.display());
        return Err(format!("{words}:\n{told}").into());
    }
    print!("{told}");
    Ok(())
}

/// Plays the scenario that the command line names, inside.
fn play() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(scenario) = scenarios().into_iter().find(|scenario| scenario.name == name) else {
        eprintln!("there is no scenario {name}");
        return ExitCode::FAILURE;
    };
    let began = Instant::now();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on((scenario.play)()),
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("{name}: {:.0?}", began.elapsed());
    ExitCode::SUCCESS
}
