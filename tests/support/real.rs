//! A real cluster on this machine: a control plane, and nodes with systemd, D-Bus, logind, containerd and kubelet that
//! really reboot, each a systemd-nspawn machine with a boot ID of its own.
//!
//! What is real: all of Kubernetes and the operator, deployed by its manifests. What is not: the kernel, which all nodes
//! have in common (only the boot ID tells one boot from the next), and `update_engine`, which a fake plays on each node's bus
//! under Flatcar's access rules. It takes root, and namespaces that the program enters first ([`namespaces`]).

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::{ByteString, api::core::v1::Node};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    call::until,
    control_plane::{ControlPlane, Kubelets, Options, binary},
    proxy::Proxy,
    referee::history::NodeSeen,
};

mod fleet;
mod install;
pub mod namespaces;
mod node;
mod site;

pub use fleet::RealFleet;
pub use install::Install;
pub use node::{Power, RealNode, RealReboots};
pub use site::KubeletSettings;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct RealOptions {
    /// How many nodes: `node-1`, `node-2`, …
    pub nodes: usize,
    /// Their kubelets; `None`, and the nodes have none: no Node appears by itself, and agents run as units ([`RealFleet`]).
    pub kubelet: Option<KubeletSettings>,
    /// After how long without a word from kubelet its node is no longer Ready.
    pub grace: Duration,
}

/// The running cluster. Dropping it ends every process that it started.
pub struct RealCluster {
    control_plane: ControlPlane,
    nodes: Vec<Arc<RealNode>>,
    lives: Vec<JoinHandle<()>>,
    failures: Arc<Mutex<Vec<String>>>,
    dir: PathBuf,
}

/// The first boot loads the images; five nodes at once need ten seconds on two idle cores.
const READY_LIMIT: Duration = Duration::from_mins(3);

impl Default for RealOptions {
    fn default() -> Self {
        Self { nodes: 5, kubelet: Some(KubeletSettings::default()), grace: Duration::from_secs(20) }
    }
}

impl RealCluster {
    /// Starts the control plane and the nodes, and waits until all are Ready. The operator's images are on them; it is not
    /// installed. `dir` holds all files: it must be a short path (sockets).
    ///
    /// # Errors
    /// Outside of namespaces of our own; when a part does not come up.
    pub async fn start(dir: &Path, options: &RealOptions) -> Result<Self> {
        let cgroups = namespaces::require()?;
        namespaces::furnish()?;
        let names: Vec<_> = (1..=options.nodes).map(|index| format!("node-{index}")).collect();
        let address: Ipv4Addr = namespaces::BRIDGE.parse().context("the bridge's address")?;
        let kubelets = Kubelets { address, nodes: names.clone(), grace: options.grace };
        let control_plane = Options { kubelets: Some(kubelets), ..Options::default() };
        let control_plane = ControlPlane::start(&dir.join("cp"), control_plane).await?;
        let settings = options.kubelet.clone().unwrap_or_default();
        let layers = site::lay_out(&dir.join("site"), &settings)?;
        site::add_operator(&dir.join("site"))?;
        let mut nodes = Vec::new();
        for (index, name) in (1..).zip(&names) {
            let (user, programs) = match options.kubelet {
                Some(_) => (("kubelet", control_plane.node_token(name)?), vec![binary("kubelet")?]),
                None => {
                    (("agent", control_plane.admin_token()?), vec![site::built("reboot-agent")?, binary("kubectl")?])
                }
            };
            let kubeconfigs = vec![(user.0, kubeconfig_of(&control_plane, &user.1)?)];
            let equipment = node::Equipment { index, api_port: control_plane.port(), kubeconfigs, programs };
            nodes.push(Arc::new(RealNode::build(name, &dir.join(name), &cgroups, &layers, &equipment)?));
        }
        let failures = Arc::new(Mutex::new(Vec::new()));
        let lives = nodes.iter().map(|node| tokio::spawn(live(node.clone(), failures.clone()))).collect();
        let this = Self { control_plane, nodes, lives, failures, dir: dir.to_owned() };
        if options.kubelet.is_some() {
            this.until_ready().await?;
        }
        Ok(this)
    }

    /// Installs the operator by its manifests, with these settings, and waits until all of it runs.
    pub async fn install(&self, install: &Install) -> Result<()> {
        install::apply(&self.control_plane, &self.dir, install).await?;
        self.until_installed().await
    }

    /// Waits until all of the operator runs.
    pub async fn until_installed(&self) -> Result<()> {
        install::until_installed(&self.client(), self.nodes.len()).await
    }

    /// Starts a proxy before the API server that nodes and pods can reach.
    pub async fn start_proxy(&self) -> Result<Proxy> {
        let address = namespaces::BRIDGE.parse().context("the bridge's address")?;
        Proxy::start_at(address, &self.control_plane.kubeconfig()).await
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// A client of the administrator.
    pub fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// The nodes, in the order of their names.
    pub fn nodes(&self) -> &[Arc<RealNode>] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Arc<RealNode>> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name().to_owned()).collect()
    }

    /// `update_engine` announces this version on every node, on all of them at once.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        let all = self.nodes.iter().map(|node| node.announce_update(version));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// What went wrong in the testbed itself; a test that ends well should find it empty.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn until_ready(&self) -> Result<()> {
        for name in self.names() {
            let nodes: Api<Node> = Api::all(self.client());
            let ready = |node: Option<&Node>| node.is_some_and(|node| NodeSeen::from(node).ready);
            let waited = until(READY_LIMIT, format!("waiting for {name} to be Ready"), nodes, &name, ready).await;
            let trouble = self.failures().join("; ");
            waited.with_context(|| format!("{}{trouble}", self.console(&name)))?;
        }
        Ok(())
    }

    /// The last words of a node's console, for errors.
    fn console(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(name).join("console.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        self.lives.iter().for_each(JoinHandle::abort);
    }
}

async fn live(node: Arc<RealNode>, failures: Arc<Mutex<Vec<String>>>) {
    let name = node.name().to_owned();
    if let Err(error) = node.live().await {
        failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name}: {error:#}"));
    }
}

/// A kubeconfig for somebody on a node that needs no other file.
fn kubeconfig_of(control_plane: &ControlPlane, token: &str) -> Result<String> {
    let ca = fs::read(control_plane.ca()).context("reading the API server's certificate")?;
    let server = format!("https://{}:{}", namespaces::BRIDGE, control_plane.port());
    let cluster =
        json!({"server": server, "certificate-authority-data": ByteString(ca), "tls-server-name": "kubernetes"});
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": "testbed", "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
    });
    Ok(text.to_string())
}
