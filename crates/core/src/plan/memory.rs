//! What the controller remembers between two plans. Losing it costs time, never safety.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{ClusterView, Policy};
use crate::backoff::{self, LONGEST_PAUSE};
use crate::ids::GrantId;
use crate::ledger::{Handover, Slot};
use crate::node::NodeView;
use crate::values::Request;
use crate::{Now, until};

/// How long an agent has to answer before its silence is a reason: without it, every ask would cost two more writes.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Up to so many Nodes that refuse writes are left alone. Where more do, it is no single Node's affair.
const A_FEW: usize = 10;

/// For how long a Node that refused a write comes after all others.
const REMEMBERED: Duration = Duration::from_hours(1);

/// When this process first saw what it waits for, by its own monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    granted: BTreeMap<GrantId, Duration>,
    unanswered: BTreeMap<String, Duration>,
    /// The `notBefore` of each node's answer, and when that is by this process's own wall clock.
    pauses: BTreeMap<String, (Timestamp, Timestamp)>,
    /// The Nodes that take no writes.
    refused: BTreeMap<String, Refusal>,
    /// Whether a view was taken in, so that what differs from it has come since.
    joined: bool,
}

/// What the API server refused to write to a Node.
#[derive(Clone, Copy, Debug, Default)]
struct Refusal {
    /// How often in a row.
    times: u32,
    /// Until when the Node is left alone.
    until: Duration,
    /// Whether a grant or a fence was among it.
    of_permission: bool,
}

impl Refusal {
    /// Whether it was left alone until now, or until so long ago.
    fn is_within(&self, long: Duration, now: Now) -> bool {
        now.mono < self.until.saturating_add(long)
    }
}

/// A write to a Node, as far as its refusal makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOf {
    /// A grant, or the fence that takes one back.
    Permission,
    /// Why the node waits.
    Reason,
}

impl Memory {
    /// Takes a view in. To be called before [`super::plan`], with the same arguments.
    pub fn observe(&mut self, view: &ClusterView<'_>, now: Now) {
        let slots = view.ledger.slots();
        self.granted.retain(|id, _| slots.iter().any(|slot| slot.id == Some(*id)));
        let silent = view.nodes.iter().filter(|node| is_unanswered(node));
        let silent: BTreeSet<&str> = silent.map(|node| node.name.as_str()).collect();
        self.unanswered.retain(|name, _| silent.contains(name.as_str()));
        for node in view.nodes {
            if let Some(id) = node.granted() {
                let seen = self.granted.entry(id).or_insert(now.mono);
                // It is taken up. Should somebody take that away, its agent gets the whole time again to say so.
                if !node.in_progress.is_absent() {
                    *seen = now.mono;
                }
            }
        }
        for name in silent {
            if !self.unanswered.contains_key(name) {
                self.unanswered.insert(name.to_owned(), now.mono);
            }
        }
        if !self.refused.is_empty() {
            let nodes: BTreeSet<&str> = view.nodes.iter().map(|node| node.name.as_str()).collect();
            let is_recent = |refusal: &Refusal| refusal.is_within(REMEMBERED, now);
            self.refused.retain(|name, refusal| nodes.contains(name.as_str()) && is_recent(refusal));
        }
        self.observe_pauses(view, now);
    }

    fn observe_pauses(&mut self, view: &ClusterView<'_>, now: Now) {
        let before = std::mem::take(&mut self.pauses);
        for node in view.nodes {
            let Some(request) = node.compatible_request() else { continue };
            let Some(said) = request.not_before else { continue };
            let known = before.get(&node.name).filter(|(known, _)| *known == said);
            let ends = known.map_or_else(|| pause_ends(node, request, said, self.joined, now), |(_, ends)| *ends);
            self.pauses.insert(node.name.clone(), (said, ends));
        }
        self.joined = true;
    }

    /// Notes that this process has written the grant to its Node.
    pub fn wrote_grant(&mut self, id: GrantId, now: Now) {
        self.granted.entry(id).or_insert(now.mono);
    }

