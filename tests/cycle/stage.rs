//! What every scenario stands on: a simulated cluster and its scene.

use std::{ops::Deref, path::Path};

use kube::{Api, api::PostParams};
pub(crate) use reboot_tests::scene::{LIMIT, NAMESPACE, grants, last_reboot, most_at_once, phase_of, queue, waiting};
use reboot_tests::{
    process::Process,
    referee::{Expect, Referee, Verdict},
    scene::Scene,
    scratch::Scratch,
    sim::{Machine, SimCluster, SimOptions},
    workload::Workload,
};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The version that `update_engine` announces.
pub(crate) const UPDATE: &str = "4100.0.0";

/// Each scenario has a control plane of its own, which keeps a core busy while it starts.
static STAGES: Semaphore = Semaphore::const_new(2);

/// A running cluster and its referee.
pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    scene: Scene,
    dir: Scratch,
    _permit: SemaphorePermit<'static>,
}

impl Stage {
    /// A cluster with these pods, and a referee for this quota. The operator is not there yet.
    pub(crate) async fn set(nodes: usize, quota: usize, workloads: &[Workload]) -> Self {
        let permit = STAGES.acquire().await.unwrap();
        let dir = Scratch::new("cycle").unwrap();
        let cluster = SimCluster::start(dir.path(), SimOptions { nodes, ..SimOptions::default() }).await.unwrap();
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.client());
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        for workload in workloads {
            workload.deploy(&cluster.client()).await.unwrap();
        }
        let referee = Referee::start(cluster.control_plane(), quota).await.unwrap();
        let scene = Scene::new(cluster.client(), referee);
        Self { cluster, scene, dir, _permit: permit }
    }

    /// Where the scenario's files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn machine(&self, node: &str) -> &Machine {
        self.cluster.machine(node).unwrap()
    }

    /// `update_engine` announces an update on this node.
    pub(crate) async fn update(&self, node: &str) {
        self.machine(node).announce_update(UPDATE).await.unwrap();
    }

    /// The end of a sound scenario: the expected state is reached, no slot is left, and no rule was broken.
    pub(crate) async fn ends(self, expect: &Expect) -> Verdict {
        let verdict = self.scene.verdict(expect).await;
        assert_eq!(self.cluster.failures(), [""; 0]);
        verdict
    }

    /// The end of a saboteur's scenario: the expected state is reached, and rules were broken in these words.
    pub(crate) async fn caught(self, expect: &Expect, words: &[&str]) {
        self.scene.caught(expect, words).await;
        assert_eq!(self.cluster.failures(), [""; 0]);
    }
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

/// Ends a controller as a crash does.
pub(crate) fn crash(mut controller: Process) {
    controller.kill().unwrap();
}
