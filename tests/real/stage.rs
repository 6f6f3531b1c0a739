//! What every scenario stands on: a real cluster with the operator on it, and its scene.

use std::ops::Deref;

use reboot_tests::{
    real::{RealCluster, RealNode, RealOptions},
    referee::{Expect, Referee, Verdict},
    scene::Scene,
    scratch::Scratch,
    workload::Workload,
};

/// The version that `update_engine` announces.
pub(crate) const UPDATE: &str = "4100.0.0";

/// A running cluster with the operator installed by its manifests, and its referee.
pub(crate) struct Stage {
    pub(crate) cluster: RealCluster,
    scene: Scene,
    _dir: Scratch,
}

impl Stage {
    /// Five nodes with a few pods under a PDB.
    pub(crate) async fn set(quota: usize) -> Self {
        Self::with(&RealOptions::default(), quota).await
    }

    pub(crate) async fn with(options: &RealOptions, quota: usize) -> Self {
        let dir = Scratch::new("real").unwrap();
        let cluster = RealCluster::start(dir.path(), options).await.unwrap();
        Workload::new("web", 6).deploy(&cluster.client()).await.unwrap();
        cluster.install(&quota.to_string()).await.unwrap();
        let referee = Referee::start(cluster.control_plane(), quota).await.unwrap();
        let scene = Scene::new(cluster.client(), referee);
        Self { cluster, scene, _dir: dir }
    }

    pub(crate) fn node(&self, name: &str) -> &RealNode {
        self.cluster.node(name).unwrap()
    }

    /// The end of a sound scenario: the expected state is reached, no slot is left, and no rule was broken.
    pub(crate) async fn ends(self, expect: &Expect) -> Verdict {
        let verdict = self.scene.verdict(expect).await;
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
