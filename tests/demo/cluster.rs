//! The cluster of the demo: simulated nodes, on Kubernetes or without it, which anybody can have; or real ones, which
//! take root.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use kube::Client;
use reboot_tests::{
    control_plane::audit::Request,
    process::Process,
    real::{Install, RealCluster, RealOptions},
    referee::Referee,
    sim::{Machine, MemoryCluster, Reboots, SimCluster, SimOptions},
};
use tokio::time::sleep;

use crate::settings::Settings;

/// The nodes, their control plane, and the operator's processes on it.
pub(crate) enum Cluster {
    /// Machines that are folders; the operator runs as processes beside them.
    Simulated(Box<SimCluster>, Option<Process>),
    /// The same on an API server in memory.
    InMemory(Box<MemoryCluster>, Option<Process>),
    /// Machines of systemd-nspawn; the operator runs in its pods.
    Real(Box<RealCluster>),
}

/// Fast, and slow enough to be watched.
const REBOOTS: Reboots = Reboots {
    farewell: reboot_tests::nodes::Farewell::NotReady,
    down: Duration::from_secs(2),
    kubelet: Duration::from_millis(300),
    settling: Duration::from_millis(700),
    takes_update: true,
    comes_back: true,
};

impl Cluster {
    /// Starts the control plane and the nodes.
    pub(crate) async fn start(settings: &Settings, dir: &Path) -> Result<Self> {
        let nodes = settings.nodes.count;
        if settings.nodes.real {
            let options = RealOptions { nodes, ..RealOptions::default() };
            return RealCluster::start(dir, &options).await.map(|cluster| Self::Real(Box::new(cluster)));
        }
        if settings.is_in_memory() {
            let cluster = MemoryCluster::start(dir, nodes, REBOOTS).await?;
            return Ok(Self::InMemory(Box::new(cluster), None));
        }
        let options = SimOptions { nodes, reboots: REBOOTS, ..SimOptions::default() };
        SimCluster::start(dir, options).await.map(|cluster| Self::Simulated(Box::new(cluster), None))
    }

    /// Applies the manifests where the operator does not come with them.
    pub(crate) async fn prepare(&mut self) -> Result<()> {
        match self {
            Self::Simulated(cluster, _) => {
                cluster.install(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")).await
            }
            Self::InMemory(..) | Self::Real(_) => Ok(()),
        }
    }

    /// Starts the controller and an agent for every node.
    pub(crate) async fn start_operator(&mut self, quota: usize) -> Result<()> {
        match self {
            Self::Simulated(cluster, controller) => {
                *controller = Some(cluster.spawn_controller("controller", &["--max-unavailable", &quota.to_string()])?);
                cluster.start_agents(&[])
            }
            Self::InMemory(cluster, controller) => {
                let machines = cluster.machines();
                *controller =
                    Some(machines.spawn_controller("controller", &["--max-unavailable", &quota.to_string()])?);
                machines.start_agents(&[])
            }
            Self::Real(cluster) => cluster.install(&Install::with_quota(quota)).await,
        }
    }

    /// `update_engine` announces this version on every node, on all of them at once.
    pub(crate) async fn announce_update(&self, version: &str) -> Result<()> {
        match self {
            Self::Simulated(cluster, _) => cluster.announce_update(version).await,
            Self::InMemory(cluster, _) => cluster.machines().announce_update(version).await,
            Self::Real(cluster) => cluster.announce_update(version).await,
        }
    }

    /// A referee who watches from now on.
    pub(crate) async fn referee(&self, quota: usize) -> Result<Referee> {
        match self {
            Self::Simulated(cluster, _) => Referee::start(cluster.control_plane(), quota).await,
            Self::InMemory(cluster, _) => Referee::over_memory(cluster.api(), quota).await,
            Self::Real(cluster) => Referee::start(cluster.control_plane(), quota).await,
        }
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        match self {
            Self::Simulated(cluster, _) => cluster.control_plane().audit(),
            Self::InMemory(cluster, _) => Ok(cluster.requests()),
            Self::Real(cluster) => cluster.control_plane().audit(),
        }
    }

    /// For kubectl.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Simulated(cluster, _) => cluster.control_plane().kubeconfig(),
            Self::InMemory(cluster, _) => cluster.kubeconfig().to_owned(),
            Self::Real(cluster) => cluster.control_plane().kubeconfig(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Simulated(cluster, _) => cluster.client(),
            Self::InMemory(cluster, _) => cluster.client(),
            Self::Real(cluster) => cluster.control_plane().client(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Simulated(cluster, _) => cluster.names(),
            Self::InMemory(cluster, _) => cluster.machines().names(),
            Self::Real(cluster) => cluster.names(),
        }
    }

    /// Ends with an error when a process of the operator ends by itself, or the testbed fails.
    pub(crate) async fn fails(&mut self) -> Result<Infallible> {
        loop {
            let failures = match self {
                Self::Simulated(cluster, controller) => {
                    operator_runs(cluster.machines(), controller.as_mut())?;
                    cluster.failures()
                }
                Self::InMemory(cluster, controller) => {
                    operator_runs(cluster.machines().all(), controller.as_mut())?;
                    cluster.machines().failures()
                }
                // kubelet starts its pods again, and what they say is in `kubectl logs`.
                Self::Real(cluster) => cluster.failures(),
            };
            if let Some(failure) = failures.first() {
                bail!("the testbed failed: {failure}");
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}

fn operator_runs(machines: &[Arc<Machine>], controller: Option<&mut Process>) -> Result<()> {
    if let Some(controller) = controller
        && let Some(status) = controller.ended()?
    {
        bail!("the controller ended ({status}){}", last_words(controller.log()));
    }
    for machine in machines {
        if let Some(status) = machine.agent_ended()? {
            bail!("the agent of {} ended ({status}){}", machine.node().name(), last_words(machine.agent_log()));
        }
    }
    Ok(())
}

/// The end of a log, to be added to a sentence.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    if tail.is_empty() { String::new() } else { format!("; its last words:\n{tail}") }
}
