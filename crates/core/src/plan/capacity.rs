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
///
/// Control-plane nodes go one at a time whatever the quota is, so that etcd keeps its quorum: none is granted while
/// another one, selected or not, holds a slot, is not Ready, or is unschedulable. Like the count of the unavailable nodes
/// this rests on the view. The ledger knows no labels, so that the write of a slot checks the number of slots alone.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    lost: Option<String>,
    /// Whoever holds a slot, by this plan included.
    taken: BTreeSet<String>,
    unavailable: BTreeSet<String>,
    held: BTreeMap<String, Slot>,
    /// What is wrong with nodes that hold a slot.
    held_down: BTreeMap<String, &'static str>,
    /// What is wrong with nodes that hold none, and from when on they are named.
    idle_down: BTreeMap<String, (&'static str, Option<Timestamp>)>,
    /// The control-plane nodes, selected or not, and what is wrong with each.
    control_plane: BTreeMap<String, Option<&'static str>>,
}

impl Capacity {
    /// The capacity of this view.
    pub fn of(view: &ClusterView<'_>, policy: &Policy) -> Self {
        let selected = || view.nodes.iter().filter(|node| policy.selector.matches(&node.labels));
        let slots = view.ledger.slots().iter();
        let held: BTreeMap<String, Slot> = slots.map(|slot| (slot.node.clone(), slot.clone())).collect();
        let control_plane = view.nodes.iter().filter(|node| node.is_control_plane());
        let is_unavailable = |node: &&NodeView| held.contains_key(&node.name) || down(node).is_some();
        Self {
            limit: policy.quota.limit(selected().count()),
            lost: match view.ledger {
                LedgerState::Lost(lost) => Some(lost.why.clone()),
                LedgerState::Known(_) => None,
            },
            taken: held.keys().cloned().collect(),
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
            control_plane: control_plane.map(|node| (node.name.clone(), down(node))).collect(),
            held,
        }
    }

    /// The slots that the quota allows.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The slots taken.
    pub fn slots(&self) -> usize {
        self.taken.len()
    }

    /// Counts the slot that a node in progress will get before anything is granted.
    pub(super) fn adopt(&mut self, node: &str) {
        self.taken.insert(node.to_owned());
        self.unavailable.insert(node.to_owned());
    }

    /// Takes a slot for the node, or says why there is none.
    pub(super) fn admit(&mut self, node: &str, now: Now) -> Result<(), WaitReason> {
        if let Some(why) = &self.lost {
            return Err(WaitReason::LedgerLost { why: why.clone() });
        }
        if self.limit == 0 {
            return Err(WaitReason::QuotaZero);
        }
        if self.slots() >= MOST_SLOTS {
            return Err(WaitReason::SlotsCapped);
        }
        let with_it = self.unavailable.len() + usize::from(!self.unavailable.contains(node));
        if self.slots() >= self.limit || with_it > self.limit.max(self.unavailable.len()) {
            return Err(WaitReason::QuotaUsed { limit: self.limit, blocker: self.blocker(node, now) });
        }
        if let Some(reason) = self.other_control_plane(node, now) {
            return Err(reason);
        }
        self.taken.insert(node.to_owned());
        self.unavailable.insert(node.to_owned());
        Ok(())
    }

    /// The node that keeps the quota in use without getting on, seen from another node. While the slots alone use it up,
    /// a node without one is not the reason.
    fn blocker(&self, from: &str, now: Now) -> Option<(String, String)> {
        let stuck = self.held.values().find(|slot| is_stuck(slot, now));
        let idle = || {
            let mut named =
                self.idle_down.iter().filter(|(node, (_, at))| *node != from && at.is_none_or(|at| at <= now.wall));
            named.next().map(|(node, (state, _))| (node.clone(), (*state).to_owned()))
        };
        stuck.map(|slot| (slot.node.clone(), self.hold(slot))).or_else(|| idle().filter(|_| self.slots() < self.limit))
    }

    /// The control-plane node that keeps this one from going; `None` where there is none, or this is no such node.
    fn other_control_plane(&self, from: &str, now: Now) -> Option<WaitReason> {
        if !self.control_plane.contains_key(from) {
            return None;
        }
        let mut others = self.control_plane.iter().filter(|(node, _)| *node != from);
        others.find_map(|(node, down)| {
            let (state, is_stuck) = self.out_of_service(node, *down, now)?;
            Some(WaitReason::ControlPlane { blocker: (node.clone(), state), is_stuck })
        })
    }

    /// How a node is out of service, if it is, and whether it does not get on by itself. While it reboots as it should
    /// these are the same words throughout.
    fn out_of_service(&self, node: &str, down: Option<&str>, now: Now) -> Option<(String, bool)> {
        if !self.taken.contains(node) {
            return down.map(|state| (state.to_owned(), true));
        }
        match self.held.get(node).filter(|slot| is_stuck(slot, now)) {
            Some(slot) => Some((self.hold(slot), true)),
            None => Some(("holds a slot".to_owned(), false)),
        }
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

fn is_stuck(slot: &Slot, now: Now) -> bool {
    until(alarm_at(slot), now).is_none()
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
