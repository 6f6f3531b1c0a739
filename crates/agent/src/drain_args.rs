//! The flags of the drain. Where the name is kubectl's, so is the meaning.

use std::time::Duration;

use clap::{Args, ValueEnum};
use reboot_core::drain::{Choice, Rules};
use reboot_core::selector::Selector;
use reboot_runtime::args::duration;

/// How a drain treats pods.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// Only pods that this label selector selects are drained [default: all]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SELECTOR")]
    pub drain_pod_selector: Selector,

    /// How long the containers of an evicted pod have to end [default: as the pod says]
    #[arg(long, value_parser = up_to_an_hour, value_name = "DURATION", allow_hyphen_values = true)]
    pub drain_grace_period: Option<Duration>,

    /// How long after the end of its grace period a pod that is still there is no longer waited for [default: for ever]
    #[arg(long, value_parser = up_to_a_day, value_name = "DURATION", allow_hyphen_values = true)]
    pub skip_wait_for_delete_timeout: Option<Duration>,

    /// Delete pods instead of evicting them: no PodDisruptionBudget is asked
    #[arg(long)]
    pub disable_eviction: bool,

    /// What happens to pods without a controller, which nobody starts anew
    #[arg(long, value_enum, default_value_t = PodChoice::Evict, value_name = "ACTION")]
    pub drain_unmanaged_pods: PodChoice,

    /// What happens to pods with an emptyDir, whose content is lost
    #[arg(long, value_enum, default_value_t = PodChoice::Evict, value_name = "ACTION")]
    pub drain_emptydir_pods: PodChoice,

    /// How many evictions may be without an answer at once
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100), default_value_t = 8, value_name = "NUMBER")]
    pub drain_concurrency: u8,

    /// After how long of a drain grace periods are cut to 10s [default: never]
    #[arg(long, value_parser = up_to_a_day, value_name = "DURATION", allow_hyphen_values = true)]
    pub drain_shorten_after: Option<Duration>,

    /// After how long of a drain the pods that are left are deleted whatever their budgets say [default: never]
    #[arg(long, value_parser = up_to_a_day, value_name = "DURATION", allow_hyphen_values = true)]
    pub drain_delete_after: Option<Duration>,

    /// How long the volumes of the pods that left are waited for, to be detached; 0s: not at all
    #[arg(long, value_parser = none_or_up_to_a_day, default_value = "2m", value_name = "DURATION", allow_hyphen_values = true)]
    pub drain_wait_for_volumes: Duration,
}

/// What happens to pods that a person might miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PodChoice {
    /// They are evicted like any other
    Evict,
    /// Nothing is evicted while they are there
    Block,
}

impl From<PodChoice> for Choice {
    fn from(choice: PodChoice) -> Self {
        match choice {
            PodChoice::Evict => Self::Evict,
            PodChoice::Block => Self::Block,
        }
    }
}

impl DrainArgs {
    /// The settings as the drain takes them.
    pub fn rules(&self) -> Rules {
        Rules {
            selector: self.drain_pod_selector.clone(),
            unmanaged: self.drain_unmanaged_pods.into(),
            empty_dir: self.drain_emptydir_pods.into(),
            grace: self.drain_grace_period,
            skip_stuck_after: self.skip_wait_for_delete_timeout,
            delete: self.disable_eviction,
            concurrency: self.drain_concurrency.into(),
            shorten_after: self.drain_shorten_after,
            delete_after: self.drain_delete_after,
            wait_for_volumes: self.drain_wait_for_volumes,
        }
    }

    /// A setting that can never take effect, or two that cannot both, in words.
    pub fn contradiction(&self, drain_timeout: Duration) -> Option<String> {
        let in_time = |name: &str, after: Option<Duration>| {
            let after = after.filter(|after| *after >= drain_timeout)?;
            Some(format!("{name} is {after:?}: it must be less than --drain-timeout, {drain_timeout:?}"))
        };
        let late = in_time("--drain-shorten-after", self.drain_shorten_after)
            .or_else(|| in_time("--drain-delete-after", self.drain_delete_after));
        let twice = self.disable_eviction && self.drain_delete_after.is_some();
        let twice = twice.then(|| "--drain-delete-after means nothing with --disable-eviction".to_owned());
        late.or(twice)
    }
}

fn up_to_an_hour(text: &str) -> Result<Duration, String> {
    between_a_second_and(Duration::from_hours(1), "1h", text)
}

fn none_or_up_to_a_day(text: &str) -> Result<Duration, String> {
    let none = duration(text)?.is_zero();
    if none { Ok(Duration::ZERO) } else { up_to_a_day(text).map_err(|words| format!("{words}, or 0s")) }
}

fn up_to_a_day(text: &str) -> Result<Duration, String> {
    between_a_second_and(Duration::from_hours(24), "24h", text)
}

/// Zero is left out because it has another meaning for everybody: no wait at all, no limit, or, as a grace period, that
/// the pod is forgotten while it still runs.
fn between_a_second_and(longest: Duration, name: &str, text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=longest;
    let found = duration(text)?;
    if allowed.contains(&found) { Ok(found) } else { Err(format!("must be from 1s to {name}")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::Args;

    /// Parses these flags; the error must contain the words.
    #[track_caller]
    fn check(flags: &[&str], refused: Option<&str>) {
        let line = ["reboot-agent", "--node-name", "node-1"].iter().chain(flags);
        let parsed = Args::try_parse_from(line).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|args| args.contradiction().map_or(Ok(args), Err));
        match (parsed, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => assert!(error.contains(words), "{error} does not contain {words:?}"),
            (found, _) => panic!("{flags:?}: {:?}", found.map(|args| args.policy())),
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_what_is_allowed() {
        check(&["--drain-grace-period", "30s"], None);
        check(&["--drain-grace-period", "0s"], Some("from 1s to 1h"));
        check(&["--drain-grace-period", "2h"], Some("from 1s to 1h"));
        check(&["--drain-grace-period", "-1"], Some("such as 10m"));
        check(&["--skip-wait-for-delete-timeout", "0s"], Some("from 1s to 24h"));
        check(&["--drain-wait-for-volumes", "0s"], None);
        check(&["--drain-wait-for-volumes", "25h"], Some("from 1s to 24h, or 0s"));
        check(&["--drain-concurrency", "0"], Some("1..=100"));
        check(&["--drain-concurrency", "101"], Some("1..=100"));
        check(&["--drain-unmanaged-pods", "delete"], Some("evict, block"));
        check(&["--drain-pod-selector", "a in (b"], Some("--drain-pod-selector"));
        check(&["--drain-pod-selector", "app!=db,tier in (web, api)"], None);
    }

    #[test]
    fn a_step_of_the_ladder_that_never_comes_is_refused() {
        check(&["--drain-timeout", "0s"], Some("no drain would ever end"));
        check(&["--drain-timeout", "0s", "--on-drain-timeout", "reboot"], None);
        check(&["--drain-shorten-after", "5m", "--drain-delete-after", "8m"], None);
        check(
            &["--drain-shorten-after", "10m"],
            Some("--drain-shorten-after is 600s: it must be less than --drain-timeout"),
        );
        check(
            &["--drain-timeout", "5m", "--drain-delete-after", "8m"],
            Some("must be less than --drain-timeout, 300s"),
        );
        check(&["--disable-eviction", "--drain-delete-after", "1m"], Some("means nothing with --disable-eviction"));
    }
}
