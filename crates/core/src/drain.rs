//! The pods of a node, their volumes and the budgets over them, and what a drain does with each.

mod budget;
mod refusal;
mod rules;
mod volume;

pub use budget::{BudgetSeen, BudgetView, Budgets, Guard};
pub use refusal::Refusal;
pub use rules::{Choice, Fate, Rules};
pub use volume::{Attachment, Attachments, Claim, claim_of, volume_on};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
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
    /// What kind of pod it is.
    pub nature: Nature,
    /// When its grace period ends or has ended, where it is being deleted; `None`: it is not.
    pub ends_at: Option<Timestamp>,
    /// Whether it has an emptyDir, whose content goes with it.
    pub empty_dir: bool,
    /// Whether the scheduler may put its replacement on a node that is cordoned.
    pub tolerates_cordon: bool,
    /// Whether the system needs it: it goes last.
    pub critical: bool,
    /// `metadata.labels`, by which a `PodDisruptionBudget` selects it.
    pub labels: BTreeMap<String, String>,
    /// The UID of its controller, where it has one. Pods of one controller are usually under one `PodDisruptionBudget`.
    pub controller: Option<String>,
    /// How it is, as far as a `PodDisruptionBudget` asks.
    pub health: Health,
    /// The claims of its volumes.
    pub claims: BTreeSet<Claim>,
}

/// What kind of pod it is, as far as a drain asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nature {
    /// It serves somebody.
    #[default]
    Ordinary,
    /// Its DaemonSet would put it back at once, and tolerates the cordon.
    DaemonSet,
    /// kubelet runs it from a file or URL; the API object is a mirror.
    Mirror,
    /// It has ended; nothing runs any more.
    Finished,
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

impl PodView {
    /// Whether it is being deleted already.
    pub fn is_terminating(&self) -> bool {
        self.ends_at.is_some()
    }
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
            nature: nature(pod),
            ends_at: meta.deletion_timestamp.as_ref().map(|time| time.0),
            empty_dir: has_empty_dir(pod),
            tolerates_cordon: tolerates_cordon(pod),
            critical: is_critical(pod),
            labels: meta.labels.clone().unwrap_or_default(),
            controller: controller(pod).map(|owner| owner.uid.clone()),
            health: health(pod),
            claims: volume::claims(pod),
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

fn nature(pod: &Pod) -> Nature {
    let annotations = pod.metadata.annotations.as_ref();
    if matches!(phase(pod), Some("Succeeded" | "Failed")) {
        Nature::Finished
    } else if controller(pod).is_some_and(|owner| owner.kind == "DaemonSet") {
        Nature::DaemonSet
    } else if annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror")) {
        Nature::Mirror
    } else {
        Nature::Ordinary
    }
}

fn has_empty_dir(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| volume.empty_dir.is_some())
}

/// The priorities of the classes `system-cluster-critical` and `system-node-critical` begin here
/// (<https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/>).
const CRITICAL: i32 = 2_000_000_000;

fn is_critical(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL)
}

/// The taint of a cordoned node.
const CORDON: &str = "node.kubernetes.io/unschedulable";

fn tolerates_cordon(pod: &Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let value =
            toleration.operator.as_deref() == Some("Exists") || toleration.value.as_deref().is_none_or(str::is_empty);
        let effect = toleration.effect.as_deref().is_none_or(|effect| matches!(effect, "" | "NoSchedule"));
        let any = key.is_empty() && toleration.operator.as_deref() == Some("Exists");
        effect && (any || (key == CORDON && value))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(spec: Value, status: Value) -> PodView {
        PodView::from(&serde_json::from_value::<Pod>(json!({ "spec": spec, "status": status })).unwrap())
    }

    /// `condition`: its type and status.
    #[track_caller]
    fn check_health(phase: &str, condition: (&str, &str), expected: Health) {
        let conditions = json!([{ "type": condition.0, "status": condition.1 }]);
        let pod = view(json!({ "containers": [] }), json!({ "phase": phase, "conditions": conditions }));
        assert_eq!(pod.health, expected, "{phase} {condition:?}");
    }

    #[test]
    fn a_pod_is_ready_by_its_condition_and_pending_by_its_phase() {
        check_health("Running", ("Ready", "True"), Health::Ready);
        check_health("Running", ("Ready", "False"), Health::NotReady);
        check_health("Running", ("Initialized", "True"), Health::NotReady);
        check_health("Pending", ("Ready", "True"), Health::Pending);
    }

    #[test]
    fn a_pod_of_a_priority_of_the_system_is_critical() {
        for (priority, critical) in
            [(None, false), (Some(1_999_999_999), false), (Some(2_000_000_000), true), (Some(2_000_001_000), true)]
        {
            let pod = view(json!({ "containers": [], "priority": priority }), json!({}));
            assert_eq!(pod.critical, critical, "{priority:?}");
        }
    }
}