    /// Notes that the API server refused a write to this Node, by a policy or because its annotations are too large, and
    /// would refuse the next. It is left alone for a while, so that the others do not wait for it. Returns whether that
    /// is all there is to do: where many Nodes refuse, something is wrong with the controller's rights.
    pub fn was_refused(&mut self, node: &str, write: WriteOf, now: Now) -> bool {
        let refusal = self.refused.entry(node.to_owned()).or_default();
        refusal.times = refusal.times.saturating_add(1);
        refusal.until = now.mono.saturating_add(backoff::after_failures(refusal.times));
        refusal.of_permission |= write == WriteOf::Permission;
        self.refused.values().filter(|refusal| refusal.is_within(backoff::LATE, now)).count() <= A_FEW
    }

    /// Notes that the API server took a write to this Node.
    pub fn was_taken(&mut self, node: &str) {
        self.refused.remove(node);
    }

    /// Whether this is not written to the Node for now, because it was refused.
    pub(super) fn is_left_alone(&self, node: &str, write: WriteOf, now: Now) -> bool {
        self.refuses(node, write) && self.refused.get(node).is_some_and(|refusal| now.mono < refusal.until)
    }

    /// Whether this was refused the last time: such a Node comes after all others.
    pub(super) fn refuses(&self, node: &str, write: WriteOf) -> bool {
        self.refused.get(node).is_some_and(|refusal| refusal.of_permission || write == WriteOf::Reason)
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

    /// Until when the node wants no grant, by this process's clock.
    pub(super) fn put_off_until(&self, node: &NodeView, request: &Request) -> Option<Timestamp> {
        let said = request.not_before?;
        let known = self.pauses.get(&node.name).filter(|(known, _)| *known == said);
        Some(known.map_or(said, |(_, ends)| *ends))
    }

    /// After how long a deadline that rests on this memory passes.
    pub(super) fn wake(&self, view: &ClusterView<'_>, policy: &Policy, now: Now) -> Option<Duration> {
        // By the slot: a person's `now` may have taken the place of the grant.
        let taken_up = |slot: &&Slot| view.nodes.iter().any(|n| n.name == slot.node && !n.in_progress.is_absent());
        let handed_over = view.ledger.slots().iter().filter(|slot| !taken_up(slot));
        let seen = handed_over.filter_map(|slot| self.granted.get(&slot.id?));
        let pickups = seen.map(|seen| seen.saturating_add(policy.pickup_deadline));
        let answers = self.unanswered.values().map(|seen| seen.saturating_add(ANSWER_GRACE));
        let refused = self.refused.values().map(|refusal| refusal.until);
        pickups
            .chain(answers)
            .chain(refused)
            .filter_map(|at| at.checked_sub(now.mono))
            .filter(|left| !left.is_zero())
            .min()
    }
}

/// When a pause ends of which a node says that it ends at `said`. `came`: the answer was seen to come.
///
/// The node's clock may be wrong, so its times are compared with one another only. The pause began with its latest report
/// or its ask, whichever is later; what is later than the end was written before the clock was set. By right clocks the
/// pause ends at `said`: between now and a whole pause from now, or before now where the answer was there before this
/// process was.
fn pause_ends(node: &NodeView, request: &Request, said: Timestamp, came: bool, now: Now) -> Timestamp {
    let written = [Some(request.since), node.last_reboot.get().map(|last| last.at)];
    let begun = written.into_iter().flatten().filter(|at| *at < said).max().unwrap_or(said);
    let length = Duration::try_from(said.duration_since(begun)).unwrap_or_default().min(LONGEST_PAUSE);
    let latest = now.wall_after(length);
    let is_behind = came && until(said, now).is_none();
    if is_behind { latest } else { said.min(latest) }
}

/// Whether a node asks, or is forced, and its agent has said nothing.
fn is_unanswered(node: &NodeView) -> bool {
    node.in_progress.is_absent() && (node.is_forced() || (node.needed.is_some() && node.request.is_absent()))
}
