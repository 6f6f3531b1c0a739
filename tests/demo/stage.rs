//! Sets the scene: the cluster with pods on it, the operator, and a person who is at work on one of the nodes.

use std::{convert::Infallible, future::pending, path::Path, time::Duration};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use reboot_tests::{
    call::{until, within},
    process::Process,
    referee::{Declaration, Referee, history::PREFIX},
    sim::{Reboots, SimCluster, SimOptions},
    workload::Workload,
};
use serde_json::json;
use tokio::{sync::mpsc::UnboundedSender, time::sleep};

use crate::{screen::Screen, settings::Settings};

/// What `update_engine` announces.
pub(crate) const VERSION: &str = "4152.2.1";

const CALL: Duration = Duration::from_secs(10);

/// Fast, and slow enough to be watched.
const REBOOTS: Reboots = Reboots {
    farewell: reboot_tests::nodes::Farewell::NotReady,
    down: Duration::from_secs(2),
    kubelet: Duration::from_millis(300),
    settling: Duration::from_millis(700),
    takes_update: true,
    comes_back: true,
};

/// The cluster with the operator's processes.
pub(crate) struct Stage {
    /// The cluster.
    pub(crate) cluster: SimCluster,
    controller: Option<Process>,
    /// The node that a person has cordoned.
    pub(crate) cordoned: String,
}

impl Stage {
    /// Starts the cluster and puts pods on it; the operator does not run yet.
    pub(crate) async fn set(settings: &Settings, dir: &Path, screen: &mut Screen) -> Result<Self> {
        let nodes = settings.nodes;
        let options = SimOptions { nodes, reboots: REBOOTS, ..SimOptions::default() };
        let what = format!("start a Kubernetes control plane and {nodes} simulated nodes");
        let mut cluster = screen.during(&what, SimCluster::start(dir, options)).await?;
        let client = cluster.client();
        let what = "install the manifests, and Deployments with PodDisruptionBudgets";
        let deployed = deploy(&client, nodes);
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let installed = cluster.install(&manifests);
        let both = Box::pin(async { tokio::try_join!(deployed, installed).map(drop) });
        screen.during(what, both).await?;
        let cordoned = cluster.names().pop().unwrap_or_default();
        Ok(Self { cluster, controller: None, cordoned })
    }

    /// A person cordons a node, the operator starts, and every node hears of an update.
    pub(crate) async fn begin(&mut self, settings: &Settings, referee: &Referee, screen: &mut Screen) -> Result<()> {
        let person = self.person_cordons(referee);
        let what = format!("a person cordons {}; that cordon is not the operator's to remove", self.cordoned);
        screen.during(&what, person).await?;
        let quota = settings.quota.to_string();
        self.controller = Some(self.cluster.spawn_controller("controller", &["--max-unavailable", &quota])?);
        self.cluster.start_agents(&[])?;
        let what = format!("start the controller and {} agents; update_engine announces {VERSION}", settings.nodes);
        screen.during(&what, self.cluster.announce_update(VERSION)).await
    }

    /// Ends with an error when a process of the operator ends by itself, or the simulation fails.
    pub(crate) async fn fails(&mut self) -> Result<Infallible> {
        let Some(controller) = &mut self.controller else { return pending().await };
        loop {
            if let Some(status) = controller.ended()? {
                bail!("the controller ended ({status}){}", last_words(controller.log()));
            }
            for machine in self.cluster.machines() {
                if let Some(status) = machine.agent_ended()? {
                    bail!("the agent of {} ended ({status}){}", machine.node().name(), last_words(machine.agent_log()));
                }
            }
            if let Some(failure) = self.cluster.failures().first() {
                bail!("the simulation failed: {failure}");
            }
            sleep(Duration::from_millis(250)).await;
        }
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

/// The end of a log, to be added to a sentence.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    if tail.is_empty() { String::new() } else { format!("; its last words:\n{tail}") }
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
