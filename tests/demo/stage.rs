//! Sets the scene: the cluster with pods on it, the operator, and a person who is at work on one of the nodes.

use std::{convert::Infallible, future::pending, path::Path, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use reboot_tests::{
    call::{until, within},
    referee::{Declaration, Referee, history::PREFIX},
    workload::Workload,
};
use serde_json::json;
use tokio::{sync::mpsc::UnboundedSender, time::sleep};

use crate::{
    cluster::Cluster,
    screen::Screen,
    settings::{Nodes, Settings},
};

/// What `update_engine` announces.
pub(crate) const VERSION: &str = "4152.2.1";

const CALL: Duration = Duration::from_secs(10);

/// The cluster and the person.
pub(crate) struct Stage {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// The node that a person has cordoned.
    pub(crate) cordoned: String,
}

impl Stage {
    /// Starts the cluster and puts pods on it; the operator does not run yet.
    pub(crate) async fn set(settings: &Settings, dir: &Path, screen: &mut Screen) -> Result<Self> {
        let Nodes { count, real } = settings.nodes;
        let kind = if real { "real" } else { "simulated" };
        let what = format!("start a Kubernetes control plane and {count} {kind} nodes");
        let mut cluster = screen.during(&what, Cluster::start(settings, dir)).await?;
        let client = cluster.client();
        let what = "install the manifests, and Deployments with PodDisruptionBudgets";
        let deployed = deploy(&client, count);
        let both = Box::pin(async { tokio::try_join!(deployed, cluster.prepare()).map(drop) });
        screen.during(what, both).await?;
        let cordoned = cluster.names().pop().unwrap_or_default();
        Ok(Self { cluster, cordoned })
    }

    /// A person cordons a node, the operator starts, and every node hears of an update.
    pub(crate) async fn begin(&mut self, settings: &Settings, referee: &Referee, screen: &mut Screen) -> Result<()> {
        let started = self.cluster.start_operator(settings.quota);
        screen.during(&format!("start the controller and {} agents", settings.nodes.count), started).await?;
        let person = self.person_cordons(referee);
        let what = format!("a person cordons {}; that cordon is not the operator's to remove", self.cordoned);
        screen.during(&what, person).await?;
        let what = format!("update_engine announces {VERSION} on every node");
        screen.during(&what, self.cluster.announce_update(VERSION)).await
    }

    async fn person_cordons(&self, referee: &Referee) -> Result<()> {
        referee.declare(Declaration::ForeignCordon(self.cordoned.clone())).await?;
        cordon(&self.cluster.client(), &self.cordoned, true).await
    }
}

/// The person uncordons the node some time after its reboot, and says so.
pub(crate) async fn person_returns(
    client: Client,
    node: String,
    referee: &Referee,
    notes: UnboundedSender<String>,
) -> Result<Infallible> {
    let back = |node: Option<&Node>| {
        let has = |key| node.is_some_and(|node| node.annotations().contains_key(&format!("{PREFIX}{key}")));
        has("last-reboot") && !has("reboot-in-progress")
    };
    let nodes = Api::all(client.clone());
    until(Duration::from_hours(1), format!("waiting for the reboot of {node}"), nodes, &node, back).await?;
    // Long enough to be seen: the node is back, and still cordoned.
    sleep(Duration::from_secs(1)).await;
    referee.declare(Declaration::ForeignCordonEnds(node.clone())).await?;
    // The receiver is gone only when all is over.
    let _unheard = notes.send(format!("the person uncordons {node}: it no longer uses up the quota"));
    cordon(&client, &node, false).await?;
    pending().await
}

async fn cordon(client: &Client, node: &str, cordoned: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let parameters = PatchParams { field_manager: Some("kubectl-cordon".to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    let call = nodes.patch(node, &parameters, &patch);
    within(CALL, format!("cordoning or uncordoning {node}"), call).await.map(drop)
}

async fn deploy(client: &Client, nodes: usize) -> Result<()> {
    let nodes = i32::try_from(nodes)?;
    let ready_after = |workload: Workload, time| workload.annotated("testbed/ready-after", time);
    let web = ready_after(Workload::new("web", 2 * nodes), "700ms");
    let api = ready_after(Workload::new("api", nodes), "1s");
    let worker = Workload::new("worker", nodes).without_pdb();
    tokio::try_join!(web.deploy(client), api.deploy(client), worker.deploy(client)).map(drop)
}
