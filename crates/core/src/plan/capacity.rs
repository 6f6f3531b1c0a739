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

/// For how long a node without a slot may be not Ready before it is named. One that registers, or whose kubelet starts
/// again, is Ready sooner; and every change of who is named costs a write for each node that waits.
const BRIEF: Duration = Duration::from_secs(30);

/// The quota against what uses it.
///
/// Unavailable are the selected nodes that hold a slot, are not Ready, or are cordoned, whoever did it. A node may be
/// granted when with it neither the slots nor the unavailable nodes are more than the quota. More nodes than that may be
/// unavailable already: then one of these may go all the same, because to reboot a node that is down costs nothing more.
///
/// Control-plane nodes go one at a time whatever the quota is, so that etcd keeps its quorum: none is granted while
/// another one, selected or not, holds a slot, is not Ready, or is cordoned. Like the count of the unavailable nodes this
/// rests on the view, which has all slots that were known when it was made, and on there being one leader. What is
/// checked once more when a slot is written is the number of slots alone: the ledger knows no labels.
#[derive(Debug)]
pub(super) struct Capacity {
    limit: usize,
    lost: Option<String>,
    /// The slots of the ledger, by node.
    held: BTreeMap<String, Slot>,
    /// The nodes that hold a slot, those included to which this plan gives one.
    taken: BTreeSet<String>,
    unavailable: BTreeSet<String>,
    /// What is wrong with a node, selected or not, where something is.
    down: BTreeMap<String, Down>,
    /// The control-plane nodes, selected or not.
    control_plane: BTreeSet<String>,
}

/// What is wrong with a node.
#[derive(Debug)]
struct Down {
    state: &'static str,
    /// From when on it is named, where it holds no slot; `None`: at once.
    named_from: Option<Timestamp>,
}

impl Capacity {
    /// The capacity of this view.
    pub(super) fn of(view: &ClusterView<'_>, policy: &Policy) -> Self {
        let selected = || view.nodes.iter().filter(|node| policy.selector.matches(&node.labels));
        let control_plane = view.nodes.iter().filter(|node| node.is_control_plane());
        let slots = view.ledger.slots().iter();
        let held: BTreeMap<String, Slot> = slots.map(|slot| (slot.node.clone(), slot.clone())).collect();
        let down = view.nodes.iter().filter_map(|node| Some((node.name.clone(), Down::of(node)?)));
        let down: BTreeMap<String, Down> = down.collect();
        let is_unavailable = |node: &&NodeView| held.contains_key(&node.name) || down.contains_key(&node.name);
        Self {
            limit: policy.quota.limit(selected().count()),
            lost: match view.ledger {
                LedgerState::Lost(lost) => Some(lost.why.clone()),
                LedgerState::Known(_) => None,
            },
            taken: held.keys().cloned().collect(),
            unavailable: selected().filter(is_unavailable).map(|node| node.name.clone()).collect(),
            control_plane: control_plane.map(|node| node.name.clone()).collect(),
            held,
            down,
        }
    }

    /// The slots that the quota allows.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The slots taken.
    pub(super) fn slots(&self) -> usize {
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

    /// The node that keeps the quota in use without getting on, seen from another node.
    fn blocker(&self, from: &str, now: Now) -> Option<(String, String)> {
        if let Some(slot) = self.held.values().find(|slot| is_stuck(slot, now)) {
            return Some((slot.node.clone(), self.hold(slot)));
        }
        if self.slots() >= self.limit {
            // The slots alone use it up: a node without one is not the reason.
            return None;
        }
        let is_named = |down: &Down| down.named_from.is_none_or(|at| at <= now.wall);
        let (node, down) = self.down_without_slot().find(|(node, down)| *node != from && is_named(down))?;
        Some((node.clone(), down.state.to_owned()))
    }

    /// The selected nodes that use the quota up without a slot in the ledger.
    fn down_without_slot(&self) -> impl Iterator<Item = (&String, &Down)> {
        let counts = |node: &String| self.unavailable.contains(node) && !self.held.contains_key(node);
        self.down.iter().filter(move |(node, _)| counts(node))
    }

    /// The control-plane node that keeps this one from going; `None` where there is none, or this is no such node.
    fn other_control_plane(&self, from: &str, now: Now) -> Option<WaitReason> {
        if !self.control_plane.contains(from) {
            return None;
        }
        let mut others = self.control_plane.iter().filter(|node| *node != from);
        others.find_map(|node| {
            let (state, is_stuck) = self.out_of_service(node, now)?;
            Some(WaitReason::ControlPlane { blocker: (node.clone(), state), is_stuck })
        })
    }

    /// How a node is out of service, if it is, and whether it does not get on by itself. While it reboots as it should
    /// these are the same words throughout.
    fn out_of_service(&self, node: &str, now: Now) -> Option<(String, bool)> {
        if !self.taken.contains(node) {
            return self.down.get(node).map(|down| (down.state.to_owned(), true));
        }
        match self.held.get(node).filter(|slot| is_stuck(slot, now)) {
            Some(slot) => Some((self.hold(slot), true)),
            None => Some(("holds a slot".to_owned(), false)),
        }
    }

    fn hold(&self, slot: &Slot) -> String {
        let state = self.down.get(&slot.node).map(|down| format!(" and {}", down.state)).unwrap_or_default();
        format!("has held its slot since {}{state}", slot.since)
    }

    /// When the next node becomes one that is named as a blocker.
    pub(super) fn next_alarm(&self, now: Now) -> Option<Duration> {
        let brief = self.down_without_slot().filter_map(|(_, down)| down.named_from);
        self.held.values().map(alarm_at).chain(brief).filter_map(|at| until(at, now)).min()
    }
}

impl Down {
    fn of(node: &NodeView) -> Option<Self> {
        if node.ready && !node.unschedulable {
            return None;
        }
        let state = if node.ready { "is cordoned" } else { "is not Ready" };
        // A cordon is no brief affair.
        let brief = node.not_ready_since.filter(|_| !node.unschedulable);
        Some(Self { state, named_from: brief.and_then(|since| since.checked_add(BRIEF).ok()) })
    }
}

fn alarm_at(slot: &Slot) -> Timestamp {
    slot.since.checked_add(LONG).unwrap_or(Timestamp::MAX)
}

fn is_stuck(slot: &Slot, now: Now) -> bool {
    until(alarm_at(slot), now).is_none()
}
