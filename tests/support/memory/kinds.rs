//! The kinds that this API server knows, and in what they differ.

use serde_json::Value;

use Trait::{BornWithStatus, CreatedByUpdate, Generation, Global, NeedsVersion, ReturnedWhenDeleted, Status};

/// One resource of one API group.
#[derive(Debug)]
pub(super) struct Kind {
    /// The API group; empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    /// The name of the resource in paths.
    pub(super) plural: &'static str,
    /// As objects say it: `Node`.
    pub(super) name: &'static str,
    pub(super) short: &'static [&'static str],
    traits: &'static [Trait],
}

/// In what a kind differs from the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trait {
    /// Its objects are in no namespace.
    Global,
    /// There is a subresource `status`, and writes of the rest leave the status alone.
    Status,
    /// A status in the body of a create counts.
    BornWithStatus,
    /// `metadata.generation` counts the changes of the spec.
    Generation,
    /// A replace has to say which resourceVersion it replaces.
    NeedsVersion,
    /// A replace creates what is not there.
    CreatedByUpdate,
    /// A delete answers with the object instead of a Status.
    ReturnedWhenDeleted,
}

const fn kind(
    group: &'static str,
    plural: &'static str,
    name: &'static str,
    short: &'static [&'static str],
    traits: &'static [Trait],
) -> Kind {
    Kind { group, version: "v1", plural, name, short, traits }
}

/// Where a resource is served by two groups, the first is the one that it is stored as.
pub(super) static KINDS: [Kind; 14] = [
    kind("", "configmaps", "ConfigMap", &["cm"], &[]),
    kind("", "events", "Event", &["ev"], &[CreatedByUpdate]),
    kind("", "namespaces", "Namespace", &["ns"], &[Global, Status, ReturnedWhenDeleted]),
    kind("", "nodes", "Node", &["no"], &[Global, Status, BornWithStatus]),
    kind("", "pods", "Pod", &["po"], &[Status, Generation, ReturnedWhenDeleted]),
    kind("", "serviceaccounts", "ServiceAccount", &["sa"], &[ReturnedWhenDeleted]),
    kind("apps", "daemonsets", "DaemonSet", &["ds"], &[Status, Generation]),
    kind("apps", "deployments", "Deployment", &["deploy"], &[Status, Generation]),
    kind("apps", "replicasets", "ReplicaSet", &["rs"], &[Status, Generation]),
    kind("apps", "statefulsets", "StatefulSet", &["sts"], &[Status, Generation]),
    kind("batch", "jobs", "Job", &[], &[Status, Generation]),
    kind("coordination.k8s.io", "leases", "Lease", &[], &[NeedsVersion, CreatedByUpdate]),
    kind("events.k8s.io", "events", "Event", &["ev"], &[CreatedByUpdate]),
    kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], &[Status, Generation, NeedsVersion]),
];

impl Kind {
    pub(super) fn has(&self, what: Trait) -> bool {
        self.traits.contains(&what)
    }

    /// The kind that is served under this group, version and resource.
    pub(super) fn at(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| (kind.group, kind.version, kind.plural) == (group, version, plural))
    }

    /// Whether there is anything under this group and version.
    pub(super) fn is_served(group: &str, version: &str) -> bool {
        KINDS.iter().any(|kind| (kind.group, kind.version) == (group, version))
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    pub(super) fn of(object: &Value) -> Option<&'static Self> {
        let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        KINDS.iter().find(|known| known.name == kind && known.api_version() == version)
    }

    /// The kind that a resource is stored as: `nodes`, `leases`, …
    pub(super) fn stored(plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.plural == plural)
    }

    /// As objects say it: `v1`, `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As messages say it: `nodes`, `leases.coordination.k8s.io`.
    pub(super) fn resource(&self) -> String {
        qualified(self.plural, self.group)
    }

    /// As messages about invalid objects say it: `Node`, `Lease.coordination.k8s.io`.
    pub(super) fn qualified_kind(&self) -> String {
        qualified(self.name, self.group)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}
