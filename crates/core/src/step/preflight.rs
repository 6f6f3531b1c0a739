//! Before the cordon: whether a drain of this node could end, and a reboot follow it, as things stand.
//!
//! A node that is cordoned and then waits for a budget uses its slot up and keeps the others waiting, for nothing. So the
//! agent looks at its pods and the budgets over them as soon as it sees the grant, with the very watches of the drain.
//! And where somebody's lock blocks shutdowns, every drain would be in vain, again and again.

use std::time::Duration;

use super::{OnDrainBlocked, OnDrainTimeout, ShutdownLock, Situation};
use crate::drain::{BudgetView, Guard, Health, PodView};
use crate::ids::GrantId;
use crate::reason::EndReason;

/// What the look brought.
pub(super) enum Finding {
    /// Nothing is known that would hold the drain up, or the reboot.
    Clear,
    /// The pods or the budgets are not listed yet, or logind has not answered; for how long that is waited for.
    Unseen(Duration),
    /// The drain could not end now, or the reboot not follow, for this reason, in these words.
    Blocked(EndReason, String),
}

/// How long the first lists and logind are waited for. They come within moments, where they come at all; without them the
/// drain begins.
const LISTING: Duration = Duration::from_secs(2);

/// A budget that has as many healthy pods as it needs and no more: a pod was evicted from another node, or fails, and
/// its replacement starts. That takes seconds, for some databases minutes, and is what a drain is there to wait for.
const SATURATED: Duration = Duration::from_mins(5);

/// A budget that has fewer healthy pods than it needs. No eviction brings it there: pods fail. Half a minute is more than
/// a container that is restarted needs.
const SHORT: Duration = Duration::from_secs(30);

/// Whether a grant is there that [`look`] will be asked about, so that pods and budgets have to be watched.
pub(super) fn is_due(s: &Situation<'_>) -> bool {
    let Some(id) = s.node.granted() else { return false };
    let over = s.node.last_reboot.get().is_some_and(|last| last.id == Some(id));
    s.policy.on_drain_blocked == OnDrainBlocked::GiveUp && Some(id.boot) == s.host.boot && !over
}

/// Looks whether the drain under this grant could end, and a reboot follow it.
pub(super) fn look(s: &Situation<'_>, id: GrantId) -> Finding {
    if s.policy.on_drain_blocked == OnDrainBlocked::Drain {
        return Finding::Clear;
    }
    let seen = s.memory.granted_at(id).unwrap_or(s.now.mono);
    let left = seen.saturating_add(LISTING).saturating_sub(s.now.mono);
    match &s.host.lock {
        ShutdownLock::Held(words) => return Finding::Blocked(EndReason::RebootRefused, words.clone()),
        ShutdownLock::Unknown if !left.is_zero() => return Finding::Unseen(left),
        ShutdownLock::Unknown | ShutdownLock::Free => {}
    }
    match &s.host.pods {
        Some(pods) if s.host.budgets.0.is_some() || left.is_zero() => judge(s, pods),
        None if left.is_zero() => Finding::Clear,
        _ => Finding::Unseen(left),
    }
}

fn judge(s: &Situation<'_>, pods: &[PodView]) -> Finding {
    let rules = &s.policy.drain;
    // Whoever lets the drain end in spite of what blocks it wants it to begin.
    let in_spite = s.policy.on_drain_timeout == OnDrainTimeout::Reboot;
    let past_budgets = in_spite || rules.delete || rules.delete_after.is_some();
    let going = pods.iter().filter(|pod| !pod.is_terminating());
    for (pod, fate) in going.map(|pod| (pod, rules.fate(pod, false, s.now.wall))) {
        if let Some(why) = fate.blocks().filter(|_| !in_spite) {
            return Finding::Blocked(EndReason::BlockedByPod, format!("{} stays: {why}", pod.pod));
        }
        let why = if fate.is_evicted() && !past_budgets { blocked(s, pod, pods) } else { None };
        if let Some(why) = why {
            return Finding::Blocked(EndReason::BlockedByBudget, format!("{} is {why}", pod.pod));
        }
    }
    Finding::Clear
}

/// Why the budgets over this pod would not let it go, now and for some time.
fn blocked(s: &Situation<'_>, pod: &PodView, pods: &[PodView]) -> Option<String> {
    match s.host.budgets.guard(pod) {
        // Whether a budget is in the way shows only in the drain.
        Guard::Unknown | Guard::Free => None,
        Guard::Several(budget, other) => Some(BudgetView::several(budget, other)),
        Guard::One(budget) if budget.open() > 0 || budget.stale => None,
        Guard::One(budget) if budget.never_opens() => Some(budget.never()),
        // These can go, or are going, and their replacements elsewhere may open it.
        Guard::One(budget) if pods.iter().any(|other| budget.guards(other) && is_moving(other)) => None,
        Guard::One(budget) => {
            let since = budget.closed_since?;
            let closed = Duration::try_from(s.now.wall.duration_since(since)).unwrap_or_default();
            let patience = if budget.healthy < budget.desired { SHORT } else { SATURATED };
            (closed >= patience).then(|| {
                let BudgetView { name, desired, healthy, .. } = budget;
                format!(
                    "blocked by PodDisruptionBudget {name}, which has allowed no disruption since {since}: it needs \
                     {desired} healthy pods and has {healthy}"
                )
            })
        }
    }
}

fn is_moving(pod: &PodView) -> bool {
    pod.is_terminating() || pod.health != Health::Ready
}
