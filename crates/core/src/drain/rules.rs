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
        self.is_evicted() || self.blocks()
    }

    /// Whether the drain evicts it.
    pub fn is_evicted(self) -> bool {
        matches!(self, Self::Evict | Self::EvictUnmanaged | Self::EvictEmptyDir)
    }

    /// Whether nothing is evicted while it is there.
    pub fn blocks(self) -> bool {
        matches!(self, Self::BlockUnmanaged | Self::BlockEmptyDir)
    }

    /// What a person should know about this pod before or after it goes, where there is something.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::EvictUnmanaged => Some("it has no controller, so nobody starts it anew"),
            Self::EvictEmptyDir => Some("the content of its emptyDir goes with it"),
            Self::BlockUnmanaged => Some("it has no controller, and --drain-unmanaged-pods is `block`"),
            Self::BlockEmptyDir => Some("it has an emptyDir, and --drain-emptydir-pods is `block`"),
            _ => None,
        }
    }
}

impl Rules {
    /// What happens to this pod in a cycle that began at `since`.
    pub fn fate(&self, pod: &PodView, since: Timestamp, now: Timestamp) -> Fate {
        let stuck = self.skip_stuck_after.zip(pod.ends_at).is_some_and(|(longest, ends_at)| {
            now.duration_since(ends_at) > jiff::SignedDuration::try_from(longest).unwrap_or(jiff::SignedDuration::MAX)
        });
        match pod.nature {
            Nature::Finished => Fate::LeaveFinished,
            Nature::DaemonSet => Fate::LeaveDaemonSet,
            Nature::Mirror => Fate::LeaveMirror,
            Nature::Ordinary if !self.selector.matches(&pod.labels) => Fate::LeaveUnselected,
            Nature::Ordinary if stuck => Fate::LeaveStuck,
            // What is being deleted is only waited for, so that no policy has anything to keep.
            Nature::Ordinary if pod.terminating => Fate::Evict,
            Nature::Ordinary if pod.tolerates_cordon && pod.created.is_some_and(|at| at > since) => Fate::LeaveTolerant,
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
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    const SINCE: &str = "2026-01-01T12:00:00Z";

    /// `kubectl`: what `kubectl drain --ignore-daemonsets` does without further flags, for the reader.
    #[track_caller]
    fn check_under(rules: &Rules, pod: &Value, ours: Fate, kubectl: &str) {
        let mut pod = pod.clone();
        if pod["metadata"]["creationTimestamp"].is_null() {
            pod["metadata"]["creationTimestamp"] = json!("2025-12-24T18:00:00Z");
        }
        let view = PodView::from(&serde_json::from_value::<Pod>(pod.clone()).unwrap());
        let (since, now) = (SINCE.parse().unwrap(), "2026-01-01T12:01:00Z".parse().unwrap());
        assert_eq!(rules.fate(&view, since, now), ours, "{pod}; kubectl: {kubectl}");
    }

    #[track_caller]
    fn check(pod: &Value, ours: Fate, kubectl: &str) {
        check_under(&Rules::default(), pod, ours, kubectl);
    }

    fn owned_by(kind: &str) -> Value {
        json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": true }])
    }

    /// A pod of this kind of controller with more in its metadata, spec and status.
    fn pod(kind: &str, more: &Value) -> Value {
        let mut pod = json!({ "metadata": { "ownerReferences": owned_by(kind) }, "spec": { "containers": [] } });
        for part in ["metadata", "spec", "status"] {
            for (key, value) in more[part].as_object().into_iter().flatten() {
                pod[part][key] = value.clone();
            }
        }
        pod
    }

    fn bare(more: &Value) -> Value {
        let mut pod = pod("", more);
        pod["metadata"]["ownerReferences"] = json!([]);
        pod
    }

    fn in_phase(phase: &str) -> Value {
        json!({ "status": { "phase": phase } })
    }

    fn empty_dir() -> Value {
        json!({ "spec": { "volumes": [{ "name": "scratch", "emptyDir": {} }] } })
    }

    #[test]
    fn what_serves_somebody_is_evicted() {
        for kind in ["ReplicaSet", "StatefulSet", "Job", "ReplicationController", "SomethingOfAnOperator"] {
            check(&pod(kind, &json!({})), Fate::Evict, "evicts it");
        }
        check(&pod("ReplicaSet", &in_phase("Pending")), Fate::Evict, "evicts it");
        check(&pod("ReplicaSet", &in_phase("Unknown")), Fate::Evict, "evicts it");
        // Elsewhere it stays Pending, which is for its owner to know: the node goes down.
        let pinned = json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": "node-1" } } });
        check(&pod("ReplicaSet", &pinned), Fate::Evict, "evicts it");
    }

    #[test]
    fn what_comes_back_by_itself_or_has_ended_stays() {
        check(&pod("DaemonSet", &json!({})), Fate::LeaveDaemonSet, "leaves it");
        check(&pod("DaemonSet", &empty_dir()), Fate::LeaveDaemonSet, "leaves it");
        // kubectl looks the DaemonSet up and wants --force where it is gone. The garbage collector deletes the pod then;
        // what `--cascade=orphan` leaves behind has no owner any more, and is in the next table.
        check(&pod("DaemonSet", &json!({})), Fate::LeaveDaemonSet, "refuses to drain where the DaemonSet is gone");
        let mirror = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "hash" } } });
        check(&bare(&mirror), Fate::LeaveMirror, "leaves it");
        // Nothing runs that a reboot could harm, and its log may still be wanted.
        for phase in ["Succeeded", "Failed"] {
            check(&pod("Job", &in_phase(phase)), Fate::LeaveFinished, "deletes it");
            check(&bare(&in_phase(phase)), Fate::LeaveFinished, "deletes it");
            check(&pod("DaemonSet", &in_phase(phase)), Fate::LeaveFinished, "deletes it");
        }
    }

    #[test]
    fn what_a_person_might_miss_is_evicted_or_blocks_by_choice() {
        let both = empty_dir();
        check(&bare(&json!({})), Fate::EvictUnmanaged, "refuses to drain without --force");
        check(&pod("ReplicaSet", &empty_dir()), Fate::EvictEmptyDir, "refuses to drain without --delete-emptydir-data");
        check(&bare(&both), Fate::EvictUnmanaged, "refuses to drain");
        let block = Rules { unmanaged: Choice::Block, empty_dir: Choice::Block, ..Rules::default() };
        check_under(&block, &bare(&json!({})), Fate::BlockUnmanaged, "refuses to drain without --force");
        check_under(&block, &pod("ReplicaSet", &empty_dir()), Fate::BlockEmptyDir, "refuses to drain");
        check_under(&block, &bare(&both), Fate::BlockUnmanaged, "refuses to drain");
        check_under(&block, &bare(&in_phase("Failed")), Fate::LeaveFinished, "deletes it");
        // It goes anyway.
        let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T12:00:30Z" } });
        check_under(&block, &bare(&deleted), Fate::Evict, "refuses to drain without --force");
    }

    #[test]
    fn the_selector_leaves_pods_out() {
        let rules = Rules { selector: "tier!=system".parse().unwrap(), unmanaged: Choice::Block, ..Rules::default() };
        let labelled = json!({ "metadata": { "labels": { "tier": "system" } } });
        check_under(&rules, &pod("ReplicaSet", &labelled), Fate::LeaveUnselected, "leaves it (--pod-selector)");
        check_under(&rules, &bare(&labelled), Fate::LeaveUnselected, "leaves it (--pod-selector)");
        check_under(&rules, &pod("ReplicaSet", &json!({})), Fate::Evict, "evicts it");
    }

    #[test]
    fn what_is_being_deleted_is_waited_for_but_not_for_ever_where_the_rules_say_so() {
        let ends = |at: &str| pod("ReplicaSet", &json!({ "metadata": { "deletionTimestamp": at } }));
        let rules = Rules { skip_stuck_after: Some(Duration::from_mins(1)), ..Rules::default() };
        check(&ends("2026-01-01T11:00:00Z"), Fate::Evict, "waits for it");
        check_under(&rules, &ends("2026-01-01T11:59:59Z"), Fate::LeaveStuck, "leaves it");
        check_under(&rules, &ends("2026-01-01T12:00:00Z"), Fate::Evict, "waits for it");
        check_under(&rules, &pod("ReplicaSet", &json!({})), Fate::Evict, "evicts it");
    }

    #[test]
    fn what_tolerates_the_cordon_is_evicted_once_and_left_when_it_comes_back() {
        let tolerates = |toleration: &Value, created: &str| {
            let more = json!({ "metadata": { "creationTimestamp": created }, "spec": { "tolerations": [toleration] } });
            pod("ReplicaSet", &more)
        };
        let (before, after) = ("2026-01-01T11:59:00Z", "2026-01-01T12:00:30Z");
        let any = json!({ "operator": "Exists" });
        check(&tolerates(&any, before), Fate::Evict, "evicts it");
        // kubectl lists once, and does not see it.
        check(&tolerates(&any, after), Fate::LeaveTolerant, "does not see it");
        let exact = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" });
        check(&tolerates(&exact, after), Fate::LeaveTolerant, "does not see it");
        let empty = json!({ "key": "node.kubernetes.io/unschedulable" });
        check(&tolerates(&empty, after), Fate::LeaveTolerant, "does not see it");
        for other in [
            json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoExecute" }),
            json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }),
            json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Equal", "value": "x" }),
        ] {
            check(&tolerates(&other, after), Fate::Evict, "does not see it");
        }
    }
}
