//! A whole simulated cluster: a control plane, machines with system buses, and the operator's two programs as processes.
//!
//! What is real: the API server, its controllers and scheduler, the buses, the operator. What is simulated: kubelet and
//! the containers (`nodes`), `update_engine` and logind (`bus`), and the machines: a reboot is a new boot ID in a file,
//! services that leave the bus and come back, and an agent that is killed and started again.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use kube::Client;

use crate::{
    control_plane::{ControlPlane, Options},
    nodes::{Farewell, start_kwok},
    process::Process,
};

mod install;
mod machine;
mod machines;
mod memory;
mod programs;

pub use install::{NAMESPACE, kubectl, kubectl_within};
pub use machine::Machine;
pub use machines::Machines;
pub use memory::MemoryCluster;
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
    machines: Machines,
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
        let (nodes, kubeconfig) = (options.nodes, control_plane.kubeconfig());
        let machines = Machines::boot(dir, &kubelet, &kubeconfig, nodes, options.reboots).await?;
        Ok(Self { control_plane, machines, _kwok: kwok })
    }

    /// Applies the manifests of a folder as people do, and from then on runs the operator under its own accounts: each
    /// agent with a token bound to the `DaemonSet`'s pod on its node, the controller with a token of its account.
    ///
    /// Before this, both run as the administrator. Needs kubectl.
    pub async fn install(&mut self, manifests: &Path) -> Result<()> {
        let kubeconfig = install::install(&self.control_plane, self.machines.all(), manifests).await?;
        self.machines.controller_kubeconfig = kubeconfig;
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
        self.machines.all()
    }

    /// The machine of this node.
    pub fn machine(&self, node: &str) -> Result<&Arc<Machine>> {
        self.machines.get(node)
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<String> {
        self.machines.names()
    }

    /// Starts a controller; see [`Machines::spawn_controller`].
    pub fn spawn_controller(&self, name: &str, args: &[&str]) -> Result<Process> {
        self.machines.spawn_controller(name, args)
    }

    /// Starts an agent on every machine; see [`Machines::start_agents`].
    pub fn start_agents(&self, args: &[&str]) -> Result<()> {
        self.machines.start_agents(args)
    }

    /// `update_engine` announces this version on every machine, on all of them at once.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        self.machines.announce_update(version).await
    }

    /// What went wrong in the simulation itself; a test that ends well should find it empty.
    pub fn failures(&self) -> Vec<String> {
        self.machines.failures()
    }
}
