//! A simulated cluster with the operator installed and running.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client};
use reboot_tests::{
    call::until,
    control_plane::audit::Request,
    process::Process,
    scratch::Scratch,
    sim::{SimCluster, SimOptions},
    workload::Workload,
};

/// The longest wait for one thing: an idle machine needs seconds, a busy one may need much longer.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// The operator's accounts, in the words of the audit log.
const ACCOUNTS: &str = "system:serviceaccount:reboot-operator:";

/// A running cluster.
pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    _controller: Process,
    _dir: Scratch,
}

impl Stage {
    /// A cluster with these pods; the controller grants one node at a time.
    pub(crate) async fn set(nodes: usize, workloads: &[Workload], controller: &[&str], agents: &[&str]) -> Self {
        let dir = Scratch::new("drain").unwrap();
        let options = SimOptions { nodes, ..SimOptions::default() };
        let mut cluster = SimCluster::start(dir.path(), options).await.unwrap();
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        cluster.install(&manifests).await.unwrap();
        for workload in workloads {
            workload.deploy(&cluster.client()).await.unwrap();
        }
        let controller = cluster.spawn_controller("controller", controller).unwrap();
        cluster.start_agents(agents).unwrap();
        // The controller works from here on.
        let ledgers: Api<ConfigMap> = Api::namespaced(cluster.client(), "reboot-operator");
        let complete = |map: Option<&ConfigMap>| map.is_some_and(|map| map.data.is_some());
        until(LIMIT, "the ledger", ledgers, "reboot-slots", complete).await.unwrap();
        Self { cluster, _controller: controller, _dir: dir }
    }

    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Waits until the node says that it has rebooted into this version.
    pub(crate) async fn until_rebooted(&self, node: &str, version: &str) {
        let wanted = format!("\"osAfter\":\"{version}\"");
        let last = |node: &Node| node.metadata.annotations.as_ref()?.get("reboot-operator.io/last-reboot").cloned();
        let done = |node: Option<&Node>| node.and_then(last).is_some_and(|last| last.contains(&wanted));
        let nodes: Api<Node> = Api::all(self.client());
        until(LIMIT, format!("the reboot of {node}"), nodes, node, done).await.unwrap();
    }

    /// The requests of the operator since then.
    pub(crate) fn requests(&self, then: Timestamp) -> Vec<Request> {
        let mut requests = self.cluster.control_plane().audit().unwrap();
        requests.retain(|request| request.user.starts_with(ACCOUNTS) && request.at >= then);
        requests
    }
}
