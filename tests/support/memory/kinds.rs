//! The kinds that this API server knows, and in what they differ.

use serde_json::Value;

/// One resource of one API group.
#[derive(Debug)]
pub(super) struct Kind {
    /// The API group; empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    /// The name of the resource in paths.
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    pub(super) short: &'static [&'static str],
    /// Whether there is a subresource `status`, and writes of the rest leave the status alone.
    pub(super) status: bool,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub(super) generation: bool,
    /// Whether a status in the body of a create counts.
    pub(super) born_with_status: bool,
    /// Whether a replace may come without a resourceVersion.
    pub(super) unconditional: bool,
    /// Whether a replace creates what is not there.
    pub(super) created_by_update: bool,
    /// Whether a delete answers with the object instead of a Status.
    pub(super) returned_when_deleted: bool,
}

/// Where most kinds agree.
const USUAL: Kind = Kind {
    group: "",
    version: "v1",
    plural: "",
    kind: "",
    namespaced: true,
    short: &[],
    status: false,
    generation: false,
    born_with_status: false,
    unconditional: true,
    created_by_update: false,
    returned_when_deleted: false,
};

/// What is in the group `apps`.
const WORKLOAD: Kind = Kind { group: "apps", status: true, generation: true, ..USUAL };

pub(super) static KINDS: [Kind; 14] = [
    Kind { plural: "configmaps", kind: "ConfigMap", short: &["cm"], ..USUAL },
    Kind { plural: "events", kind: "Event", short: &["ev"], created_by_update: true, ..USUAL },
    Kind {
        plural: "namespaces",
        kind: "Namespace",
        namespaced: false,
        short: &["ns"],
        status: true,
        returned_when_deleted: true,
        ..USUAL
    },
    Kind {
        plural: "nodes",
        kind: "Node",
        namespaced: false,
        short: &["no"],
        status: true,
        born_with_status: true,
        ..USUAL
    },
    Kind {
        plural: "pods",
        kind: "Pod",
        short: &["po"],
        status: true,
        generation: true,
        returned_when_deleted: true,
        ..USUAL
    },
    Kind { plural: "serviceaccounts", kind: "ServiceAccount", short: &["sa"], returned_when_deleted: true, ..USUAL },
    Kind { plural: "daemonsets", kind: "DaemonSet", short: &["ds"], ..WORKLOAD },
    Kind { plural: "deployments", kind: "Deployment", short: &["deploy"], ..WORKLOAD },
    Kind { plural: "replicasets", kind: "ReplicaSet", short: &["rs"], ..WORKLOAD },
    Kind { plural: "statefulsets", kind: "StatefulSet", short: &["sts"], ..WORKLOAD },
    Kind { group: "batch", plural: "jobs", kind: "Job", status: true, generation: true, ..USUAL },
    Kind {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        unconditional: false,
        created_by_update: true,
        ..USUAL
    },
    Kind { group: "events.k8s.io", plural: "events", kind: "Event", short: &["ev"], created_by_update: true, ..USUAL },
    Kind {
        group: "policy",
        plural: "poddisruptionbudgets",
        kind: "PodDisruptionBudget",
        short: &["pdb"],
        status: true,
        generation: true,
        unconditional: false,
        ..USUAL
    },
];

impl Kind {
    /// The kind that is served under this group, version and resource.
    pub(super) fn at(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| (kind.group, kind.version, kind.plural) == (group, version, plural))
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    pub(super) fn of(object: &Value) -> Option<&'static Self> {
        let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        KINDS.iter().find(|known| known.kind == kind && known.api_version() == version)
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
        qualified(self.kind, self.group)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}
