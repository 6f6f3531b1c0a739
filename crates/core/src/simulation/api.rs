//! What the API server keeps, and how it takes the operator's writes. The model in `tests/model` shares this file.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use reboot_core::ledger::{DATA_KEY, Ledger, LedgerState};
use reboot_core::node::NodeView;
use serde_json::{Value, json};

/// The API server's own no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 409.
    Conflict,
    /// 404, or another UID.
    Gone,
}

/// A Node as the API server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApiNode {
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The field managers of `spec.unschedulable`; `None`: not cordoned.
    pub(crate) cordon: Option<Vec<String>>,
    pub(crate) boot: String,
    pub(crate) ready: bool,
}

impl ApiNode {
    pub(crate) fn view(&self, name: &str) -> NodeView {
        NodeView::from(&self.to_k8s(name))
    }

    /// The Node after a merge patch by this field manager; it is as before where the patch changes nothing.
    pub(crate) fn merged(&self, manager: &str, body: &Value) -> Result<Self, Refused> {
        if body["metadata"]["uid"] != json!(self.uid) {
            return Err(Refused::Gone);
        }
        if body["metadata"]["resourceVersion"] != json!(self.version.to_string()) {
            return Err(Refused::Conflict);
        }
        let mut after = self.clone();
        for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(value) => after.annotations.insert(key.clone(), value.to_owned()),
                None => after.annotations.remove(key),
            };
        }
        match body.pointer("/spec/unschedulable") {
            Some(Value::Null) => after.cordon = None,
            Some(_) if after.cordon.is_none() => after.cordon = Some(vec![manager.to_owned()]),
            _ => {}
        }
        Ok(after)
    }

    fn to_k8s(&self, name: &str) -> Node {
        let managed = |manager: &String| ManagedFieldsEntry {
            manager: Some(manager.clone()),
            fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:unschedulable": {} } }))),
            ..ManagedFieldsEntry::default()
        };
        let ready = if self.ready { "True" } else { "Unknown" };
        Node {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(self.uid.clone()),
                resource_version: Some(self.version.to_string()),
                annotations: Some(self.annotations.clone()),
                labels: Some(self.labels.clone()),
                managed_fields: self.cordon.as_ref().map(|managers| managers.iter().map(managed).collect()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec { unschedulable: self.cordon.is_some().then_some(true), ..NodeSpec::default() }),
            status: Some(NodeStatus {
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".into(),
                    status: ready.into(),
                    ..NodeCondition::default()
                }]),
                node_info: Some(NodeSystemInfo { boot_id: self.boot.clone(), ..NodeSystemInfo::default() }),
                ..NodeStatus::default()
            }),
        }
    }
}

/// The ConfigMap of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) data: Option<String>,
}

impl Map {
    pub(crate) fn read(map: Option<&Self>) -> LedgerState {
        LedgerState::read(map.map(Self::to_k8s).as_ref())
    }

    /// The ConfigMap after a replace at the version that the ledger carries; as before where that changes nothing.
    pub(crate) fn replaced(&self, ledger: &Ledger) -> Result<Self, Refused> {
        if self.uid != ledger.version.uid || self.version.to_string() != ledger.version.resource_version {
            return Err(Refused::Conflict);
        }
        Ok(Self { data: Some(ledger.to_data()), ..self.clone() })
    }

    fn to_k8s(&self) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                uid: Some(self.uid.clone()),
                resource_version: Some(self.version.to_string()),
                ..ObjectMeta::default()
            },
            data: self.data.clone().map(|data| BTreeMap::from([(DATA_KEY.to_owned(), data)])),
            ..ConfigMap::default()
        }
    }
}
