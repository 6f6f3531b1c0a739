//! What the referee keeps of the API's objects: only what a rule needs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::ResourceExt as _;

/// The prefix of the operator's annotations, as its README promises it.
pub const PREFIX: &str = "reboot-operator.io/";

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The revision of the API server's store: one order for all objects.
    pub revision: u64,
    /// When the referee heard of it.
    pub time: Timestamp,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A Node as it is now.
    Node(NodeSeen),
    /// The Node of this name was deleted.
    NodeGone(String),
    /// A Pod as it is now.
    Pod(PodSeen),
    /// The Pod with this UID was deleted.
    PodGone(String),
    /// A PDB as it is now.
    Pdb(PdbSeen),
    /// The PDB with this UID was deleted.
    PdbGone(String),
    /// The test tells of something that it did, or is about to do, itself.
    Declared(Declaration),
}

/// What a test does on purpose and the operator must not be blamed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// The node is broken by the test: it counts towards no quota, and its reboots are nobody's fault.
    Broken(String),
    /// A person forces a reboot of the node: it counts towards no quota.
    Forced(String),
    /// The node may be rebooted with pods on it (the configured policy says so).
    Undrained(String),
    /// Pods may be taken from this node whatever their PDBs demand (the configured policy says so, or
    /// the test takes them).
    PastBudgets(String),
    /// A person cordons the node: it counts towards no quota, and nobody may uncordon it…
    ForeignCordon(String),
    /// …until the person does.
    ForeignCordonEnds(String),
    /// From now on the quota is another.
    Quota(usize),
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its UID: another one is another node.
    pub uid: String,
    /// What kubelet reported as its boot ID.
    pub boot_id: String,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// The operator's annotations, without the prefix.
    pub notes: BTreeMap<String, String>,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is bound to; empty before.
    pub node: String,
    /// Its labels, for the selectors of PDBs.
    pub labels: BTreeMap<String, String>,
    /// Ready and not being deleted.
    pub available: bool,
    /// Being deleted.
    pub terminating: bool,
    /// Whether a drain has to remove it: not of a `DaemonSet`, not a mirror pod, not finished.
    pub evictable: bool,
}

/// A PDB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PdbSeen {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pods it protects.
    pub selector: LabelSelector,
    /// How many of them must be available, as kube-controller-manager computed it.
    pub bound: usize,
}

impl From<&Node> for NodeSeen {
    fn from(node: &Node) -> Self {
        let status = node.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let boot_id = status.and_then(|status| status.node_info.as_ref()).map(|info| info.boot_id.clone());
        let notes = node.annotations().iter();
        Self {
            name: node.name_any(),
            uid: node.uid().unwrap_or_default(),
            boot_id: boot_id.unwrap_or_default(),
            ready,
            cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            notes: notes
                .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.clone())))
                .collect(),
        }
    }
}

impl From<&Pod> for PodSeen {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let phase = status.and_then(|status| status.phase.as_deref());
        let finished = matches!(phase, Some("Succeeded" | "Failed"));
        let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
        let of_daemon_set =
            pod.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
        let terminating = pod.metadata.deletion_timestamp.is_some();
        Self {
            uid: pod.uid().unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            labels: pod.labels().clone(),
            available: ready && !finished && !terminating,
            terminating,
            evictable: !(finished || mirror || of_daemon_set),
        }
    }
}

impl From<&PodDisruptionBudget> for PdbSeen {
    fn from(pdb: &PodDisruptionBudget) -> Self {
        let bound = pdb.status.as_ref().map_or(0, |status| status.desired_healthy);
        Self {
            uid: pdb.uid().unwrap_or_default(),
            namespace: pdb.namespace().unwrap_or_default(),
            name: pdb.name_any(),
            selector: pdb.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default(),
            bound: usize::try_from(bound).unwrap_or_default(),
        }
    }
}

impl PdbSeen {
    /// Whether it protects the pod. Expressions with an operator that does not exist match nothing.
    pub fn protects(&self, pod: &PodSeen) -> bool {
        let labels = &pod.labels;
        let mut wanted = self.selector.match_labels.iter().flatten();
        let mut expressions = self.selector.match_expressions.iter().flatten();
        self.namespace == pod.namespace
            && wanted.all(|(key, value)| labels.get(key) == Some(value))
            && expressions.all(|expression| {
                let value = labels.get(&expression.key);
                let listed = || value.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
                match expression.operator.as_str() {
                    "In" => listed(),
                    "NotIn" => !listed(),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}
