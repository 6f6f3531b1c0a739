//! All machines of a cluster, and the operator's processes on them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::task::JoinHandle;

use super::{Machine, NAMESPACE, Reboots, program};
use crate::{nodes::SimNode, process::Process};

/// The machines `node-1`, `node-2`, … Dropping them ends every process on them.
pub struct Machines {
    all: Vec<Arc<Machine>>,
    watchers: Vec<JoinHandle<()>>,
    dir: PathBuf,
    /// What a controller runs with.
    pub(super) controller_kubeconfig: PathBuf,
}

impl Machines {
    /// Boots so many; `kubelet` registers their Nodes, and the operator comes later, as the user of this kubeconfig.
    pub(super) async fn boot(
        dir: &Path,
        kubelet: &Client,
        kubeconfig: &Path,
        nodes: usize,
        reboots: Reboots,
    ) -> Result<Self> {
        let (mut all, mut watchers) = (Vec::new(), Vec::new());
        for index in 1..=nodes {
            let name = format!("node-{index}");
            let folder = dir.join(&name);
            let node = SimNode::create(kubelet.clone(), &folder, &name, &[]).await?;
            let (machine, calls) = Machine::start(node, &folder, kubeconfig.to_owned(), reboots).await?;
            let machine = Arc::new(machine);
            watchers.push(tokio::spawn(machine.clone().serve(calls)));
            all.push(machine);
        }
        Ok(Self { all, watchers, dir: dir.to_owned(), controller_kubeconfig: kubeconfig.to_owned() })
    }

    /// The machines, in the order of their names.
    pub fn all(&self) -> &[Arc<Machine>] {
        &self.all
    }

    /// The machine of this node.
    pub fn get(&self, node: &str) -> Result<&Arc<Machine>> {
        let mut machines = self.all.iter();
        machines.find(|machine| machine.node().name() == node).with_context(|| format!("there is no node {node}"))
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|machine| machine.node().name().to_owned()).collect()
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
        self.all.iter().try_for_each(|machine| machine.start_agent(args))
    }

    /// `update_engine` announces this version on every machine, on all of them at once.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        let all = self.all.iter().map(|machine| machine.announce_update(version));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// What went wrong in the simulation itself; a test that ends well should find it empty.
    pub fn failures(&self) -> Vec<String> {
        self.all.iter().flat_map(|machine| machine.failures()).collect()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}
