//! The protocol of the reboot operator and the decisions of both its sides.
//!
//! Everything here is a function of its arguments: no clock, no I/O, no logging, no async, and no panic on any input.
//! The controller's brain is [`plan`], the agent's is [`step`]; both read the same [`node::NodeView`] and answer with
//! values that somebody else carries out.
//!
//! # Promises
//!
//! The numbers are used in tests and in `PROTOCOL.md`, which describes the protocol on the Node.
//!
//! - **S1** No grant is written that brings the slots above the quota of that moment.
//! - **S2** logind is called only for a node that holds a slot or is forced, after its drain ended.
//! - **S3** A reboot counts as done only when the boot ID differs from the one before it.
//! - **S4** The agent removes only the cordon that it placed itself.
//! - **S5** Pause, withdrawal and foreign changes are honoured up to the point of no return.
//! - **S6** A slot is freed by evidence alone, never by a clock.
//! - **S7** Malformed input is reported as malformed: never permission, never absence, never a panic.
//! - **S8** An agent changes only its own Node and evicts only pods of its own node, even with a stolen token: the API
//!   server enforces it (`manifests/admission.yaml`), but for a pod so new that its cache does not show it.
//!
//! # Reading order
//!
//! [`annotations`] (the keys), [`values`] (what stands under them), [`node`], [`ledger`], [`plan`], [`drain`], [`step`],
//! and [`audit`], which states the promises a second time, independently, for tests.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod annotations;
pub mod audit;
pub mod backoff;
pub mod drain;
pub mod ids;
pub mod lease;
pub mod ledger;
pub mod node;
pub mod plan;
pub mod protocol;
pub mod quota;
pub mod reason;
pub mod selector;
#[cfg(test)]
mod simulation;
pub mod step;
pub mod values;

// The simulation and the model in `tests/model` share a file, which so finds this crate under the same name.
#[cfg(test)]
extern crate self as reboot_core;

use std::time::Duration;

/// The moment of a decision. Deadlines within one process use `mono`; what is written for others uses `wall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment of this process; never steps.
    pub mono: Duration,
    /// Wall-clock time; may step, so it decides nothing that safety rests on.
    pub wall: jiff::Timestamp,
}

impl Now {
    /// The wall-clock time `delay` from now, in whole seconds; saturates at the end of time.
    pub fn wall_after(&self, delay: Duration) -> jiff::Timestamp {
        let later = self.wall.checked_add(delay).unwrap_or(jiff::Timestamp::MAX);
        whole_seconds(later)
    }

    /// The wall-clock time in whole seconds, as annotations carry it.
    pub fn wall_seconds(&self) -> jiff::Timestamp {
        whole_seconds(self.wall)
    }
}

fn whole_seconds(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Time from `now` until `at` by the wall clock; `None` when it has passed.
pub fn until(at: jiff::Timestamp, now: Now) -> Option<Duration> {
    Duration::try_from(at.duration_since(now.wall)).ok().filter(|left| !left.is_zero())
}

/// The earlier of two wake-ups, where there is one.
pub fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: &str) -> Now {
        Now { mono: Duration::ZERO, wall: wall.parse().unwrap() }
    }

    #[test]
    fn what_is_written_for_others_is_in_whole_seconds() {
        let now = at("2026-01-01T12:00:00.9Z");
        assert_eq!(now.wall_seconds(), at("2026-01-01T12:00:00Z").wall);
        assert_eq!(now.wall_after(Duration::from_millis(1200)), at("2026-01-01T12:00:02Z").wall);
        assert_eq!(now.wall_after(Duration::MAX), whole_seconds(jiff::Timestamp::MAX));
    }

    #[test]
    fn a_time_that_has_come_is_not_waited_for() {
        let noon = at("2026-01-01T12:00:00Z");
        assert_eq!(until(at("2026-01-01T12:00:01Z").wall, noon), Some(Duration::from_secs(1)));
        assert_eq!(until(noon.wall, noon), None);
        assert_eq!(until(at("2026-01-01T11:59:59Z").wall, noon), None);
    }

    #[test]
    fn the_earlier_wake_up_is_the_one_that_is_there_or_the_smaller() {
        let [one, two] = [1, 2].map(|seconds| Some(Duration::from_secs(seconds)));
        assert_eq!(
            [earlier(one, two), earlier(two, one), earlier(None, two), earlier(one, None)],
            [one, one, two, one]
        );
        assert_eq!(earlier(None, None), None);
    }
}
