//! The controller's brain: what to do about every node, and for every node that waits, why.
//!
//! [`plan`] is a function of one snapshot. What it proposes from a cached view is only a prompt where safety is
//! concerned: slots are settled on a fresh read ([`crate::ledger::judge`]), and a grant is two conditional writes.

mod capacity;
mod memory;
mod waiting;

pub use memory::{Memory, WriteOf};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capacity::Capacity;
use jiff::Timestamp;

use crate::ledger::{self, LedgerState, MOST_SLOTS, Slot, Verdict};
use crate::node::NodeView;
use crate::quota::Quota;
use crate::reason::WaitReason;
use crate::selector::Selector;
use crate::values::{Phase, Waiting};
use crate::{Now, earlier, until};

/// What the controller was told to do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many nodes may be unavailable at once.
    pub quota: Quota,
    /// Which nodes are granted reboots, and count in the quota.
    pub selector: Selector,
    /// After how long a grant that nobody took up is withdrawn.
    pub pickup_deadline: Duration,
}

/// The cluster at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ClusterView<'a> {
    /// All Nodes, selected or not: a changed label is a change, not a deletion.
    pub nodes: &'a [NodeView],
    /// The ledger as last read or written.
    pub ledger: &'a LedgerState,
    /// The node that this controller runs on, which comes last.
    pub home: Option<&'a str>,
}

/// One thing to do. The order in a [`Plan`] matters: slots are freed before they are spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The ledger is lost: rebuild it from an uncached list of the Nodes ([`ledger::taken_in`]).
    Rebuild,
    /// Read the Node of this slot and carry out [`ledger::judge`]'s verdict.
    Settle(Slot),
    /// Give the node in progress the slot that it must have ([`ledger::adoption`]).
    Adopt(String),
    /// Take away a grant that the ledger knows nothing of ([`ledger::is_stray`]).
    Expel(String),
    /// Take a slot, of as many as the quota allows, then write the grant to the Node.
    Grant(String, usize),
    /// Write, or with `None` remove, `reboot-waiting`: the value, and the reason that it gives.
    Explain(String, Option<(WaitReason, Waiting)>),
}

impl Action {
    /// The node that the action is about; `None`: it is about the ledger as a whole.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Rebuild => None,
            Self::Settle(slot) => Some(&slot.node),
            Self::Adopt(node) | Self::Expel(node) | Self::Grant(node, _) | Self::Explain(node, _) => Some(node),
        }
    }
}

/// What follows from one view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Every node that waits, and why.
    pub waits: BTreeMap<String, WaitReason>,
    /// After how long time alone changes the plan.
    pub wake: Option<Duration>,
    /// Numbers for metrics and people.
    pub census: Census,
}

/// The fleet in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All nodes.
    pub nodes: usize,
    /// Slots that the quota allows.
    pub limit: usize,
    /// Slots taken.
    pub slots: usize,
    /// Nodes that wait for a grant.
    pub waiting: usize,
    /// Nodes with a grant that their agent has not taken up yet.
    pub granted: usize,
    /// Nodes that drain.
    pub draining: usize,
    /// Nodes past the point of no return.
    pub rebooting: usize,
    /// Since when the node asks that has waited longest; nodes that a person keeps back do not count: by a pause, the
    /// selector, or a quota of zero.
    pub oldest_request: Option<Timestamp>,
    /// Since when the slot is taken that has been taken longest.
    pub oldest_slot: Option<Timestamp>,
    /// Annotations that are malformed, over all nodes.
    pub malformed: usize,
    /// Nodes whose latest reboot for update_engine left the version as it was: an update that does not take.
    pub same_version: usize,
}

/// Decides. Total: every view has a plan.
pub fn plan(view: &ClusterView<'_>, policy: &Policy, memory: &Memory, now: Now) -> Plan {
    let mut capacity = Capacity::of(view, policy);
    let census = Census { limit: capacity.limit(), slots: capacity.slots(), ..Census::default() };
    let mut plan = Plan { census, ..Plan::default() };
    match view.ledger {
        LedgerState::Lost(_) => plan.actions.push(Action::Rebuild),
        LedgerState::Known(ledger) => {
            plan.actions.extend(ledger.slots().iter().filter_map(|slot| settle(slot, view, policy, memory, now)));
            plan.actions.extend(view.nodes.iter().filter_map(|node| adopt_or_expel(node, ledger, policy, memory, now)));
        }
    }
    for action in &plan.actions {
        if let Action::Adopt(node) = action {
            capacity.adopt(node);
        }
    }
    let candidates = waiting::sort(view, policy, memory, now, &mut plan);
    grant_in_order(candidates, &mut capacity, now, &mut plan);
    explain(view, memory, now, &mut plan);
    count(view, &plan.waits, &mut plan.census);
    plan.wake = earlier(plan.wake, memory.wake(view, policy, now));
    plan
}

