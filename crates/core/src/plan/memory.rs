//! What the controller remembers between two plans. Losing it costs time, never safety.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ClusterView, Policy};
use crate::Now;
use crate::ids::GrantId;
use crate::ledger::{Handover, Slot};
use crate::node::NodeView;

/// How long an agent has to answer before its silence is a reason: without it, every ask would cost two more writes.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// When this process first saw what it waits for, by its own monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    granted: BTreeMap<GrantId, Duration>,
    unanswered: BTreeMap<String, Duration>,
}

impl Memory {
    /// Takes a view in. To be called before [`super::plan`], with the same arguments.
    pub fn observe(&mut self, view: &ClusterView<'_>, now: Now) {
        let slots = view.ledger.slots();
        self.granted.retain(|id, _| slots.iter().any(|slot| slot.id == Some(*id)));
        self.unanswered.retain(|name, _| view.nodes.iter().any(|node| node.name == *name && is_unanswered(node)));
        for node in view.nodes {
            if let Some(id) = node.granted() {
                let seen = self.granted.entry(id).or_insert(now.mono);
                // It is taken up. Should somebody take that away, its agent gets the whole time again to say so.
                if !node.in_progress.is_absent() {
                    *seen = now.mono;
                }
            }
            if is_unanswered(node) && !self.unanswered.contains_key(&node.name) {
                self.unanswered.insert(node.name.clone(), now.mono);
            }
        }
    }

    /// Notes that this process has written the grant to its Node.
    pub fn wrote_grant(&mut self, id: GrantId, now: Now) {
        self.granted.entry(id).or_insert(now.mono);
    }

    /// What [`crate::ledger::judge`] needs to know of the past.
    pub fn handover(&self, slot: &Slot, policy: &Policy, now: Now) -> Handover {
        let seen = slot.id.and_then(|id| self.granted.get(&id));
        Handover { seen_for: seen.map(|seen| now.mono.saturating_sub(*seen)), pickup_deadline: policy.pickup_deadline }
    }

    /// Whether the node's agent has had the time to answer.
    pub(super) fn answer_is_due(&self, node: &str, now: Now) -> bool {
        self.unanswered.get(node).is_some_and(|seen| now.mono.saturating_sub(*seen) >= ANSWER_GRACE)
    }

    /// After how long a deadline that rests on this memory passes.
    pub(super) fn wake(&self, view: &ClusterView<'_>, policy: &Policy, now: Now) -> Option<Duration> {
        // By the slot: a person's `now` may have taken the place of the grant.
        let taken_up = |slot: &&Slot| view.nodes.iter().any(|n| n.name == slot.node && !n.in_progress.is_absent());
        let handed_over = view.ledger.slots().iter().filter(|slot| !taken_up(slot));
        let seen = handed_over.filter_map(|slot| self.granted.get(&slot.id?));
        let pickups = seen.map(|seen| seen.saturating_add(policy.pickup_deadline));
        let answers = self.unanswered.values().map(|seen| seen.saturating_add(ANSWER_GRACE));
        pickups.chain(answers).filter_map(|at| at.checked_sub(now.mono)).filter(|left| !left.is_zero()).min()
    }
}

/// Whether a node asks, or is forced, and its agent has said nothing.
fn is_unanswered(node: &NodeView) -> bool {
    node.in_progress.is_absent() && (node.is_forced() || (node.needed.is_some() && node.request.is_absent()))
}
