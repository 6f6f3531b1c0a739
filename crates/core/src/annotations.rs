//! The annotation keys of the protocol, and the one shape in which both sides write them.
//!
//! This is the only file of the code that spells the keys. `PROTOCOL.md` has the table of who sets and clears each.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The prefix of every key.
pub const PREFIX: &str = "reboot-operator.io/";

/// A person, or the agent for update_engine: the node asks for a reboot; the value says why, in words.
pub const NEEDED: &str = "reboot-operator.io/reboot-needed";
/// The agent's answer to an ask: see [`crate::values::Request`].
pub const REQUEST: &str = "reboot-operator.io/reboot-request";
/// Permission: a grant id from the controller, or `now` from a person: see [`crate::values::Permission`].
pub const REBOOT: &str = "reboot-operator.io/reboot";
/// The agent acts on the permission: see [`crate::values::InProgress`].
pub const IN_PROGRESS: &str = "reboot-operator.io/reboot-in-progress";
/// The controller: why there is no grant yet: see [`crate::values::Waiting`].
pub const WAITING: &str = "reboot-operator.io/reboot-waiting";
/// The agent: one sentence for people about what it does.
pub const STATUS: &str = "reboot-operator.io/reboot-status";
/// A person: no reboot of this node; the value says why, in words.
pub const PAUSED: &str = "reboot-operator.io/reboot-paused";
/// The agent: how the latest cycle ended: see [`crate::values::LastReboot`].
pub const LAST_REBOOT: &str = "reboot-operator.io/last-reboot";
/// The controller: a fresh value each time, so that every earlier write to the Node is stale. With a grant it is the
/// grant's id.
pub const FENCE: &str = "reboot-operator.io/reboot-fence";

/// Every key, in the order of the table in `PROTOCOL.md`.
pub const ALL: [&str; 9] = [NEEDED, REQUEST, REBOOT, IN_PROGRESS, WAITING, STATUS, PAUSED, LAST_REBOOT, FENCE];

/// The label of every Eviction that the agent posts, by which an admission policy knows it (S8).
pub const EVICTION_LABEL: (&str, &str) = ("reboot-operator.io/agent", "true");

/// The field manager of the agent's writes: the mark by which it knows its own cordon (S4).
pub const AGENT_MANAGER: &str = "reboot-agent";
/// The field manager of the controller's writes.
pub const CONTROLLER_MANAGER: &str = "reboot-controller";

/// A change to one Node: annotations that are set or removed, and the cordon.
///
/// It becomes one merge patch that names the Node's UID and the resourceVersion at which it was decided, so that the
/// API server refuses it (409) when anybody wrote in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePatch {
    annotations: BTreeMap<&'static str, Option<String>>,
    unschedulable: Option<bool>,
}

impl NodePatch {
    /// Sets an annotation.
    #[must_use]
    pub fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.annotations.insert(key, Some(value.to_string()));
        self
    }

    /// Removes an annotation; removing what is absent is no change.
    #[must_use]
    pub fn remove(mut self, key: &'static str) -> Self {
        self.annotations.insert(key, None);
        self
    }

    /// Cordons the node.
    #[must_use]
    pub fn cordon(mut self) -> Self {
        self.unschedulable = Some(true);
        self
    }

    /// Uncordons the node, when `really`.
    #[must_use]
    pub fn uncordon_if(mut self, really: bool) -> Self {
        if really {
            self.unschedulable = Some(false);
        }
        self
    }

    /// What the patch does with an annotation: nothing, remove it, or set it.
    pub fn get(&self, key: &str) -> Option<Option<&str>> {
        self.annotations.get(key).map(|value| value.as_deref())
    }

    /// What the patch does with the cordon: nothing, place it, or remove it.
    pub fn unschedulable(&self) -> Option<bool> {
        self.unschedulable
    }

    /// Every annotation that the patch touches.
    pub fn annotations(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        self.annotations.iter().map(|(key, value)| (*key, value.as_deref()))
    }

    /// The JSON merge patch (RFC 7396) for the Node with this UID, as decided at this resourceVersion.
    pub fn to_merge_patch(&self, uid: &str, resource_version: &str) -> Value {
        let annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let mut patch = json!({ "metadata": { "uid": uid, "resourceVersion": resource_version } });
        if !annotations.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(annotations);
        }
        match self.unschedulable {
            Some(true) => patch["spec"] = json!({ "unschedulable": true }),
            // Absence rather than `false`: then nobody owns the field and the next cordon is its author's alone.
            Some(false) => patch["spec"] = json!({ "unschedulable": null }),
            None => {}
        }
        patch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patch: NodePatch, annotations: Value, spec: Value) {
        let mut expected = json!({ "metadata": { "uid": "u1", "resourceVersion": "7" } });
        if !annotations.is_null() {
            expected["metadata"]["annotations"] = annotations;
        }
        if !spec.is_null() {
            expected["spec"] = spec;
        }
        assert_eq!(patch.to_merge_patch("u1", "7"), expected);
    }

    #[test]
    fn a_patch_names_its_node_at_its_version_and_nothing_that_it_leaves_alone() {
        let patch = NodePatch::default;
        check(patch(), Value::Null, Value::Null);
        check(patch().set(STATUS, 7).remove(WAITING), json!({ STATUS: "7", WAITING: null }), Value::Null);
        check(patch().cordon(), Value::Null, json!({ "unschedulable": true }));
        check(patch().uncordon_if(true), Value::Null, json!({ "unschedulable": null }));
        check(patch().uncordon_if(false), Value::Null, Value::Null);
    }
}
