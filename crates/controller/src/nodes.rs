//! The Nodes of the cluster: a trimmed reflector, and what this process itself has written or read since.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use reboot_core::annotations::{CONTROLLER_MANAGER, NodePatch, PREFIX};
use reboot_core::ids::parse_version;
use reboot_core::node::NodeView;
use reboot_runtime::call::{CallError, call};
use reboot_runtime::probes::ReadyHandle;
use tokio::sync::watch;
use tracing::warn;

/// How many Nodes one answer of the API server holds, so that no answer is much larger than a megabyte.
const PAGE: u32 = 100;

/// The Nodes as the controller knows them.
pub struct Nodes {
    api: Api<Node>,
    store: Store<Node>,
    newer: BTreeMap<String, NodeView>,
    changed: watch::Receiver<()>,
}

impl Nodes {
    /// The Nodes, and the task that keeps them up to date. `ready` is set once all have been listed.
    pub fn new(client: Client, ready: ReadyHandle) -> (Self, impl Future<Output = Result<()>> + Send + 'static) {
        let api: Api<Node> = Api::all(client);
        let (store, writer) = reflector::store();
        let (sender, changed) = watch::channel(());
        let watching = keep_up_to_date(api.clone(), writer, sender, ready);
        (Self { api, store, newer: BTreeMap::new(), changed }, watching)
    }

    /// Waits until something has changed that a plan looks at. Safe to drop and call again.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The task that watches has ended, which ends the process; until then nothing changes.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all Nodes have been listed once.
    pub async fn listed(&self) {
        // The error means that the task that watches has ended, which ends the process.
        if self.store.wait_until_ready().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// All Nodes, by name. What this process has read or written counts until the reflector shows something newer.
    pub fn views(&mut self) -> Vec<NodeView> {
        self.changed.mark_unchanged();
        let mut views: Vec<NodeView> = self.store.state().iter().map(|node| NodeView::from(&**node)).collect();
        views.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.newer.retain(|name, newer| {
            let Ok(place) = views.binary_search_by(|view| view.name.cmp(name)) else { return false };
            let version = |view: &NodeView| parse_version(&view.resource_version);
            let keep = views[place].uid == newer.uid && version(newer) > version(&views[place]);
            if keep {
                views[place].clone_from(newer);
            }
            keep
        });
        views
    }

    /// Reads a Node from the API server's store, not from a cache; `None`: there is none of that name.
    pub async fn read(&mut self, name: &str) -> Result<Option<NodeView>, CallError> {
        match call("reading a Node", self.api.get(name)).await {
            Ok(node) => Ok(Some(self.note(&node))),
            Err(CallError::Gone(_)) => {
                self.newer.remove(name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Lists all Nodes from the API server's store, not from a cache.
    pub async fn list(&self) -> Result<Vec<NodeView>, CallError> {
        let (mut views, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let nodes = call("listing the Nodes", self.api.list(&page)).await?;
            views.extend(nodes.items.iter().map(NodeView::from));
            match nodes.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(views),
            }
        }
    }

    /// Writes to a Node at the resourceVersion of the view, and returns the Node as it is then.
    pub async fn patch(&mut self, view: &NodeView, patch: &NodePatch) -> Result<NodeView, CallError> {
        let body = Patch::Merge(patch.to_merge_patch(&view.uid, &view.resource_version));
        let params = PatchParams { field_manager: Some(CONTROLLER_MANAGER.to_owned()), ..PatchParams::default() };
        let node = call("patching a Node", self.api.patch(&view.name, &params, &body)).await?;
        Ok(self.note(&node))
    }

    fn note(&mut self, node: &Node) -> NodeView {
        let view = NodeView::from(node);
        self.newer.insert(view.name.clone(), view.clone());
        view
    }
}

async fn keep_up_to_date(
    api: Api<Node>,
    writer: Writer<Node>,
    changed: watch::Sender<()>,
    ready: ReadyHandle,
) -> Result<()> {
    let events = watcher(api, watcher::Config::default().page_size(PAGE)).modify(trim).default_backoff();
    let mut events = events.reflect(writer).boxed();
    let mut known = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if matches!(event, Event::InitDone) {
                    ready.set(true);
                }
                if matters(&event, &mut known) {
                    changed.send_replace(());
                }
            }
            Err(error) => warn!("watching the Nodes: {error}"),
        }
    }
    bail!("the watch of the Nodes has ended")
}

/// Whether an event shows something new to a plan: most only bring another heartbeat of kubelet.
fn matters(event: &Event<Node>, known: &mut HashMap<String, u64>) -> bool {
    match event {
        Event::Init | Event::InitApply(_) => false,
        Event::InitDone => {
            known.clear();
            true
        }
        Event::Apply(node) => {
            let (name, content) = (node.metadata.name.clone().unwrap_or_default(), fingerprint(node));
            known.insert(name, content) != Some(content)
        }
        Event::Delete(node) => {
            known.remove(node.metadata.name.as_deref().unwrap_or_default());
            true
        }
    }
}

/// A number that differs when anything but the resourceVersion of a trimmed Node differs.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    let NodeView { uid, ready, unschedulable, boot, labels, .. } = NodeView::from(node);
    (uid, ready, unschedulable, boot, labels, &node.metadata.annotations).hash(&mut hasher);
    hasher.finish()
}

/// Leaves what [`NodeView`] reads; the rest of a Node (managed fields, images, conditions) is most of its size.
fn trim(node: &mut Node) {
    let mut annotations = node.metadata.annotations.take();
    if let Some(annotations) = &mut annotations {
        annotations.retain(|key, _| key.starts_with(PREFIX));
    }
    let status = node.status.take().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.retain(|condition| condition.type_ == "Ready");
    for condition in &mut conditions {
        (condition.message, condition.reason) = (None, None);
    }
    let boot_id = status.node_info.map(|info| info.boot_id).unwrap_or_default();
    *node = Node {
        metadata: ObjectMeta {
            name: node.metadata.name.take(),
            uid: node.metadata.uid.take(),
            resource_version: node.metadata.resource_version.take(),
            labels: node.metadata.labels.take(),
            annotations,
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            conditions: Some(conditions),
            node_info: Some(NodeSystemInfo { boot_id, ..NodeSystemInfo::default() }),
            ..NodeStatus::default()
        }),
    };
}
