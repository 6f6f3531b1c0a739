//! Where claims are put to the test: a cluster with the operator installed under its own accounts, and a referee.
//!
//! Claims that leave each other alone share a cluster: each has a node of its own, and all run at the same time.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, Client, api::DeleteParams};
use reboot_tests::{
    call::until,
    claims::hold,
    control_plane::audit::Request,
    process::Process,
    referee::{Declaration, Expect, Referee, Verdict},
    scratch::Scratch,
    sim::{SimCluster, SimOptions},
};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::site::Site;

/// The longest wait for one thing: an idle machine needs seconds, a busy one may need much longer.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
/// The longest that one claim may take: some wait for the operator's own patience of a minute. Longer than any one
/// wait in it, which says more when it fails.
const CLAIM_LIMIT: Duration = Duration::from_mins(6);
/// Where the operator's own objects are.
pub(crate) const NAMESPACE: &str = "reboot-operator";
/// The accounts of the operator, in the words of the audit log.
const ACCOUNTS: &str = "system:serviceaccount:reboot-operator:";

/// Each world has a control plane of its own, which keeps a core busy while it starts.
static WORLDS: Semaphore = Semaphore::const_new(2);

/// A claim: what is done to a node and what must come of it. Returns how often the node has rebooted in the end.
pub(crate) type Claim = for<'a> fn(Site<'a>) -> LocalBoxFuture<'a, usize>;

