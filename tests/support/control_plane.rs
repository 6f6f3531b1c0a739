//! A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, as an ordinary
//! user, each on ports of its own, gone with its handle.
//!
//! RBAC is on and every request is in the audit log, so that tests can prove who did what. The controller-manager runs
//! the controllers that a reboot meets and no others: those behind workloads and PDBs, and node-lifecycle, which taints
//! nodes that are cordoned or not Ready (a second writer on every Node, as in a real cluster). Its grace period is a day
//! unless there are kubelets: whether a node is Ready is for the simulated node to say.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{GetParams, PostParams},
};

use crate::{
    call::{until, within},
    process::Process,
};

pub mod audit;
mod binaries;
mod credentials;
mod flags;
mod outages;

pub use binaries::binary;
use credentials::Credentials;
pub use credentials::client_from;
use flags::{apiserver_args, controller_manager_args, etcd_args, etcd_url, flag};
use outages::lock;

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Further flags for kube-apiserver.
    pub apiserver_args: Vec<String>,
    /// Which controllers run beside the API server.
    pub controllers: Controllers,
    /// For real kubelets; without it the API server is on loopback alone.
    pub kubelets: Option<Kubelets>,
}

/// The controllers that run beside the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controllers {
    /// There are only objects, which benchmarks like.
    None,
    /// Only the one that keeps the status of `PodDisruptionBudgets`.
    Budgets,
    /// Those that a reboot meets, and kube-scheduler.
    All,
}

/// What real kubelets need of a control plane.
#[derive(Clone, Debug)]
pub struct Kubelets {
    /// An address of this machine where nodes reach the API server.
    pub address: Ipv4Addr,
    /// The names of their nodes: each gets a user of its own, `system:node:NAME` in the group `system:nodes`.
    pub nodes: Vec<String>,
    /// After how long without a word from kubelet its node is no longer Ready (Unknown).
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { apiserver_args: Vec::new(), controllers: Controllers::All, kubelets: None }
    }
}

/// A running control plane; dropping it kills its processes and leaves its files.
pub struct ControlPlane {
    dir: PathBuf,
    etcd_port: u16,
    credentials: Credentials,
    client: Client,
    etcd: Mutex<Process>,
    apiserver: Mutex<Process>,
    apiserver_args: Mutex<Vec<String>>,
    rest: Vec<Process>,
}

/// The controllers of kube-controller-manager that run here.
const CONTROLLERS: &str = "daemonset-controller,deployment-controller,disruption-controller,\
    garbage-collector-controller,job-controller,namespace-controller,node-lifecycle-controller,replicaset-controller,\
    root-ca-certificate-publisher-controller,serviceaccount-controller,statefulset-controller";
const BUDGETS: &str = "disruption-controller";
/// An idle machine needs 4 s; a test machine runs other tests as well.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Another process can take a free port before the server that it was looked up for does.
const PORT_ATTEMPTS: u32 = 5;
const CALL: Duration = Duration::from_secs(10);

impl ControlPlane {
    /// Starts everything and waits until the API server is ready and pods can be created.
    ///
    /// `dir` receives the data, logs, keys and kubeconfig files; what an earlier control plane left there is removed.
    ///
    /// # Errors
    /// When a program is missing, ends early (the error quotes its log) or is not ready within 90 s.
    pub async fn start(dir: &Path, options: Options) -> Result<Self> {
        for _ in 0..PORT_ATTEMPTS {
            if let Some(started) = Self::attempt(dir, &options).await? {
                return Ok(started);
            }
        }
        bail!("another process took the port {PORT_ATTEMPTS} times in a row");
    }

