//! The agent's own Node: watched, read afresh, and patched. No other Node is ever touched (S8).

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use reboot_core::annotations::{AGENT_MANAGER, NodePatch};
use reboot_core::node::NodeView;
use reboot_runtime::call::{CallError, call};

use crate::watched::Watched;

/// How long a watch may need for what an answer has told of already.
const WATCH_LAG: Duration = Duration::from_millis(500);

/// The Node as the agent knows it: the newest of what the watch, reads and its own writes have shown.
pub(crate) struct OwnNode {
    api: Api<Node>,
    name: String,
    watched: Watched<Node, NodeView>,
    newest: Option<NodeView>,
}

impl OwnNode {
    /// Begins to watch the Node of this name.
    pub(crate) fn new(client: Client, name: &str) -> Self {
        let api: Api<Node> = Api::all(client);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let watched = Watched::new(api.clone(), config, |node| Some(NodeView::from(node)));
        Self { api, name: name.to_owned(), watched, newest: None }
    }

    /// The Node; `None` while it is not known or does not exist.
    pub(crate) fn view(&self) -> Option<&NodeView> {
        self.newest.as_ref()
    }

    /// Waits until the watch shows something newer. Safe to drop and call again.
    pub(crate) async fn changed(&mut self) {
        loop {
            self.watched.changed().await;
            let seen = self.watched.values().and_then(|mut nodes| nodes.pop());
            match seen {
                Some(node) if self.is_newer(&node) => {
                    self.newest = Some(node);
                    return;
                }
                Some(_) => {}
                None => {
                    self.newest = None;
                    return;
                }
            }
        }
    }

    /// Catches up after a conflict. Whatever was written in between, the watch is about to show: that costs no request.
    ///
    /// # Errors
    /// As [`OwnNode::refresh`], which is the way where the watch is late.
    pub(crate) async fn catch_up(&mut self) -> Result<(), CallError> {
        match tokio::time::timeout(WATCH_LAG, self.changed()).await {
            Ok(()) => Ok(()),
            Err(_) => self.refresh().await,
        }
    }

    /// Reads the Node from the API server's store, not from a cache; it is the newest from then on.
    ///
    /// # Errors
    /// The call's; [`CallError::Gone`] also means that [`OwnNode::view`] is `None` from then on.
    pub(crate) async fn refresh(&mut self) -> Result<(), CallError> {
        match call("reading the Node", self.api.get(&self.name)).await {
            Ok(node) => {
                self.newest = Some(NodeView::from(&node));
                Ok(())
            }
            Err(error) => {
                if let CallError::Gone(_) = error {
                    self.newest = None;
                }
                Err(error)
            }
        }
    }

    /// Writes to the Node what was decided on this view of it, at its resourceVersion. After an error
    /// [`OwnNode::view`] may be stale: refresh it.
    ///
    /// # Errors
    /// The call's.
    pub(crate) async fn patch(&mut self, view: &NodeView, patch: &NodePatch) -> Result<(), CallError> {
        let body = Patch::Merge(patch.to_merge_patch(&view.uid, &view.resource_version));
        let params = PatchParams { field_manager: Some(AGENT_MANAGER.to_owned()), ..PatchParams::default() };
        let node = call("patching the Node", self.api.patch(&self.name, &params, &body)).await?;
        self.newest = Some(NodeView::from(&node));
        Ok(())
    }

    fn is_newer(&self, seen: &NodeView) -> bool {
        self.newest.as_ref().is_none_or(|known| seen.is_newer_than(known))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    fn node(version: &str) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Node",
               "metadata": {"name": "node-1", "uid": "uid-1", "resourceVersion": version}})
    }

    #[tokio::test]
    async fn what_was_decided_on_a_view_is_written_though_the_node_is_unknown_meanwhile() {
        let service = |request: Request<Body>| async move {
            let status = if request.method() == "PATCH" { 200 } else { 503 };
            Response::builder().status(status).body(Body::from(node("8").to_string().into_bytes()))
        };
        let mut own = OwnNode::new(Client::new(service_fn(service), "default"), "node-1");
        let decided_on = NodeView::from(&serde_json::from_value::<Node>(node("7")).unwrap());
        assert!(own.view().is_none());
        own.patch(&decided_on, &NodePatch::default()).await.unwrap();
        assert_eq!(own.view().unwrap().resource_version, "8");
    }
}
