//! Leader election: when to take, renew, follow and give up the Lease.
//!
//! The rules are those of client-go's `leaderelection`. A candidate never compares its clock with the holder's: it takes
//! a Lease only when the record has not changed for the Lease's whole duration by the candidate's own monotonic clock.
//! The holder gives up well before that. The Lease only keeps two controllers from doing the same work; that slots are
//! never granted twice rests on the ledger alone (S1).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::Now;
use crate::ids::parse_version;

/// The Lease's name, in the operator's namespace.
pub const NAME: &str = "reboot-controller";

/// The longest duration that a foreign record may claim for itself; a garbled one must not lock everyone out.
const LONGEST: Duration = Duration::from_mins(10);

/// The times of the election. Safe while `renew_every < give_up_after < duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long an unchanged record keeps candidates away.
    pub duration: Duration,
    /// How long after a renewal the holder renews again.
    pub renew_every: Duration,
    /// How long after its last renewal the holder stops its work, counted from before that renewal was sent.
    pub give_up_after: Duration,
    /// How long after a failed write the next one is made.
    pub retry_every: Duration,
}

impl Terms {
    /// What the controller uses.
    pub const STANDARD: Self = Self {
        duration: Duration::from_secs(30),
        renew_every: Duration::from_secs(10),
        give_up_after: Duration::from_secs(20),
        retry_every: Duration::from_secs(2),
    };
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Write this Lease to become the holder: create it where it has no resourceVersion, else replace that version.
    Acquire(Lease),
    /// Replace this Lease to stay the holder.
    Renew(Lease),
    /// Stay the holder; decide again at this monotonic time, or when something is observed.
    Lead {
        /// Monotonic time.
        until: Duration,
    },
    /// Wait for the holder; decide again at this monotonic time, if any, or when something is observed.
    Follow {
        /// Monotonic time.
        until: Option<Duration>,
    },
    /// The Lease was lost just now: stop the work. The next decision is a candidate's.
    Lost,
}

/// One candidate's view of the Lease and its part in it.
#[derive(Clone, Debug)]
pub struct Elector {
    identity: String,
    terms: Terms,
    view: View,
    /// While this candidate leads: the time just before its last confirmed write was sent.
    renewed: Option<Duration>,
    /// After a failed write: no other before this time.
    retry_at: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
enum View {
    /// Not read yet, or known to be outdated.
    Unknown {
        outdated: Option<Sighting>,
    },
    Absent,
    Seen(Sighting),
}

#[derive(Clone, Debug, PartialEq)]
struct Sighting {
    lease: Lease,
    /// When this record was first seen. A change of anything but the record does not count.
    since: Duration,
}

impl Elector {
    /// A candidate that has seen nothing yet. `identity` must be unique to this process.
    pub fn new(identity: impl Into<String>, terms: Terms) -> Self {
        let view = View::Unknown { outdated: None };
        Self { identity: identity.into(), terms, view, renewed: None, retry_at: None }
    }

    /// Whether this candidate is the holder and may work, as of the last decision.
    pub fn leads(&self) -> bool {
        self.renewed.is_some()
    }

    /// Who holds the Lease as far as this candidate has seen.
    pub fn holder(&self) -> Option<&str> {
        self.last_seen().and_then(|seen| holder(&seen.lease))
    }

    /// How long a write of the Lease may take from `mono` on before the holder must have stopped; none for a candidate.
    pub fn time_left(&self, mono: Duration) -> Option<Duration> {
        self.renewed.map(|renewed| renewed.saturating_add(self.terms.give_up_after).saturating_sub(mono))
    }

    /// Takes note of the Lease as read or watched. After a conflict, only a fresh read may follow. Else a version older
    /// than the one seen is ignored: the reply to a write overtakes the watch.
    pub fn observe(&mut self, lease: Lease, mono: Duration) {
        if matches!(&self.view, View::Seen(seen) if is_older(&lease, &seen.lease)) {
            return;
        }
        let seen = self.last_seen();
        let since = seen.filter(|seen| seen.lease.spec == lease.spec).map_or(mono, |seen| seen.since);
        self.view = View::Seen(Sighting { lease, since });
    }

    /// Takes note that a fresh read has not found the Lease.
    pub fn observe_absent(&mut self) {
        self.view = View::Absent;
    }

    /// Decides. Call it again after every answer that it asks for, and when the time that it names has come.
    pub fn decide(&mut self, now: Now) -> Decision {
        match self.renewed {
            Some(renewed) => self.decide_as_holder(renewed, now),
            None => self.decide_as_candidate(now),
        }
    }

