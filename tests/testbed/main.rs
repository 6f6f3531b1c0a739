//! The testbed keeps its own promises: what the end-to-end tests stand on is tested here, without the operator.
//!
//! Needs the control plane's programs (`make control-plane`), nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reboot_tests::{
    control_plane::{ControlPlane, Options},
    nodes::{Farewell, SimNode, start_kwok},
    process::Process,
    referee::{Declaration, Expect, Referee},
    workload::{self, Workload},
};

/// A control plane with simulated nodes and nothing else.
struct Cluster {
    control_plane: ControlPlane,
    nodes: Vec<SimNode>,
    _kwok: Process,
    dir: Scratch,
}

/// A folder that goes when the test passed; after a failure it stays, for its logs.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("testbed-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs are in {}", self.0.display());
        } else {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

async fn cluster(name: &str, nodes: usize) -> Cluster {
    let dir = Scratch::new(name);
    let begin = Instant::now();
    let control_plane = ControlPlane::start(&dir.path().join("cp"), Options::default()).await.unwrap();
    eprintln!("control plane: {:?}", begin.elapsed());
    let kwok = start_kwok(&control_plane, dir.path()).unwrap();
    let kubelet = control_plane.client_as("kubelet").await.unwrap();
    let mut all = Vec::new();
    for index in 1..=nodes {
        let name = format!("node-{index}");
        all.push(SimNode::create(kubelet.clone(), &dir.path().join(&name), &name, &[]).await.unwrap());
    }
    eprintln!("{nodes} nodes: {:?}; memory: {:?}", begin.elapsed(), control_plane.memory());
    Cluster { control_plane, nodes: all, _kwok: kwok, dir }
}

#[tokio::test]
async fn pods_become_ready_and_a_pdb_refuses_the_second_eviction() {
    let cluster = cluster("pdb", 3).await;
    let client = cluster.control_plane.client();
    let begin = Instant::now();
    let web = Workload::new("web", 3).annotated("testbed/ready-after", "2s").annotated("testbed/termination", "1s");
    web.deploy(&client).await.unwrap();
    eprintln!("3 pods and a PDB: {:?}", begin.elapsed());
    let begin = Instant::now();
    workload::daemon_set(&client, "everywhere").await.unwrap();
    eprintln!("a DaemonSet: {:?}", begin.elapsed());
    let pods = web.pods(&client).await.unwrap();
    let name = |index: usize| pods[index].metadata.name.clone().unwrap();
    workload::evict(&client, &name(0)).await.unwrap();
    let refused = workload::evict(&client, &name(1)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 429);
    let begin = Instant::now();
    web.undisrupted(&client).await.unwrap();
    eprintln!("a replacement: {:?}", begin.elapsed());
    let _ = (Duration::ZERO, Farewell::Silent, Expect::default(), &cluster.nodes, &cluster.dir);
    let _ = |r: Referee| async move { r.declare(Declaration::Quota(1)).await };
}