/// Claims by their names, for [`World::hold`].
macro_rules! claims {
    ($($claim:ident),+ $(,)?) => {{
        let claims: Vec<(&'static str, $crate::world::Claim)> =
            vec![$((stringify!($claim), |site| Box::pin($claim(site)))),+];
        claims
    }};
}
pub(crate) use claims;

/// A running cluster with its operator, and the referee.
pub(crate) struct World {
    pub(crate) cluster: SimCluster,
    pub(crate) referee: Referee,
    controller: Mutex<Option<Process>>,
    quota: String,
    /// An API server that has just started refuses what it does not know yet to be allowed.
    restarted: AtomicBool,
    dir: Scratch,
    _permit: SemaphorePermit<'static>,
}

impl World {
    /// A cluster with the operator installed and not yet running.
    pub(crate) async fn create(nodes: usize, quota: usize) -> Self {
        let permit = WORLDS.acquire().await.unwrap();
        let dir = Scratch::new("trouble").unwrap();
        let options = SimOptions { nodes, ..SimOptions::default() };
        let mut cluster = SimCluster::start(dir.path(), options).await.unwrap();
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        cluster.install(&manifests).await.unwrap();
        let referee = Referee::start(cluster.control_plane(), quota).await.unwrap();
        let quota = format!("--max-unavailable={quota}");
        Self {
            cluster,
            referee,
            controller: Mutex::new(None),
            quota,
            restarted: AtomicBool::new(false),
            dir,
            _permit: permit,
        }
    }

    /// A cluster with the operator running.
    pub(crate) async fn start(nodes: usize, quota: usize) -> Self {
        let world = Self::create(nodes, quota).await;
        world.start_controller(&[]);
        world.cluster.start_agents(&[]).unwrap();
        world
    }

    /// Starts the controller, in place of the one that runs, if there is one (that one is killed).
    pub(crate) fn start_controller(&self, args: &[&str]) {
        self.kill_controller();
        let args: Vec<&str> = [self.quota.as_str()].into_iter().chain(args.iter().copied()).collect();
        let controller = self.cluster.spawn_controller("controller", &args).unwrap();
        *self.controller.lock().unwrap_or_else(PoisonError::into_inner) = Some(controller);
    }

    pub(crate) fn kill_controller(&self) {
        drop(self.controller.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// While this is done the controller, if it runs, stands still.
    pub(crate) async fn behind_its_back(&self, done: impl Future<Output = ()>) {
        let mut controller = self.controller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(controller) = &mut controller {
            controller.pause().unwrap();
        }
        done.await;
        if let Some(controller) = &mut controller {
            controller.resume().unwrap();
        }
        *self.controller.lock().unwrap_or_else(PoisonError::into_inner) = controller;
    }

    /// Kills the API server and starts it again.
    pub(crate) async fn restart_apiserver(&self) {
        self.restarted.store(true, Ordering::Relaxed);
        self.cluster.control_plane().restart_apiserver().await.unwrap();
    }

    /// Removes the Lease of a controller that was killed, so that the next one need not wait it out.
    pub(crate) async fn forget_leader(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        leases.delete("reboot-controller", &DeleteParams::default()).await.unwrap();
    }

    /// What all controllers wrote, one after the other.
    pub(crate) fn controller_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("controller.log")).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    /// A node, by its number: 1 is `node-1`.
    pub(crate) fn site(&self, number: usize) -> Site<'_> {
        Site { world: self, machine: &self.cluster.machines()[number - 1] }
    }

    /// Runs kubectl as the administrator.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.cluster.control_plane().kubeconfig()).args(args).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts every claim to the test, each on a node of its own, and ends the world.
    pub(crate) async fn hold(self, claims: Vec<(&'static str, Claim)>) {
        assert_eq!(self.cluster.machines().len(), claims.len(), "one node for each claim");
        let held = claims.iter().enumerate().map(|(index, (name, claim))| (*name, claim(self.site(index + 1))));
        let outcomes = hold(CLAIM_LIMIT, held.collect()).await;
        let mut expect = Expect::default();
        for (machine, reboots) in self.cluster.machines().iter().zip(outcomes) {
            expect = expect.rebooted(machine.node().name(), reboots);
        }
        self.ends(&expect).await;
    }

    pub(crate) async fn declare(&self, declaration: Declaration) {
        self.referee.declare(declaration).await.unwrap();
    }

    /// Waits until the slots are held by exactly these nodes.
    pub(crate) async fn until_slots(&self, nodes: &[&str]) {
        let wanted: BTreeSet<&str> = nodes.iter().copied().collect();
        self.until_ledger(&format!("the slots {nodes:?}"), |ledger| {
            let slots = ledger["slots"].as_array().into_iter().flatten();
            ledger["protocol"] == 1 && slots.filter_map(|slot| slot["node"].as_str()).collect::<BTreeSet<_>>() == wanted
        })
        .await;
    }

    /// Waits until the ledger is like that; one that is missing or no JSON is null. Returns its object.
    pub(crate) async fn until_ledger(&self, what: &str, holds: impl Fn(&Value) -> bool) -> ConfigMap {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), NAMESPACE);
        let holds = |map: Option<&ConfigMap>| map.is_some_and(|map| holds(&ledger(map)));
        until(LIMIT, what, maps, "reboot-slots", holds).await.unwrap().unwrap()
    }

    /// The requests of the operator that the API server has received since then, but for the renewals of the Lease.
    pub(crate) fn requests_since(&self, then: Timestamp) -> Vec<Request> {
        let mut requests = self.cluster.control_plane().audit().unwrap();
        let counts = |request: &Request| {
            request.user.starts_with(ACCOUNTS) && request.at >= then && request.resource != "leases"
        };
        requests.retain(counts);
        requests
    }

    /// The end of a sound world: the expected state is reached, no slot is left, no rule was broken, nobody died or
    /// asked for what it has no right to, and the logs are short enough to be read.
    pub(crate) async fn ends(self, expect: &Expect) -> Verdict {
        if let Err(error) = self.referee.settled(expect, LIMIT).await {
            panic!("{error:#}\n{}", story(&self.referee.so_far().await.unwrap()));
        }
        self.until_slots(&[]).await;
        for machine in self.cluster.machines() {
            assert_eq!(machine.agent_ended().unwrap(), None, "the agent of {}", machine.node().name());
            is_short(machine.agent_log(), 0);
        }
        is_short(&self.dir.path().join("controller.log"), self.cluster.machines().len());
        let forbidden = |request: &Request| request.code == 403;
        let forbidden: Vec<_> = self.requests_since(Timestamp::MIN).into_iter().filter(forbidden).collect();
        assert!(forbidden.is_empty() || self.restarted.load(Ordering::Relaxed), "{forbidden:?}");
        assert_eq!(self.cluster.failures(), [""; 0]);
        let verdict = self.referee.finish(expect).await.unwrap();
        assert_eq!(verdict.violations, [""; 0], "{}", story(&verdict));
        verdict
    }
}

/// So many lines one node may be worth to a process in one world.
const LINES: usize = 200;

fn is_short(log: &Path, nodes: usize) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().count();
    // The controller says a few things about each node.
    let allowed = LINES + nodes * LINES / 10;
    assert!(lines < allowed, "{} has {lines} lines", log.display());
    assert!(!text.contains("panicked"), "{}", log.display());
}

/// The ledger in its object; null where there is none.
pub(crate) fn ledger(map: &ConfigMap) -> Value {
    let text = map.data.as_ref().and_then(|data| data.get("ledger"));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What happened, for whoever looks into a failure.
fn story(verdict: &Verdict) -> String {
    verdict.timeline.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
