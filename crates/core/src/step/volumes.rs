//! Whether the volumes of the pods that are gone are still attached to the node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Situation;
use crate::drain::{Claim, Nature, PodView};

/// How long the first list of the attached volumes is waited for, where it does not come at once. It is asked for when the
/// last pod has gone, which may be long after the last volume was given up.
const LISTING: Duration = Duration::from_secs(10);

/// The claims of the pods of this cycle, as far as this process has seen them.
#[derive(Clone, Debug)]
pub(super) struct Claims(BTreeMap<Claim, Use>);

/// Whether a pod of the node uses a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Used,
    /// No longer, since then.
    Gone(Duration),
}

/// How the volumes of the pods that are gone stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Detach {
    /// None of them is attached to this node.
    Done,
    /// These, or some that are not listed yet, are waited for, for so long.
    Awaited(Option<Vec<String>>, Duration),
    /// These are not waited for any longer.
    Left(Vec<String>),
}

impl Claims {
    /// No claims.
    pub(super) const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes in what the watch of the pods shows. A pod that has ended uses nothing any more.
    pub(super) fn observe(&mut self, pods: &[PodView], now: Duration) {
        let running = pods.iter().filter(|pod| pod.nature != Nature::Finished);
        let used: BTreeSet<&Claim> = running.flat_map(|pod| &pod.claims).collect();
        for (claim, its_use) in &mut self.0 {
            if *its_use == Use::Used && !used.contains(claim) {
                *its_use = Use::Gone(now);
            }
        }
        self.0.extend(used.into_iter().map(|claim| (claim.clone(), Use::Used)));
    }

    /// Since when no pod of the node uses a claim that one of them has used.
    fn gone_since(&self, claim: &Claim) -> Option<Duration> {
        match self.0.get(claim) {
            Some(Use::Gone(since)) => Some(*since),
            Some(Use::Used) | None => None,
        }
    }

    /// When the latest claim was given up, where any was.
    fn latest_gone(&self) -> Option<Duration> {
        self.0.keys().filter_map(|claim| self.gone_since(claim)).max()
    }
}

/// Whether there is anything to wait for.
pub(super) fn matter(s: &Situation<'_>) -> bool {
    !s.policy.drain.wait_for_volumes.is_zero() && s.memory.claims().latest_gone().is_some()
}

/// To be asked once every pod that has to go is gone.
pub(super) fn detach(s: &Situation<'_>) -> Detach {
    let claims = s.memory.claims();
    let Some(gone_at) = claims.latest_gone() else { return Detach::Done };
    let longest = s.policy.drain.wait_for_volumes;
    let left = gone_at.saturating_add(longest).saturating_sub(s.now.mono);
    let Some(attached) = &s.host.attachments.0 else {
        let listing = watched_since(s).max(gone_at).saturating_add(LISTING).saturating_sub(s.now.mono);
        return match left.min(listing) {
            Duration::ZERO => Detach::Done,
            left => Detach::Awaited(None, left),
        };
    };
    let ours = attached.iter().filter(|attached| {
        let claim = attached.claim.as_ref();
        claim.is_some_and(|claim| claims.gone_since(claim).is_some())
    });
    let volumes: Vec<String> = ours.map(|attached| attached.volume.clone()).collect();
    match left {
        _ if volumes.is_empty() => Detach::Done,
        Duration::ZERO => Detach::Left(volumes),
        left => Detach::Awaited(Some(volumes), left),
    }
}

/// Since when no pod is left that has to go, so that volumes are watched: since a pod last went, came or was told to go,
/// or since one that does not end is not waited for any longer.
fn watched_since(s: &Situation<'_>) -> Duration {
    let pods = s.host.pods.iter().flatten();
    let stuck = pods.filter_map(|pod| s.policy.drain.stuck_for(pod, s.now.wall)).min();
    let left_at = stuck.map(|left_for| s.now.mono.saturating_sub(left_for));
    [s.memory.evictions().moved_at(), left_at].into_iter().flatten().max().unwrap_or_default()
}
