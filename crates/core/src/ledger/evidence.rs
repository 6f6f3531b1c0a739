//! What becomes of a slot, by what its Node shows.
//!
//! The Node must have been read by name from the API server, without a resourceVersion, after the slot was read from
//! the ledger. A view from a cache may prompt that read; it never decides.

use std::fmt;
use std::time::Duration;

use super::Slot;
use crate::Now;
use crate::annotations::{self as key, NodePatch};
use crate::node::NodeView;
use crate::reason::WaitReason;
use crate::values::{Field, Waiting};

/// What proves that a slot's cycle is over (S6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// `last-reboot` names the cycle.
    Reported,
    /// The Node is Ready under another boot, and both annotations are gone.
    RebootedAndReady,
    /// The Node does not exist any more, or one with another UID has its name.
    NodeGone,
}

/// Why the controller takes a grant back that the agent has not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// The node was paused.
    Paused,
    /// Nobody asks any more.
    NotNeeded,
    /// Somebody asks, and the agent's answer is gone.
    Unanswered,
    /// The write of the grant did not reach the Node, or a withdrawal did that was cut short.
    NotWritten,
    /// The grant was on the Node and somebody removed or replaced it.
    GrantRemoved,
    /// The node was rebooted by something else before its agent took the grant up.
    Spent,
    /// No agent took the grant up in time.
    NotPickedUp,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in use, or nobody can know otherwise.
    Keep,
    /// The cycle is over.
    Free(Evidence),
    /// Fence the Node, then free the slot: see [`withdraw_patch`].
    Withdraw(Withdrawal),
}

/// What the controller's memory adds to the view of a Node.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// How long ago this process first saw the grant on the Node; `None`: it has not seen it there.
    pub seen_for: Option<Duration>,
    /// After how long a grant that nobody took up is withdrawn.
    pub pickup_deadline: Duration,
}

/// Judges a slot by its Node; `None`: there is no Node of that name.
pub fn judge(slot: &Slot, node: Option<&NodeView>, handover: Handover) -> Verdict {
    let Some(node) = node.filter(|node| node.uid == slot.uid) else {
        return Verdict::Free(Evidence::NodeGone);
    };
    let in_progress = node.in_progress.get().map(|progress| progress.id);
    let reported = node.last_reboot.get().and_then(|last| last.id);
    if slot.id.is_some() && reported == slot.id && in_progress != slot.id {
        return Verdict::Free(Evidence::Reported);
    }
    if !node.in_progress.is_absent() {
        return Verdict::Keep;
    }
    let spent = matches!((slot.id, node.boot), (Some(id), Some(boot)) if id.boot != boot);
    if spent { judge_spent(node) } else { judge_not_taken_up(slot, node, handover) }
}

/// The machine runs another boot than the one that the slot was for, and no cycle is in progress.
fn judge_spent(node: &NodeView) -> Verdict {
    match (node.ready, &node.permission) {
        (false, _) => Verdict::Keep,
        (true, Field::Absent) => Verdict::Free(Evidence::RebootedAndReady),
        (true, _) => Verdict::Withdraw(Withdrawal::Spent),
    }
}

fn judge_not_taken_up(slot: &Slot, node: &NodeView, handover: Handover) -> Verdict {
    // The agent's cordon came with `reboot-in-progress`: the cycle had begun, and somebody took the annotation away. The
    // machine may be going down. Its agent knows, and puts the annotation back, gives back, or removes the cordon.
    if node.cordon_is_ours() {
        return Verdict::Keep;
    }
    let on_node = node.is_forced() || node.granted().is_some_and(|id| slot.id == Some(id));
    // The grant came with this fence. A withdrawal replaces it, so what the operator took away itself is not mistaken
    // for what a person removed.
    let arrived = slot.id.is_some_and(|id| node.fence == Some(id.to_string()));
    let withdrawal = if node.paused.is_some() {
        Withdrawal::Paused
    } else if !on_node && !arrived {
        Withdrawal::NotWritten
    } else if !on_node {
        Withdrawal::GrantRemoved
    } else if node.needed.is_none() {
        Withdrawal::NotNeeded
    } else if node.request.is_absent() {
        Withdrawal::Unanswered
    } else if handover.seen_for.is_some_and(|seen| seen >= handover.pickup_deadline) {
        Withdrawal::NotPickedUp
    } else {
        return Verdict::Keep;
    };
    Verdict::Withdraw(withdrawal)
}

/// For how long a grant that a person removed is not given again.
const HOLD_AFTER_REMOVAL: Duration = Duration::from_mins(5);

/// The write that makes every earlier one to the Node stale, the agent's start included: it changes the resourceVersion.
/// A grant that stands there goes; a person's `now` and a malformed value are left where they are.
///
/// `fence` must be a value that was never used before: a write that changes nothing does not raise the resourceVersion.
pub fn fence_patch(node: &NodeView, fence: &str) -> NodePatch {
    let patch = NodePatch::default().set(key::FENCE, fence);
    if node.granted().is_some() { patch.remove(key::REBOOT) } else { patch }
}

/// The write that makes a withdrawal safe: [`fence_patch`], and what this reason changes for the next grant.
pub fn withdraw_patch(node: &NodeView, why: Withdrawal, fence: &str, now: Now) -> NodePatch {
    let patch = fence_patch(node, fence);
    match why {
        // A dead agent's node must not come first again; a live agent answers again. The request was the only record of
        // the boot that the ask was made under; its grant, which is its fence as well, goes on saying that.
        Withdrawal::NotPickedUp => {
            let lapsed = node.granted().or_else(|| node.fence.as_deref()?.parse().ok());
            let waiting = Waiting { lapsed, ..Waiting::new(&WaitReason::NoAgent, now.wall_seconds()) };
            patch.remove(key::REQUEST).set(key::WAITING, waiting)
        }
        Withdrawal::GrantRemoved => {
            let reason = WaitReason::GrantRemoved { until: now.wall_after(HOLD_AFTER_REMOVAL) };
            patch.set(key::WAITING, Waiting { held_boot: node.boot, ..Waiting::new(&reason, now.wall_seconds()) })
        }
        _ => patch,
    }
}

/// A grant on a Node that the ledger knows nothing of: a copy made by hand, for instance.
pub fn is_stray(node: &NodeView, slot: Option<&Slot>) -> bool {
    node.granted().is_some() && node.in_progress.is_absent() && slot.is_none_or(|slot| slot.uid != node.uid)
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reported => "the agent reported the end of the cycle",
            Self::RebootedAndReady => "the node is Ready under another boot ID",
            Self::NodeGone => "the Node is gone",
        })
    }
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "the node was paused",
            Self::NotNeeded => "nobody asks for the reboot any more",
            Self::Unanswered => "the agent's reboot-request is gone",
            Self::NotWritten => "the grant did not reach the Node",
            Self::GrantRemoved => "the grant was removed from the Node",
            Self::Spent => "the machine was rebooted before the agent took the grant up",
            Self::NotPickedUp => "no agent took the grant up in time",
        })
    }
}
