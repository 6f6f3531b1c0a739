//! A simulated cluster with the operator installed and running, and its referee.

use std::{ops::Deref, path::Path, time::Duration};

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
pub(crate) use reboot_tests::scene::LIMIT;
use reboot_tests::{
    call::until,
    claims::hold,
    control_plane::audit::Request,
    process::Process,
    referee::{Expect, Referee, Verdict},
    scene::{NAMESPACE, Scene},
    scratch::Scratch,
    sim::{SimCluster, SimOptions},
};

use crate::site::Site;

/// The operator's accounts, in the words of the audit log.
const ACCOUNTS: &str = "system:serviceaccount:reboot-operator:";
/// The longest that one claim may take: longer than any one wait in it, which says more when it fails.
const CLAIM_LIMIT: Duration = Duration::from_mins(6);

/// A claim: what is done to a node and what must come of it. Returns how often the node has rebooted in the end.
pub(crate) type Claim = for<'a> fn(Site<'a>) -> LocalBoxFuture<'a, usize>;

/// Claims by their names, for [`Stage::hold`].
macro_rules! claims {
    ($($claim:ident),+ $(,)?) => {{
        let claims: Vec<(&'static str, $crate::stage::Claim)> =
            vec![$((stringify!($claim), |site| Box::pin($claim(site)))),+];
        claims
    }};
}
pub(crate) use claims;

/// A running cluster.
pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    scene: Scene,
    _controller: Process,
    _dir: Scratch,
}

impl Stage {
    /// A cluster in which so many nodes may be rebooted at a time. No agent runs yet.
    pub(crate) async fn set(nodes: usize, quota: usize) -> Self {
        let dir = Scratch::new("drain").unwrap();
        let options = SimOptions { nodes, ..SimOptions::default() };
        let mut cluster = SimCluster::start(dir.path(), options).await.unwrap();
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        cluster.install(&manifests).await.unwrap();
        let referee = Referee::start(cluster.control_plane(), quota).await.unwrap();
        let controller = cluster.spawn_controller("controller", &[&format!("--max-unavailable={quota}")]).unwrap();
        // The controller works from here on.
        let ledgers: Api<ConfigMap> = Api::namespaced(cluster.client(), NAMESPACE);
        let complete = |map: Option<&ConfigMap>| map.is_some_and(|map| map.data.is_some());
        until(LIMIT, "the ledger", ledgers, "reboot-slots", complete).await.unwrap();
        let scene = Scene::new(cluster.client(), referee);
        Self { cluster, scene, _controller: controller, _dir: dir }
    }

    /// Puts every claim to the test, each on a node of its own, beside one node that nobody drains.
    pub(crate) async fn hold(claims: Vec<(&'static str, Claim)>) {
        let stage = Self::set(claims.len() + 1, claims.len()).await;
        for number in 1..=claims.len() {
            stage.site(number).make_namespace().await;
        }
        stage.cluster.start_agents(&[]).unwrap();
        let held = claims.iter().enumerate().map(|(index, (name, claim))| (*name, claim(stage.site(index + 1))));
        let outcomes = hold(CLAIM_LIMIT, held.collect()).await;
        let mut expect = Expect::default();
        for (machine, reboots) in stage.cluster.machines().iter().zip(outcomes) {
            expect = expect.rebooted(machine.node().name(), reboots);
        }
        stage.ends(&expect).await;
    }

    /// A node, by its number: 1 is `node-1`.
    pub(crate) fn site(&self, number: usize) -> Site<'_> {
        Site { stage: self, machine: &self.cluster.machines()[number - 1] }
    }

    /// The name of the node that nobody drains, in [`Stage::hold`].
    pub(crate) fn spare(&self) -> &str {
        self.cluster.machines().last().unwrap().node().name()
    }

    /// The requests of the operator since then, but for the renewals of the Lease.
    pub(crate) fn requests(&self, then: Timestamp) -> Vec<Request> {
        let mut requests = self.cluster.control_plane().audit().unwrap();
        let counts = |request: &Request| {
            request.user.starts_with(ACCOUNTS) && request.at >= then && request.resource != "leases"
        };
        requests.retain(counts);
        requests
    }

    /// The end of a sound scenario: the expected state is reached, no slot is left, no rule was broken, no agent died.
    pub(crate) async fn ends(self, expect: &Expect) -> Verdict {
        let verdict = self.scene.verdict(expect).await;
        for machine in self.cluster.machines() {
            assert_eq!(machine.agent_ended().unwrap(), None, "the agent of {}", machine.node().name());
        }
        assert_eq!(self.cluster.failures(), [""; 0]);
        verdict
    }
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}
