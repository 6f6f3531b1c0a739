//! A whole simulated cluster: a control plane, machines with system buses, and the operator's two programs as processes.
//!
//! What is real: the API server, its controllers and scheduler, the buses, the operator. What is simulated: kubelet and
//! the containers (`nodes`), `update_engine` and logind (`bus`), and the machines: a reboot is a new boot ID in a file,
//! services that leave the bus and come back, and an agent that is killed and started again.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::task::JoinHandle;

use crate::{
    control_plane::{ControlPlane, Options},
    nodes::{Farewell, SimNode, start_kwok},
    process::Process,
};

mod install;
mod machine;
mod programs;

pub use install::{NAMESPACE, kubectl, kubectl_within};
pub use machine::Machine;
pub use programs::program;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// How many nodes: `node-1`, `node-2`, …
    pub nodes: usize,
    /// How their machines reboot.
    pub reboots: Reboots,
    /// The control plane.
    pub control_plane: Options,
}

/// How a machine reboots once logind accepted the request.
#[derive(Clone, Copy, Debug)]
pub struct Reboots {
    /// What the API server hears of it.
    pub farewell: Farewell,
    /// How long the machine is down.
    pub down: Duration,
    /// How long after the boot (and the agent's start) kubelet reports the new boot ID and Ready.
    pub kubelet: Duration,
    /// How long it reports the new boot ID without being Ready (no network yet, say); zero, and it never does.
    pub settling: Duration,
    /// Whether the machine boots into what `update_engine` has installed, or into the old version again.
    pub takes_update: bool,
    /// Whether it comes back by itself; if not, `Machine::bring_back` does it.
    pub comes_back: bool,
}

/// The running cluster. Dropping it ends every process that it started.
pub struct SimCluster {
    control_plane: ControlPlane,
    machines: Vec<Arc<Machine>>,
    watchers: Vec<JoinHandle<()>>,
    controller_kubeconfig: PathBuf,
    dir: PathBuf,
    _kwok: Process,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { nodes: 5, reboots: Reboots::default(), control_plane: Options::default() }
    }
}

impl Default for Reboots {
    /// The order of a real machine, in a hurry: the agent runs a moment before kubelet has told of the boot.
    fn default() -> Self {
        Self {
            farewell: Farewell::NotReady,
            down: Duration::from_millis(300),
            kubelet: Duration::from_millis(300),
            settling: Duration::ZERO,
            takes_update: true,
            comes_back: true,
        }
    }
}

impl SimCluster {
    /// Starts the control plane and the machines; the operator comes later. `dir` holds all files: it must be a short
    /// path (sockets).
    pub async fn start(dir: &Path, options: SimOptions) -> Result<Self> {
        let control_plane = ControlPlane::start(&dir.join("cp"), options.control_plane).await?;
        let kwok = start_kwok(&control_plane, dir)?;
        let kubelet = control_plane.client_as("kubelet").await?;
        let mut machines = Vec::new();
        let mut watchers = Vec::new();
        for index in 1..=options.nodes {
            let name = format!("node-{index}");
            let folder = dir.join(&name);
            let node = SimNode::create(kubelet.clone(), &folder, &name, &[]).await?;
            let kubeconfig = control_plane.kubeconfig();
            let (machine, calls) = Machine::start(node, &folder, kubeconfig, options.reboots).await?;
            let machine = Arc::new(machine);
            watchers.push(tokio::spawn(machine.clone().serve(calls)));
            machines.push(machine);
        }
        let controller_kubeconfig = control_plane.kubeconfig();
        let dir = dir.to_owned();
        Ok(Self { control_plane, machines, watchers, controller_kubeconfig, dir, _kwok: kwok })
    }

    /// Applies the manifests of a folder as people do, and from then on runs the operator under its own accounts: each
    /// agent with a token bound to the `DaemonSet`'s pod on its node, the controller with a token of its account.
    ///
    /// Before this, both run as the administrator. Needs kubectl.
    pub async fn install(&mut self, manifests: &Path) -> Result<()> {
        self.controller_kubeconfig = install::install(&self.control_plane, &self.machines, manifests).await?;
        Ok(())
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// A client of the administrator.
    pub fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// The machines, in the order of their names.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// The machine of this node.
    pub fn machine(&self, node: &str) -> Result<&Arc<Machine>> {
        let mut machines = self.machines.iter();
        machines.find(|machine| machine.node().name() == node).with_context(|| format!("there is no node {node}"))
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<String> {
        self.machines.iter().map(|machine| machine.node().name().to_owned()).collect()
    }

    /// Starts a controller; `name` tells several apart and names the log (`<dir>/<name>.log`).
    ///
    /// It runs in the namespace `reboot-operator` and serves its metrics on a port of the system's choice, unless `args`
    /// say otherwise.
    pub fn spawn_controller(&self, name: &str, args: &[&str]) -> Result<Process> {
        let mut command = Command::new(program("reboot-controller", "REBOOT_CONTROLLER_BIN")?);
        command
            .env("REBOOT_CONTROLLER_KUBECONFIG", &self.controller_kubeconfig)
            .env("REBOOT_CONTROLLER_NAMESPACE", NAMESPACE)
            .env("REBOOT_CONTROLLER_LISTEN", "127.0.0.1:0")
            .args(args);
        Process::spawn(name, command, &self.dir.join(format!("{name}.log")))
    }

    /// Starts an agent on every machine, with these arguments added to those that the machine gives it.
    pub fn start_agents(&self, args: &[&str]) -> Result<()> {
        self.machines.iter().try_for_each(|machine| machine.start_agent(args))
    }

    /// `update_engine` announces this version on every machine, on all of them at once.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        let all = self.machines.iter().map(|machine| machine.announce_update(version));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// What went wrong in the simulation itself; a test that ends well should find it empty.
    pub fn failures(&self) -> Vec<String> {
        self.machines.iter().flat_map(|machine| machine.failures()).collect()
    }
}

impl Drop for SimCluster {
    fn drop(&mut self) {
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}
