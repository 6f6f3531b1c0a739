//! The volumes that are attached to a node, and whose they are.
//!
//! A volume of a pod that is gone can be attached elsewhere only once its `VolumeAttachment` is gone: until then the pod's
//! replacement waits.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A volume that is attached to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the `PersistentVolume`.
    pub volume: String,
    /// The claim that it is bound to; `None`: to none, or nobody knows.
    pub claim: Option<Claim>,
}

/// Every volume that is attached to the node; `None` while they have not been listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments(pub Option<Vec<Attachment>>);

/// The claims that a pod uses.
pub(super) fn claims(pod: &Pod) -> BTreeSet<Claim> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        // The claim of a generic ephemeral volume is named after the pod.
        (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name)),
        (None, None) => None,
    });
    names.map(|name| Claim { namespace: namespace.clone(), name }).collect()
}

/// The `PersistentVolume` that is attached to the node of this name, if that is what the object says.
pub fn volume_on(attachment: &VolumeAttachment, node: &str) -> Option<String> {
    let is_here = attachment.spec.node_name == node;
    attachment.spec.source.persistent_volume_name.clone().filter(|_| is_here)
}

/// The claim that a volume is bound to.
pub fn claim_of(volume: &PersistentVolume) -> Option<Claim> {
    let bound = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Claim { namespace: bound.namespace.clone()?, name: bound.name.clone()? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check_claims(volumes: &Value, expected: &str) {
        let meta = json!({ "namespace": "default", "name": "db-0" });
        let pod = json!({ "metadata": meta, "spec": { "containers": [], "volumes": volumes } });
        let found = claims(&serde_json::from_value(pod).unwrap());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), expected, "{volumes}");
    }

    #[test]
    fn a_pod_uses_the_claims_that_it_names_and_those_that_are_made_for_it() {
        let named = |name: &str, claim: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } });
        check_claims(&json!([]), "");
        check_claims(&json!([{ "name": "a", "emptyDir": {} }, { "name": "b", "configMap": { "name": "x" } }]), "");
        check_claims(&json!([named("a", "data-db-0"), named("b", "data-db-0")]), "default/data-db-0");
        check_claims(&json!([named("a", "logs"), named("b", "data")]), "default/data default/logs");
        check_claims(&json!([{ "name": "scratch", "ephemeral": {} }]), "default/db-0-scratch");
    }

    #[test]
    fn an_attachment_is_of_one_node_and_of_a_persistent_volume() {
        let check = |node: &str, source: Value, expected: Option<&str>| {
            let spec = json!({ "attacher": "csi", "nodeName": node, "source": source });
            let attachment = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            assert_eq!(volume_on(&attachment, "node-1").as_deref(), expected);
        };
        check("node-1", json!({ "persistentVolumeName": "pvc-1" }), Some("pvc-1"));
        check("node-2", json!({ "persistentVolumeName": "pvc-1" }), None);
        check("node-1", json!({ "inlineVolumeSpec": {} }), None);
    }

    #[test]
    fn a_volume_says_to_which_claim_it_is_bound() {
        let check = |spec: Value, expected: Option<&str>| {
            let volume = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            assert_eq!(claim_of(&volume).map(|claim| claim.to_string()).as_deref(), expected);
        };
        check(json!({ "claimRef": { "namespace": "default", "name": "data" } }), Some("default/data"));
        check(json!({ "claimRef": { "name": "data" } }), None);
        check(json!({}), None);
    }
}
