//! The Nodes of the cluster: a reflector of what the protocol reads of them, and what this process itself has written
//! or read since.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use reboot_core::annotations::{CONTROLLER_MANAGER, NodePatch};
use reboot_core::node::NodeView;
use reboot_runtime::call::{CallError, call};
use reboot_runtime::probes::{Liveness, ReadyHandle};
use tokio::sync::watch;
use tracing::warn;

/// How many Nodes one answer of the API server holds, so that no answer is much larger than a megabyte.
const PAGE: u32 = 100;

/// The Nodes as the controller knows them.
pub(crate) struct Nodes {
    api: Api<Node>,
    store: Store<Seen>,
    newer: BTreeMap<String, NodeView>,
    changed: watch::Receiver<()>,
}

impl Nodes {
    /// The Nodes, and the task that keeps them up to date. `ready` is set once all have been listed.
    pub(crate) fn new(client: Client, ready: ReadyHandle) -> (Self, impl Future<Output = Result<()>> + Send + 'static) {
        let api: Api<Node> = Api::all(client);
        let (store, writer) = reflector::store();
        let (sender, changed) = watch::channel(());
        let watching = keep_up_to_date(api.clone(), writer, sender, ready);
        (Self { api, store, newer: BTreeMap::new(), changed }, watching)
    }

    /// Waits until something has changed that a plan looks at. Safe to drop and call again.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The task that watches has ended, which ends the process; until then nothing changes.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all Nodes have been listed once.
    pub(crate) async fn listed(&self) {
        // The error means that the task that watches has ended, which ends the process.
        if self.store.wait_until_ready().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// All Nodes, by name. What this process has read or written counts until the reflector shows something newer.
    pub(crate) fn views(&mut self) -> Vec<NodeView> {
        self.changed.mark_unchanged();
        let mut views: Vec<NodeView> = self.store.state().iter().map(|seen| seen.0.clone()).collect();
        views.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.newer.retain(|name, newer| {
            let Ok(place) = views.binary_search_by(|view| view.name.cmp(name)) else { return false };
            let keep = views[place].uid == newer.uid && newer.is_newer_than(&views[place]);
            if keep {
                views[place].clone_from(newer);
            }
            keep
        });
        views
    }

    /// Reads a Node from the API server's store, not from a cache; `None`: there is none of that name.
    pub(crate) async fn read(&mut self, name: &str) -> Result<Option<NodeView>, CallError> {
        match call("reading a Node", self.api.get(name)).await {
            Ok(node) => Ok(Some(self.note(&node))),
            Err(CallError::Gone(_)) => {
                self.newer.remove(name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Lists all Nodes from the API server's store, not from a cache: a long row of calls, which is no standstill.
    pub(crate) async fn list(&self, liveness: &Liveness) -> Result<Vec<NodeView>, CallError> {
        let (mut views, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            liveness.turned();
            let nodes = call("listing the Nodes", self.api.list(&page)).await?;
            views.extend(nodes.items.iter().map(NodeView::from));
            match nodes.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(views),
            }
        }
    }

    /// Writes to a Node at the resourceVersion of the view, and returns the Node as it is then.
    pub(crate) async fn patch(&mut self, view: &NodeView, patch: &NodePatch) -> Result<NodeView, CallError> {
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

/// A Node as the reflector holds it. The object itself is many times as large, and takes as long to read each time.
#[derive(Clone, Debug)]
struct Seen(NodeView);

impl Lookup for Seen {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        Node::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Node::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Node::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Node::plural(&())
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0.resource_version))
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0.uid))
    }
}

async fn keep_up_to_date(
    api: Api<Node>,
    mut writer: Writer<Seen>,
    changed: watch::Sender<()>,
    ready: ReadyHandle,
) -> Result<()> {
    let store = writer.as_reader();
    let mut events = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event.map(seen) {
            Ok(event) => {
                let matters = matters(&event, &store);
                writer.apply_watcher_event(&event);
                if matches!(event, Event::InitDone) {
                    ready.set(true);
                }
                if matters {
                    changed.send_replace(());
                }
            }
            Err(error) => warn!("watching the Nodes: {error}"),
        }
    }
    bail!("the watch of the Nodes has ended")
}

fn seen(event: Event<Node>) -> Event<Seen> {
    let seen = |node: &Node| Seen(NodeView::from(node));
    match &event {
        Event::Init => Event::Init,
        Event::InitApply(node) => Event::InitApply(seen(node)),
        Event::InitDone => Event::InitDone,
        Event::Apply(node) => Event::Apply(seen(node)),
        Event::Delete(node) => Event::Delete(seen(node)),
    }
}

/// Whether an event shows something new to a plan: most only bring another heartbeat of kubelet.
fn matters(event: &Event<Seen>, store: &Store<Seen>) -> bool {
    match event {
        Event::Init | Event::InitApply(_) => false,
        Event::InitDone | Event::Delete(_) => true,
        Event::Apply(Seen(node)) => store.get(&ObjectRef::new(&node.name)).is_none_or(|known| {
            let resource_version = node.resource_version.clone();
            NodeView { resource_version, ..known.0.clone() } != *node
        }),
    }
}
