//! Which pods a drain evicts, which it leaves, and when it is over.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

/// Names one pod beyond doubt: names come back, UIDs do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pod of the node as the drain sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Which pod.
    pub pod: PodRef,
    /// What the drain does with it.
    pub fate: Fate,
    /// Whether it is being deleted already.
    pub terminating: bool,
}

/// What a drain does with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Evict it and wait until it is gone.
    Evict,
    /// Its DaemonSet would put it back at once, and tolerates the cordon.
    LeaveDaemonSet,
    /// kubelet runs it from a file or URL; the API object is a mirror.
    LeaveMirror,
    /// It has ended; nothing runs any more.
    LeaveFinished,
}

impl From<&Pod> for PodView {
    fn from(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            pod: PodRef {
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().unwrap_or_default(),
            },
            fate: fate(pod),
            terminating: meta.deletion_timestamp.is_some(),
        }
    }
}

/// The order of the questions is kubectl's (`pkg/drain/filters.go`), so that both agree on a pod that fits two rows.
fn fate(pod: &Pod) -> Fate {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let finished = matches!(phase, Some("Succeeded" | "Failed"));
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let of_daemon_set = owners.any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
    let annotations = pod.metadata.annotations.as_ref();
    let mirror = annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
    if finished {
        Fate::LeaveFinished
    } else if of_daemon_set {
        Fate::LeaveDaemonSet
    } else if mirror {
        Fate::LeaveMirror
    } else {
        Fate::Evict
    }
}

/// The pods that must be gone before the node may reboot.
pub fn remaining(pods: &[PodView]) -> impl Iterator<Item = &PodView> {
    pods.iter().filter(|pod| pod.fate == Fate::Evict)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(pod: &serde_json::Value, fate: Fate) {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(PodView::from(&pod).fate, fate);
    }

    fn owned_by(kind: &str) -> serde_json::Value {
        json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": true }])
    }

    #[test]
    fn what_serves_users_is_evicted() {
        check(&json!({ "metadata": {} }), Fate::Evict);
        check(&json!({ "metadata": { "ownerReferences": owned_by("ReplicaSet") } }), Fate::Evict);
        check(&json!({ "metadata": {}, "status": { "phase": "Pending" } }), Fate::Evict);
        check(&json!({ "metadata": {}, "status": { "phase": "Unknown" } }), Fate::Evict);
    }

    #[test]
    fn what_would_come_back_or_has_ended_is_left() {
        check(&json!({ "metadata": { "ownerReferences": owned_by("DaemonSet") } }), Fate::LeaveDaemonSet);
        let mirror = json!({ "annotations": { "kubernetes.io/config.mirror": "hash" } });
        check(&json!({ "metadata": mirror }), Fate::LeaveMirror);
        check(&json!({ "metadata": {}, "status": { "phase": "Succeeded" } }), Fate::LeaveFinished);
        check(&json!({ "metadata": {}, "status": { "phase": "Failed" } }), Fate::LeaveFinished);
    }
}