    /// A client of the administrator (`system:masters`). It does not retry: a 429 is an answer.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client of another static user (also in `system:masters`): its requests can be told apart in the audit log.
    ///
    /// # Errors
    /// For a name that is not one of `admin`, `kubectl`, `kubelet`, `kwok`.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        client_from(&self.kubeconfig_of(user)?).await
    }

    /// The URL of etcd, which keeps every object as JSON and all of its history.
    pub fn etcd_url(&self) -> String {
        etcd_url(self.etcd_port)
    }

    /// The port of the API server.
    pub fn port(&self) -> u16 {
        self.credentials.port()
    }

    /// The certificate that the API server shows, which vouches for itself.
    pub fn ca(&self) -> PathBuf {
        self.credentials.ca()
    }

    /// The token of a node's own user; see [`Kubelets`].
    ///
    /// # Errors
    /// For a node that was not named at the start.
    pub fn node_token(&self, node: &str) -> Result<String> {
        self.credentials.token(&credentials::node_user(node))
    }

    /// The administrator's token.
    ///
    /// # Errors
    /// Never, once the control plane runs.
    pub fn admin_token(&self) -> Result<String> {
        self.credentials.token("admin")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.credentials.kubeconfig_path("admin")
    }

    /// The kubeconfig of a static user; see [`ControlPlane::client_as`].
    pub fn kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        let path = self.credentials.kubeconfig_path(user);
        anyhow::ensure!(path.is_file(), "{user} is not a user of the control plane");
        Ok(path)
    }

    /// Writes a kubeconfig for a token (of a `ServiceAccount`, usually); `name` becomes part of the file's name.
    pub fn kubeconfig_for_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.credentials.write_kubeconfig(name, token)
    }

    /// A token of a `ServiceAccount`, valid for an hour; bound to a pod of its namespace, it names the pod's node too.
    ///
    /// # Errors
    /// When the account or the pod does not exist.
    pub async fn token_for(&self, account: &str, namespace: &str, pod: Option<&str>) -> Result<String> {
        let bound_object_ref = match pod {
            None => None,
            Some(name) => {
                let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
                let uid = within(CALL, "reading the pod", pods.get(name)).await?.metadata.uid;
                let (api_version, kind) = (Some("v1".to_owned()), Some("Pod".to_owned()));
                Some(BoundObjectReference { api_version, kind, name: Some(name.to_owned()), uid })
            }
        };
        let spec = TokenRequestSpec { bound_object_ref, expiration_seconds: Some(3600), ..Default::default() };
        let request = TokenRequest { spec, ..Default::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let parameters = PostParams::default();
        let call = accounts.create_token_request(account, &parameters, &request);
        let answer = within(CALL, "requesting a token", call).await?;
        Ok(answer.status.context("the token request has no status")?.token)
    }

    /// The addresses from which requests came that were answered 401, one for each request.
    pub fn unauthenticated(&self) -> Result<Vec<String>> {
        audit::unauthenticated(&self.dir.join("log/audit.log"))
    }

    /// Every request so far, as the API server logged it.
    pub fn audit(&self) -> Result<Vec<audit::Request>> {
        audit::read(&self.dir.join("log/audit.log"))
    }

    /// Resident memory of each process, in bytes.
    pub fn memory(&self) -> Vec<(String, u64)> {
        let (apiserver, etcd) = (lock(&self.apiserver), lock(&self.etcd));
        let all = [&*apiserver, &*etcd].into_iter().chain(&self.rest);
        all.map(|process| (process.name().to_owned(), process.rss().unwrap_or_default())).collect()
    }

    /// `None` when another process took one of the ports.
    async fn attempt(dir: &Path, options: &Options) -> Result<Option<Self>> {
        lay_out(dir)?;
        let (etcd_port, port) = two_free_ports()?;
        let nodes = options.kubelets.iter().flat_map(|kubelets| &kubelets.nodes);
        let credentials = Credentials::create(dir, port, nodes)?;
        let mut etcd = spawn(dir, "etcd", &etcd_args(dir, etcd_port))?;
        let apiserver_args = apiserver_args(dir, etcd_port, port, options);
        let mut apiserver = spawn(dir, "kube-apiserver", &apiserver_args)?;
        let ca = credentials.ca();
        let first_sign = first_sign(&mut etcd, &mut apiserver, &ca);
        if !within(START_LIMIT, "waiting for the API server's certificate", first_sign).await? {
            return Ok(None);
        }
        let client = client_from(&credentials.kubeconfig_path("admin")).await?;
        let (etcd, apiserver) = (Mutex::new(etcd), Mutex::new(apiserver));
        let (dir, apiserver_args) = (dir.to_owned(), Mutex::new(apiserver_args));
        let mut this = Self { dir, etcd_port, credentials, client, etcd, apiserver, apiserver_args, rest: Vec::new() };
        match within(START_LIMIT, "waiting for the API server", this.ready()).await {
            Err(_) if this.port_taken() => return Ok(None),
            other => other?,
        }
        match options.controllers {
            Controllers::None => {}
            Controllers::Budgets => this.start_controller_manager(BUDGETS, options.kubelets.as_ref())?,
            Controllers::All => this.start_controllers(options.kubelets.as_ref()).await?,
        }
        Ok(Some(this))
    }

    async fn start_controllers(&mut self, kubelets: Option<&Kubelets>) -> Result<()> {
        self.start_controller_manager(CONTROLLERS, kubelets)?;
        self.start_client("kube-scheduler", "system:kube-scheduler", Vec::new())?;
        // Before its namespace has this account, the API server refuses every pod.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
        let exists = |account: Option<&ServiceAccount>| account.is_some();
        until(START_LIMIT, "waiting for the default service account", accounts, "default", exists).await.map(drop)
    }

    fn start_controller_manager(&mut self, controllers: &str, kubelets: Option<&Kubelets>) -> Result<()> {
        let args = controller_manager_args(&self.dir, controllers, kubelets);
        self.start_client("kube-controller-manager", "system:kube-controller-manager", args)
    }

    fn start_client(&mut self, program: &str, user: &str, extra: Vec<String>) -> Result<()> {
        let kubeconfig = self.kubeconfig_of(user)?;
        let mut args = vec![flag("kubeconfig", kubeconfig.display())];
        args.extend(["leader-elect=false", "secure-port=0"].map(|text| format!("--{text}")));
        args.extend(["kube-api-qps=500", "kube-api-burst=1000"].map(|text| format!("--{text}")));
        args.extend(extra);
        self.rest.push(spawn(&self.dir, program, &args)?);
        Ok(())
    }

    /// Returns once `/readyz` says yes. Polled: there is nothing to watch yet.
    async fn ready(&self) -> Result<()> {
        loop {
            for process in [&self.etcd, &self.apiserver] {
                let mut process = lock(process);
                if let Some(status) = process.ended()? {
                    bail!("{} ended ({status}):\n{}", process.name(), process.log_tail(5));
                }
            }
            let request = kube::core::Request::new("").get("readyz", &GetParams::default())?;
            let call = self.client.request_text(request);
            if matches!(tokio::time::timeout(Duration::from_secs(2), call).await, Ok(Ok(_))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn port_taken(&self) -> bool {
        [&self.etcd, &self.apiserver].into_iter().any(|process| lost_its_port(&lock(process)))
    }
}

/// Waits until the API server wrote its certificate (`true`) or a process lost its port (`false`).
async fn first_sign(etcd: &mut Process, apiserver: &mut Process, ca: &Path) -> Result<bool> {
    loop {
        for process in [&mut *etcd, &mut *apiserver] {
            match process.ended()? {
                Some(_) if lost_its_port(process) => return Ok(false),
                Some(status) => bail!("{} ended ({status}):\n{}", process.name(), process.log_tail(5)),
                None => {}
            }
        }
        // It writes the key after the certificate: when there is a key, the certificate is complete.
        if ca.with_extension("key").is_file() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lost_its_port(process: &Process) -> bool {
    process.log_tail(20).contains("address already in use")
}

/// Both are held until both are known, so that they differ.
fn two_free_ports() -> Result<(u16, u16)> {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port");
    let (one, other) = (bind()?, bind()?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

fn lay_out(dir: &Path) -> Result<()> {
    for folder in ["etcd", "pki", "log", "kubeconfig"] {
        let folder = dir.join(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let policy = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],
        "rules":[{"level":"Metadata"}]}"#;
    std::fs::write(dir.join("audit-policy.json"), policy).context("writing the audit policy")
}

fn spawn(dir: &Path, program: &str, args: &[String]) -> Result<Process> {
    let mut command = Command::new(binary(program)?);
    command.args(args).current_dir(dir);
    Process::spawn(program, command, &dir.join(format!("log/{program}.log")))
}
