//! How many more nodes may become unavailable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{ClusterView, MOST_SLOTS, Policy};
use crate::ledger::{LedgerState, Slot};
use crate::node::NodeView;
use crate::reason::WaitReason;
use crate::{Now, until};

/// How long a slot may be held before it is named as what blocks the others. An alarm: it frees nothing (S6).
const LONG: Duration = Duration::from_mins(10);

/// How long a node that holds no slot may be not Ready before it is named: one that registers, or whose kubelet starts
/// again, is Ready before, and whoever is named, or not any more, costs every node that waits a write.
const BRIEF: Duration = Duration::from_secs(30);

/// The quota against what uses it.
///
/// Unavailable are the selected nodes that hold a slot, are not Ready, or are unschedulable, whoever did it. A node may
/// be granted when the slots with it stay within the quota, and so do the unavailable nodes with it; unless they are
/// above the quota without it already and it is one of them: rebooting a node that is down costs nothing more.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    lost: Option<String>,
    slots: usize,
    unavailable: BTreeSet<String>,
    held: BTreeMap<String, Slot>,
    /// What is wrong with nodes that hold a slot.
    held_down: BTreeMap<String, &'static str>,
    /// What is wrong with nodes that hold none, and from when on they are named.
    idle_down: BTreeMap<String, (&'static str, Option<Timestamp>)>,
}

impl Capacity {
    /// The capacity of this view.
    pub fn of(view: &ClusterView<'_>, policy: &Policy) -> Self {
        let selected = || view.nodes.iter().filter(|node| policy.selector.matches(&node.labels));
        let slots = view.ledger.slots();
        let held: BTreeMap<String, Slot> = slots.iter().map(|slot| (slot.node.clone(), slot.clone())).collect();
        let is_unavailable = |node: &&NodeView| held.contains_key(&node.name) || down(node).is_some();
        Self {
            limit: policy.quota.limit(selected().count()),
            lost: match view.ledger {
                LedgerState::Lost(lost) => Some(lost.why.clone()),
                LedgerState::Known(_) => None,
            },
            slots: slots.len(),
            unavailable: selected().filter(is_unavailable).map(|node| node.name.clone()).collect(),
            idle_down: selected()
                .filter(|node| !held.contains_key(&node.name))
                .filter_map(|node| Some((node.name.clone(), (down(node)?, named_from(node)))))
                .collect(),
            held_down: view
                .nodes
                .iter()
                .filter(|node| held.contains_key(&node.name))
                .filter_map(|node| Some((node.name.clone(), down(node)?)))
                .collect(),
            held,
        }
    }

    /// The slots that the quota allows.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The slots taken.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Counts the slot that a node in progress will get before anything is granted.
    pub(super) fn adopt(&mut self, node: &str) {
        if !self.held.contains_key(node) {
            self.slots += 1;
            self.unavailable.insert(node.to_owned());
        }
    }

    /// Takes a slot for the node, or says why there is none.
    pub(super) fn admit(&mut self, node: &str, now: Now) -> Result<(), WaitReason> {
        if let Some(why) = &self.lost {
            return Err(WaitReason::LedgerLost { why: why.clone() });
        }
        if self.limit == 0 {
            return Err(WaitReason::QuotaZero);
        }
        if self.slots >= MOST_SLOTS {
            return Err(WaitReason::SlotsCapped);
        }
        let with_it = self.unavailable.len() + usize::from(!self.unavailable.contains(node));
        if self.slots >= self.limit || with_it > self.limit.max(self.unavailable.len()) {
            return Err(WaitReason::QuotaUsed { limit: self.limit, blocker: self.blocker(node, now) });
        }
        self.slots += 1;
        self.unavailable.insert(node.to_owned());
        Ok(())
    }

    /// The node that keeps the quota in use without getting on, seen from another node. While the slots alone use it up,
    /// a node without one is not the reason.
    fn blocker(&self, from: &str, now: Now) -> Option<(String, String)> {
        let stuck = self.held.values().find(|slot| until(alarm_at(slot), now).is_none());
        let idle = || {
            let mut named =
                self.idle_down.iter().filter(|(node, (_, at))| *node != from && at.is_none_or(|at| at <= now.wall));
            named.next().map(|(node, (state, _))| (node.clone(), (*state).to_owned()))
        };
        stuck.map(|slot| (slot.node.clone(), self.hold(slot))).or_else(|| idle().filter(|_| self.slots < self.limit))
    }

    fn hold(&self, slot: &Slot) -> String {
        let state = self.held_down.get(&slot.node).map(|state| format!(" and {state}")).unwrap_or_default();
        format!("has held its slot since {}{state}", slot.since)
    }

    /// When the next node becomes one that is named as a blocker.
    pub(super) fn next_alarm(&self, now: Now) -> Option<Duration> {
        let idle = self.idle_down.values().filter_map(|(_, at)| *at);
        self.held.values().map(alarm_at).chain(idle).filter_map(|at| until(at, now)).min()
    }
}

fn alarm_at(slot: &Slot) -> Timestamp {
    slot.since.checked_add(LONG).unwrap_or(Timestamp::MAX)
}

/// A cordon is no brief affair.
fn named_from(node: &NodeView) -> Option<Timestamp> {
    node.not_ready_since.filter(|_| !node.unschedulable)?.checked_add(BRIEF).ok()
}

fn down(node: &NodeView) -> Option<&'static str> {
    if !node.ready {
        Some("is not Ready")
    } else if node.unschedulable {
        Some("is cordoned")
    } else {
        None
    }
}
