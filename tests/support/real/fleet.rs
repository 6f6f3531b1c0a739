//! A fleet of real nodes without kubelets: the machines reboot in earnest, each agent is a unit of its machine's systemd,
//! and what kubelet would say of a boot is said here. Two cores are enough for twenty of them.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use kube::Client;
use tokio::task::JoinHandle;

use super::{RealCluster, RealNode, RealOptions, site};
use crate::{
    call::within,
    nodes::{Farewell, SimNode},
    process::Process,
    sim::{NAMESPACE, kubectl},
};

/// A running fleet with its controller and its agents. Dropping it ends every process that it started.
pub struct RealFleet {
    /// Its machines and its control plane.
    pub cluster: RealCluster,
    _controller: Process,
    voices: Vec<JoinHandle<()>>,
}

/// A machine boots in a second; twenty at once on a busy machine need much longer.
const BOOT_LIMIT: Duration = Duration::from_mins(2);

impl RealFleet {
    /// Starts the machines with their agents, registers their Nodes, and starts a controller with this quota.
    ///
    /// # Errors
    /// Outside of namespaces of our own; when a part does not come up.
    pub async fn start(dir: &Path, nodes: usize, quota: usize) -> Result<Self> {
        // There are no kubelets to be missed.
        let options = RealOptions { nodes, kubelet: None, grace: Duration::from_hours(24) };
        let cluster = RealCluster::start(dir, &options).await?;
        kubectl(&cluster.control_plane().kubeconfig(), &["create", "namespace", NAMESPACE]).await?;
        let client = cluster.control_plane().client_as("kubelet").await?;
        let given = cluster.nodes().iter().map(|node| give_voice(node.clone(), client.clone(), dir));
        let voices = try_join_all(given).await?;
        let mut command = Command::new(site::built("reboot-controller")?);
        command.arg("--kubeconfig").arg(cluster.control_plane().kubeconfig());
        command.args(["--namespace", NAMESPACE, "--listen=127.0.0.1:0", "--max-unavailable", &quota.to_string()]);
        let controller = Process::spawn("controller", command, &dir.join("controller.log"))?;
        Ok(Self { cluster, _controller: controller, voices })
    }
}

impl Drop for RealFleet {
    fn drop(&mut self) {
        self.voices.iter().for_each(JoinHandle::abort);
    }
}

/// Registers the Node of a machine, and from now on says what kubelet would say of its boots.
async fn give_voice(node: Arc<RealNode>, client: Client, dir: &Path) -> Result<JoinHandle<()>> {
    let mut told = until_booted(&node, 0).await?;
    let object = SimNode::create(client, &dir.join(node.name()).join("files"), node.name(), &[]).await?;
    report(&node, &object).await?;
    Ok(tokio::spawn(async move {
        // A boot that goes untold leaves the node as it was: the scenario fails by that, and names it.
        while let Ok(boots) = tell_of_reboot(&node, &object, told).await {
            told = boots;
        }
    }))
}

/// Waits for a boot after the first `told`, and tells of it; returns how many boots there were by then.
async fn tell_of_reboot(node: &RealNode, object: &SimNode, told: usize) -> Result<usize> {
    let mut power = node.power();
    power.wait_for(|power| !power.on || power.boots > told).await.context("waiting for the machine to go down")?;
    object.go_down(Farewell::NotReady).await?;
    let boots = until_booted(node, told).await?;
    report(node, object).await.map(|()| boots)
}

async fn until_booted(node: &RealNode, told: usize) -> Result<usize> {
    let mut power = node.power();
    let booted = power.wait_for(|power| power.answers && power.boots > told);
    Ok(within(BOOT_LIMIT, format!("waiting for the boot of {}", node.name()), booted).await?.boots)
}

async fn report(node: &RealNode, object: &SimNode) -> Result<()> {
    object.booted(&node.boot_id()?, &node.os_version());
    object.report().await
}
