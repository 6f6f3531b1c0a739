//! What a drain does with a pod: one fate for each, with its reason.
//!
//! The questions are those of `kubectl drain` (`pkg/drain/filters.go`). Where the answers differ on purpose, the table
//! of the tests says why.

use std::time::Duration;

use jiff::Timestamp;

use super::{Nature, PodView};
use crate::selector::Selector;

/// How a drain treats pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which pods are drained at all; the others stay.
    pub selector: Selector,
    /// What happens to a pod without a controller, which nobody starts anew elsewhere.
    pub unmanaged: Choice,
    /// What happens to a pod with an emptyDir, which is lost with it.
    pub empty_dir: Choice,
    /// How long the containers have to end; `None`: as the pod says.
    pub grace: Option<Duration>,
    /// A pod that is still there so long after the end of its grace period is not waited for; `None`: every pod is.
    pub skip_stuck_after: Option<Duration>,
    /// Delete instead of evict: no budget is asked.
    pub delete: bool,
    /// How many evictions may be without an answer at once.
    pub concurrency: usize,
    /// After how long of a drain grace periods are cut short; `None`: never.
    pub shorten_after: Option<Duration>,
    /// After how long of a drain the pods that are left are deleted, whatever their budgets say; `None`: never.
    pub delete_after: Option<Duration>,
    /// How long the volumes of the pods that are gone are waited for, to be detached from the node.
    pub wait_for_volumes: Duration,
}

/// What happens to a pod that a person might miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is evicted like any other.
    Evict,
    /// No pod is evicted while it is there.
    Block,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            unmanaged: Choice::Evict,
            empty_dir: Choice::Evict,
            grace: None,
            skip_stuck_after: None,
            delete: false,
            concurrency: 8,
            shorten_after: None,
            delete_after: None,
            wait_for_volumes: Duration::from_mins(2),
        }
    }
}

/// What a drain does with a pod, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is evicted, and waited for until it is gone.
    Evict,
    /// The same, and it has no controller that would start it elsewhere.
    EvictUnmanaged,
    /// The same, and the content of an emptyDir goes with it.
    EvictEmptyDir,
    /// It stays: its DaemonSet would put it back at once.
    LeaveDaemonSet,
    /// It stays: kubelet runs it without the API server.
    LeaveMirror,
    /// It stays: nothing of it runs any more.
    LeaveFinished,
    /// It stays: the selector leaves it out.
    LeaveUnselected,
    /// It stays: it tolerates the cordon and came after it, so it would come back as often as it is evicted.
    LeaveTolerant,
    /// It is not waited for: it should have ended long ago.
    LeaveStuck,
    /// The drain waits for a person: it has no controller.
    BlockUnmanaged,
    /// The drain waits for a person: it has an emptyDir.
    BlockEmptyDir,
}

impl Fate {
    /// Whether the pod must be gone before the node may reboot.
    pub fn must_go(self) -> bool {
        self.is_evicted() || self.blocks().is_some()
    }

    /// Whether the drain evicts it.
    pub fn is_evicted(self) -> bool {
        matches!(self, Self::Evict | Self::EvictUnmanaged | Self::EvictEmptyDir)
    }

    /// Why nothing is evicted while it is there, where that is so.
    pub fn blocks(self) -> Option<&'static str> {
        match self {
            Self::BlockUnmanaged => Some("it has no controller, and --drain-unmanaged-pods is `block`"),
            Self::BlockEmptyDir => Some("it has an emptyDir, and --drain-emptydir-pods is `block`"),
            _ => None,
        }
    }
}

impl Rules {
    /// For how long a pod has not been waited for any longer because it does not end; `None`: it is waited for.
    pub(crate) fn stuck_for(&self, pod: &PodView, now: Timestamp) -> Option<Duration> {
        let over = Duration::try_from(now.duration_since(pod.ends_at?)).ok()?;
        over.checked_sub(self.skip_stuck_after?).filter(|longer| !longer.is_zero())
    }

    /// What happens to this pod. `came_later`: it was not there when the drain began.
    pub fn fate(&self, pod: &PodView, came_later: bool, now: Timestamp) -> Fate {
        match pod.nature {
            Nature::Finished => Fate::LeaveFinished,
            Nature::DaemonSet => Fate::LeaveDaemonSet,
            Nature::Mirror => Fate::LeaveMirror,
            Nature::Ordinary if !self.selector.matches(&pod.labels) => Fate::LeaveUnselected,
            Nature::Ordinary if self.stuck_for(pod, now).is_some() => Fate::LeaveStuck,
            // What is being deleted is only waited for, so that no policy has anything to keep.
            Nature::Ordinary if pod.is_terminating() => Fate::Evict,
            Nature::Ordinary if pod.tolerates_cordon && came_later => Fate::LeaveTolerant,
            Nature::Ordinary if pod.controller.is_none() => match self.unmanaged {
                Choice::Evict => Fate::EvictUnmanaged,
                Choice::Block => Fate::BlockUnmanaged,
            },
            Nature::Ordinary if pod.empty_dir => match self.empty_dir {
                Choice::Evict => Fate::EvictEmptyDir,
                Choice::Block => Fate::BlockEmptyDir,
            },
            Nature::Ordinary => Fate::Evict,
        }
    }
}

#[cfg(test)]
mod tests;