/// A slot of which the cached view says that it may be over.
fn settle(slot: &Slot, view: &ClusterView<'_>, policy: &Policy, memory: &Memory, now: Now) -> Option<Action> {
    let node = view.nodes.iter().find(|node| node.name == slot.node);
    let verdict = ledger::judge(slot, node, memory.handover(slot, policy, now));
    let writes = matches!(verdict, Verdict::Withdraw(_));
    let keep = verdict == Verdict::Keep || (writes && memory.is_left_alone(&slot.node, WriteOf::Permission, now));
    (!keep).then(|| Action::Settle(slot.clone()))
}

fn adopt_or_expel(
    node: &NodeView,
    ledger: &ledger::Ledger,
    policy: &Policy,
    memory: &Memory,
    now: Now,
) -> Option<Action> {
    let slot = ledger.slot(&node.name);
    if policy.selector.matches(&node.labels) && ledger::adoption(node, slot, now).is_some() {
        Some(Action::Adopt(node.name.clone()))
    } else if ledger::is_stray(node, slot) && !memory.is_left_alone(&node.name, WriteOf::Permission, now) {
        Some(Action::Expel(node.name.clone()))
    } else {
        None
    }
}

/// Grants to the candidates in their order, as far as the capacity goes; the others wait for it.
fn grant_in_order(candidates: Vec<&NodeView>, capacity: &mut Capacity, now: Now, plan: &mut Plan) {
    for node in candidates {
        match capacity.admit(&node.name, now) {
            Ok(()) => plan.actions.push(Action::Grant(node.name.clone(), capacity.limit())),
            Err(reason) => {
                plan.waits.insert(node.name.clone(), reason);
                plan.wake = earlier(plan.wake, capacity.next_alarm(now));
            }
        }
    }
}

/// Brings `reboot-waiting` in line, where the reason changed. A grant's own patch removes it, and what a node waits for
/// after another action of this plan is said after that action.
fn explain(view: &ClusterView<'_>, memory: &Memory, now: Now, plan: &mut Plan) {
    let busy: BTreeSet<&str> = plan.actions.iter().filter_map(Action::node).collect();
    let mut explained = Vec::new();
    let may_write = |node: &&NodeView| {
        !busy.contains(node.name.as_str()) && !memory.is_left_alone(&node.name, WriteOf::Reason, now)
    };
    for node in view.nodes.iter().filter(may_write) {
        let (held_until, lapsed) = (waiting::held_back(node, now), node.lapsed());
        let explanation = match plan.waits.get(&node.name) {
            Some(reason) if node.waiting.get().is_some_and(|waiting| waiting.says(reason)) => continue,
            Some(reason) => {
                let held_boot = held_until.and_then(|_| node.waiting.get()?.held_boot);
                let waiting = Waiting { held_until, held_boot, lapsed, ..Waiting::new(reason, now.wall_seconds()) };
                Some((reason.clone(), waiting))
            }
            None if node.waiting.is_absent() => continue,
            // What a person removed is not given again only because the node stopped asking for a moment.
            None if held_until.is_some() || lapsed.is_some() => {
                plan.wake = earlier(plan.wake, held_until.and_then(|at| until(at, now)));
                continue;
            }
            None => None,
        };
        explained.push(Action::Explain(node.name.clone(), explanation));
    }
    explained.sort_by_key(|action| action.node().is_some_and(|node| memory.refuses(node, WriteOf::Reason)));
    plan.actions.extend(explained);
}

fn oldest_request(view: &ClusterView<'_>, waits: &BTreeMap<String, WaitReason>) -> Option<Timestamp> {
    let kept_back = |reason: &WaitReason| {
        matches!(reason, WaitReason::Paused { .. } | WaitReason::NotSelected | WaitReason::QuotaZero)
    };
    let waiting = view.nodes.iter().filter(|node| waits.get(&node.name).is_some_and(|reason| !kept_back(reason)));
    let asked = waiting.filter_map(|node| match node.compatible_request() {
        Some(request) => Some(request.since),
        None => node.waiting.get().map(|waiting| waiting.since),
    });
    asked.min()
}

/// Each node is counted in one state; what is in none of them is idle.
fn count(view: &ClusterView<'_>, waits: &BTreeMap<String, WaitReason>, census: &mut Census) {
    census.nodes = view.nodes.len();
    census.oldest_request = oldest_request(view, waits);
    census.oldest_slot = view.ledger.slots().iter().map(|slot| slot.since).min();
    for node in view.nodes {
        census.malformed += node.malformed().count();
        census.same_version += usize::from(node.last_reboot.get().is_some_and(|last| last.same_version > 0));
        match node.in_progress.get().map(|progress| progress.phase) {
            Some(Phase::Draining) => census.draining += 1,
            Some(Phase::Rebooting) => census.rebooting += 1,
            None if waits.contains_key(&node.name) => census.waiting += 1,
            None => census.granted += usize::from(node.permission.get().is_some()),
        }
    }
}

#[cfg(test)]
mod tests;
