//! A simulated cluster without Kubernetes: the API server in memory, and what makes it look alive.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, anyhow};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Machines, NAMESPACE, Reboots};
use crate::{
    control_plane::audit::Request,
    memory::{self, Call, Delivery, Listening, MemoryApi, Weather},
};

/// The running cluster. Dropping it ends every process that it started.
pub struct MemoryCluster {
    api: MemoryApi,
    machines: Machines,
    kubeconfig: PathBuf,
    log: Log,
    life: JoinHandle<()>,
    _listening: Listening,
}

/// Keeps every request with its answer, and lets all of them through.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Request>>>);

impl Weather for Log {
    fn answer<'a>(&'a self, call: &'a Call, code: u16) -> BoxFuture<'a, Delivery> {
        let Call { user, verb, group, resource, namespace, name } = call.clone();
        let (verb, group, at) = (verb.to_owned(), group.to_owned(), Timestamp::now());
        let request = Request { user, verb, group, resource, namespace, name, code, at };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        Box::pin(std::future::ready(Delivery::Arrives))
    }
}

impl MemoryCluster {
    /// Starts the API server and so many machines; the operator comes later, with the rights of everybody: there are no
    /// others. `dir` holds all files: it must be a short path (sockets).
    pub async fn start(dir: &Path, nodes: usize, reboots: Reboots) -> Result<Self> {
        let log = Log::default();
        let api = MemoryApi::new(Timestamp::now, log.clone());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        api.create("admin", &namespace).map_err(|failure| anyhow!(failure.message))?;
        let listening = api.listen().await?;
        let kubeconfig = dir.join("kubeconfig");
        listening.write_kubeconfig(&kubeconfig, "admin")?;
        let life = tokio::spawn(memory::live(api.clone()));
        let machines = Machines::boot(dir, &api.client("kubelet"), &kubeconfig, nodes, reboots).await?;
        Ok(Self { api, machines, kubeconfig, log, life, _listening: listening })
    }

    /// The API server.
    pub fn api(&self) -> &MemoryApi {
        &self.api
    }

    /// A client of the administrator.
    pub fn client(&self) -> Client {
        self.api.client("admin")
    }

    /// For kubectl.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its machines.
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MemoryCluster {
    fn drop(&mut self) {
        self.life.abort();
    }
}
