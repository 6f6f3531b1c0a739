//! What every scenario stands on: a real cluster with the operator on it, and its scene.

use std::ops::Deref;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use reboot_tests::{
    proxy::Proxy,
    real::{Install, RealCluster, RealNode, RealOptions},
    referee::{Expect, Referee, Verdict},
    scene::{NAMESPACE, Scene},
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
        Self::installed(options, quota, &Install::with_quota(quota), &web).await
    }

    /// The operator is installed like this, while the referee judges by this quota.
    pub(crate) async fn installed(options: &RealOptions, quota: usize, install: &Install, pods: &Workload) -> Self {
        let (dir, cluster) = prepared(options, pods).await;
        Self::opened(dir, cluster, quota, install).await
    }

    /// All of the operator reaches the API server through a proxy.
    pub(crate) async fn behind_proxy(options: &RealOptions, quota: usize) -> (Self, Proxy) {
        let (dir, cluster) = prepared(options, &Workload::new("web", 6)).await;
        let proxy = cluster.start_proxy().await.unwrap();
        let install = Install { server: Some(proxy.url()), ..Install::with_quota(quota) };
        (Self::opened(dir, cluster, quota, &install).await, proxy)
    }

    async fn opened(dir: Scratch, cluster: RealCluster, quota: usize, install: &Install) -> Self {
        cluster.install(install).await.unwrap();
        let referee = Referee::start(cluster.control_plane(), quota).await.unwrap();
        let scene = Scene::new(cluster.client(), referee);
        Self { cluster, scene, _dir: dir }
    }

    pub(crate) fn node(&self, name: &str) -> &RealNode {
        self.cluster.node(name).unwrap()
    }

    /// The process that leads, and where it is.
    pub(crate) async fn leader(&self) -> Leader {
        let identity = self.until_led(None).await;
        // The name of its pod, and something random.
        let (pod, _) = identity.rsplit_once('_').unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client(), NAMESPACE);
        let node = pods.get(pod).await.unwrap().spec.unwrap().node_name.unwrap();
        Leader { identity, node }
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

/// A controller that holds the Lease.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) identity: String,
    pub(crate) node: String,
}

/// A cluster with these pods, without the operator.
async fn prepared(options: &RealOptions, pods: &Workload) -> (Scratch, RealCluster) {
    let dir = Scratch::new("real").unwrap();
    let cluster = RealCluster::start(dir.path(), options).await.unwrap();
    pods.deploy(&cluster.client()).await.unwrap();
    (dir, cluster)
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}
