//! Which pods a drain evicts, which it leaves, and when it is over.

mod budget;
mod refusal;

pub use budget::{BudgetSeen, BudgetView, Budgets, Guard};
pub use refusal::Refusal;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Names one pod beyond doubt: names come back, UIDs do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Which pod.
    pub pod: PodRef,
    /// What the drain does with it.
    pub fate: Fate,
    /// Whether it is being deleted already.
    pub terminating: bool,
    /// `metadata.labels`, by which a `PodDisruptionBudget` selects it.
    pub labels: BTreeMap<String, String>,
    /// The UID of its controller, where it has one. Pods of one controller are usually under one `PodDisruptionBudget`.
    pub controller: Option<String>,
    /// How it is, as far as a `PodDisruptionBudget` asks.
    pub health: Health,
}

/// What a `PodDisruptionBudget` wants to know of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Condition Ready is True.
    #[default]
    Ready,
    /// It runs, and condition Ready is not True.
    NotReady,
    /// It has not started: the API server evicts it without asking a budget.
    Pending,
}

/// What a drain does with a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Evict it and wait until it is gone.
    #[default]
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
            labels: meta.labels.clone().unwrap_or_default(),
            controller: controller(pod).map(|owner| owner.uid.clone()),
            health: health(pod),
        }
    }
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

fn health(pod: &Pod) -> Health {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if phase(pod) == Some("Pending") {
        Health::Pending
    } else if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        Health::Ready
    } else {
        Health::NotReady
    }
}

/// The order of the questions is kubectl's (`pkg/drain/filters.go`), so that both agree on a pod that fits two rows.
fn fate(pod: &Pod) -> Fate {
    let finished = matches!(phase(pod), Some("Succeeded" | "Failed"));
    let of_daemon_set = controller(pod).is_some_and(|owner| owner.kind == "DaemonSet");
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
