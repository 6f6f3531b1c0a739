//! What every scenario stands on: a real cluster with the operator on it, and its scene.

use std::ops::Deref;

use reboot_tests::{
    real::{Install, RealCluster, RealNode, RealOptions},
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
        let web = Workload::new("web", 6);
        Self::sabotaged(options, quota, &Install::with_quota(quota), &web).await
    }

    /// The operator is installed like this, while the referee judges by this quota.
    pub(crate) async fn sabotaged(options: &RealOptions, quota: usize, install: &Install, pods: &Workload) -> Self {
        let dir = Scratch::new("real").unwrap();
        let cluster = RealCluster::start(dir.path(), options).await.unwrap();
        pods.deploy(&cluster.client()).await.unwrap();
        cluster.install(install).await.unwrap();
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
