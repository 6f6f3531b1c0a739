//! A situation as lines of text: the machine and the policy in words, then each Node in words and its annotations.
//!
//! ```text
//! engine pods fresh slots=1
//! node ready cordoned agent
//! reboot-needed new kernel
//! reboot 0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90.7
//! node ready boot=2
//! ```
//!
//! What is no word is passed over, so every input is a situation. A value cannot hold a line feed; any other character it
//! can, and each `~` stands for a long piece of text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::node::NodeView;
use serde_json::json;

/// The boots that Nodes and the machine can have.
pub const BOOTS: [&str; 2] = ["0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90", "1a2b3c4d-1c3a-4a52-9d3b-2f6a3c5e7b91"];

/// What a `~` stands for: long enough that copying it once too often shows.
const LONG: usize = 20_000;

/// A situation; at least one Node, at most three.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    /// What is said before the first Node.
    pub words: Vec<&'a str>,
    /// The Nodes, named `node-0` and so on.
    pub nodes: Vec<Node>,
}

impl<'a> Cluster<'a> {
    /// Reads a situation.
    pub fn read(text: &'a str) -> Self {
        let mut lines = text.lines();
        let words = lines.next().unwrap_or_default().split(' ').collect();
        let mut nodes = Vec::new();
        for line in lines {
            if line == "node" || line.starts_with("node ") {
                nodes.push(node(nodes.len(), line));
            } else if let (Some(node), Some((key, value))) = (nodes.last_mut(), annotation(line)) {
                annotations(node).insert(key.to_owned(), value);
            }
        }
        if nodes.is_empty() {
            nodes.push(node(0, ""));
        }
        nodes.truncate(3);
        Self { words, nodes }
    }

    /// Whether this was said.
    pub fn says(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// The number after `WORD=`; 0 where there is none.
    pub fn number(&self, word: &str) -> usize {
        let mut values = self.words.iter().filter_map(|said| said.strip_prefix(word)?.strip_prefix('='));
        values.find_map(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The boot of the machine that `node-0` is.
    pub fn boot(&self) -> Option<&'static str> {
        (!self.says("noboot")).then(|| BOOTS[usize::from(self.says("boot=2"))])
    }
}

fn annotation(line: &str) -> Option<(&'static str, String)> {
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    let key = key::ALL.into_iter().find(|key| key.strip_prefix(key::PREFIX) == Some(name))?;
    Some((key, value.replace('~', &"x".repeat(LONG))))
}

/// The annotations of a Node, to be changed.
pub fn annotations(node: &mut Node) -> &mut BTreeMap<String, String> {
    node.metadata.annotations.get_or_insert_default()
}

fn node(number: usize, line: &str) -> Node {
    let words: Vec<&str> = line.split(' ').collect();
    let says = |word: &str| words.contains(&word);
    let ready = if says("ready") { "True" } else { "Unknown" };
    let boot = if says("noboot") { "" } else { BOOTS[usize::from(says("boot=2"))] };
    let mut node = Node {
        spec: Some(NodeSpec { unschedulable: says("cordoned").then_some(true), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            conditions: Some(vec![NodeCondition { type_: "Ready".into(), status: ready.into(), ..Default::default() }]),
            node_info: Some(NodeSystemInfo { boot_id: boot.to_owned(), ..Default::default() }),
            ..NodeStatus::default()
        }),
        ..Node::default()
    };
    node.metadata.name = Some(format!("node-{number}"));
    node.metadata.uid = Some(format!("uid-{number}"));
    node.metadata.resource_version = Some("7".to_owned());
    let labels = words.iter().filter_map(|word| word.split_once(':'));
    node.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
    let managers = [("agent", key::AGENT_MANAGER), ("kubectl", "kubectl-cordon"), ("ancient", "ancient-changes")];
    let managers = managers.into_iter().filter(|(word, _)| says(word));
    node.metadata.managed_fields = Some(managers.map(|(_, manager)| owner_of_cordon(manager)).collect());
    node
}

fn owner_of_cordon(manager: &str) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:unschedulable": {} } }))),
        ..ManagedFieldsEntry::default()
    }
}

/// Writes a patch to a Node, as the API server would for the agent.
pub fn write(node: &mut Node, patch: &NodePatch) {
    for (key, value) in patch.annotations() {
        match value {
            Some(value) => annotations(node).insert(key.to_owned(), value.to_owned()),
            None => annotations(node).remove(key),
        };
    }
    if let Some(cordon) = patch.unschedulable() {
        node.spec.get_or_insert_default().unschedulable = cordon.then_some(true);
        node.metadata.managed_fields = cordon.then(|| vec![owner_of_cordon(key::AGENT_MANAGER)]);
    }
    let version = node.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    node.metadata.resource_version = Some((version.unwrap_or(0) + 1).to_string());
}

/// How many bytes a Node's annotations take, which the API server limits to 256 KiB.
pub fn size(node: &Node) -> usize {
    node.metadata.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
}

/// The Nodes as the operator reads them.
pub fn views(nodes: &[Node]) -> Vec<NodeView> {
    nodes.iter().map(NodeView::from).collect()
}
