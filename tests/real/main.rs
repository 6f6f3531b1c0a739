//! Scenarios on nodes that really reboot: the operator deployed by its manifests on systemd, logind, D-Bus, containerd
//! and kubelet, judged by the referee.
//!
//! Each scenario is a process in namespaces of its own, so this program has a harness of its own: it starts itself
//! again for each of them. By default it runs the scenarios of `make test`; `SCENARIOS=all` runs them all, and a name on
//! the command line chooses among those. `JOBS` run at a time, by default as many as there are cores. Where nodes cannot
//! be had it says why and fails; `SKIP_REAL_NODES=1` leaves all of them out.

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
mod whole;

use std::{process::ExitCode, time::Instant};

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use reboot_tests::real::namespaces;

/// A scenario and what it is called.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether it is one of `make test`; all are of `make test-all`.
    pub(crate) usual: bool,
    pub(crate) play: fn() -> LocalBoxFuture<'static, ()>,
}

/// Scenarios by their names: `usual` are part of `make test`.
macro_rules! scenarios {
    ($($usual:ident $($module:ident)::+ ($($argument:expr)?) as $name:literal),+ $(,)?) => {
        vec![$($crate::Scenario {
            name: $name,
            usual: stringify!($usual) == "usual",
            play: || Box::pin($($module)::+($($argument)?)),
        }),+]
    };
}

fn scenarios() -> Vec<Scenario> {
    scenarios![
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
    ]
}

fn main() -> ExitCode {
    if namespaces::inside().is_some() {
        return play();
    }
    let mut arguments = Arguments::from_args();
    let jobs = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok());
    // Half of a scenario is waiting, and the other half keeps two cores busy.
    let cores = || std::thread::available_parallelism().ok().map(usize::from);
    arguments.test_threads = arguments.test_threads.or(jobs).or_else(cores);
    let skipped = std::env::var("SKIP_REAL_NODES").is_ok_and(|skip| skip == "1");
    let missing = if arguments.list || skipped { Vec::new() } else { namespaces::missing() };
    for what in &missing {
        eprintln!("real nodes are not to be had here: {what}");
    }
    let all = std::env::var("SCENARIOS").is_ok_and(|which| which == "all") || arguments.filter.is_some();
    let chosen = scenarios().into_iter().filter(|scenario| all || scenario.usual);
    let trials = chosen.map(|scenario| {
        let missing = missing.clone();
        Trial::test(scenario.name, move || run(scenario.name, &missing)).with_ignored_flag(skipped)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
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