    /// The write that [`Elector::decide`] asked for succeeded. `sent` is the monotonic time before it was sent, and
    /// `lease` the server's answer.
    pub fn written(&mut self, lease: Lease, sent: Duration) {
        self.view = View::Seen(Sighting { lease, since: sent });
        self.renewed = Some(sent);
        self.retry_at = None;
    }

    /// The write failed at `mono`, or its outcome is unknown.
    pub fn failed(&mut self, mono: Duration) {
        self.retry_at = Some(mono.saturating_add(self.terms.retry_every));
    }

    /// The write was refused because the Lease is not as it was seen (409, 404): read it afresh.
    pub fn conflicted(&mut self, mono: Duration) {
        self.failed(mono);
        self.view = View::Unknown { outdated: self.last_seen().cloned() };
    }

    /// The Lease without its holder, to be written once the work has stopped, so that another can take it at once. None
    /// when the Lease is not held. The Elector is done afterwards: it knows of no holder.
    pub fn release(&mut self, now: Now) -> Option<Lease> {
        self.renewed = None;
        let mut lease = self.last_seen().filter(|seen| self.is_mine(seen))?.lease.clone();
        self.view = View::Unknown { outdated: None };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(now.wall));
        Some(lease)
    }

    fn decide_as_holder(&mut self, renewed: Duration, now: Now) -> Decision {
        let deadline = renewed.saturating_add(self.terms.give_up_after);
        let taken = match &self.view {
            View::Seen(seen) => !self.is_mine(seen),
            View::Absent => true,
            View::Unknown { .. } => false,
        };
        if taken || now.mono >= deadline {
            self.renewed = None;
            return Decision::Lost;
        }
        let View::Seen(seen) = &self.view else { return Decision::Lead { until: deadline } };
        let due = self.retry_at.unwrap_or_default().max(renewed.saturating_add(self.terms.renew_every));
        if now.mono < due {
            return Decision::Lead { until: due.min(deadline) };
        }
        Decision::Renew(self.claim(Some(&seen.lease), now))
    }

    fn decide_as_candidate(&self, now: Now) -> Decision {
        let (current, free_at) = match &self.view {
            View::Unknown { .. } => return Decision::Follow { until: None },
            View::Absent => (None, Duration::ZERO),
            View::Seen(seen) => (Some(&seen.lease), self.free_at(seen)),
        };
        let due = free_at.max(self.retry_at.unwrap_or_default());
        if now.mono < due {
            return Decision::Follow { until: Some(due) };
        }
        Decision::Acquire(self.claim(current, now))
    }

    /// From when on a candidate may take the Lease. One's own, written by a request whose reply was lost, is free.
    fn free_at(&self, seen: &Sighting) -> Duration {
        if holder(&seen.lease).is_none() || self.is_mine(seen) {
            return Duration::ZERO;
        }
        let claimed = seen.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let claimed = claimed.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        seen.since.saturating_add(claimed.unwrap_or_default().min(LONGEST).max(self.terms.duration))
    }

    fn is_mine(&self, seen: &Sighting) -> bool {
        holder(&seen.lease) == Some(&self.identity)
    }

    fn last_seen(&self) -> Option<&Sighting> {
        match &self.view {
            View::Seen(seen) => Some(seen),
            View::Unknown { outdated } => outdated.as_ref(),
            View::Absent => None,
        }
    }

    /// The Lease as it is to be, with this candidate as its holder. What others keep in it stays.
    fn claim(&self, current: Option<&Lease>, now: Now) -> Lease {
        let mut lease = current.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
            spec: None,
        });
        let was_mine = holder(&lease) == Some(&self.identity);
        let spec = lease.spec.get_or_insert_default();
        if !was_mine {
            spec.acquire_time = Some(MicroTime(now.wall));
            spec.lease_transitions = Some(transitions(spec, current.is_some()));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.terms.duration.as_secs()).unwrap_or(i32::MAX).max(1));
        spec.renew_time = Some(MicroTime(now.wall));
        lease
    }
}

/// One more than before, but 0 for a new Lease.
fn transitions(spec: &LeaseSpec, existed: bool) -> i32 {
    spec.lease_transitions.unwrap_or_default().max(0).saturating_add(existed.into())
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Whether `lease` is known to be older than `other`.
fn is_older(lease: &Lease, other: &Lease) -> bool {
    let version = |lease: &Lease| lease.metadata.resource_version.as_deref().and_then(parse_version);
    version(lease).zip(version(other)).is_some_and(|(lease, other)| lease < other)
}

#[cfg(test)]
mod tests;
