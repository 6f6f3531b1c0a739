//! The referee on a real API server, with the test in the operator's place.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use reboot_tests::{
    referee::{Declaration, Expect, Referee},
    scratch::Scratch,
    sim::{Machine, SimCluster, SimOptions},
    workload::{self, Workload},
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Four nodes with a Deployment of eight pods under a PDB, and a `DaemonSet`.
async fn cluster(dir: &Scratch) -> SimCluster {
    let cluster = SimCluster::start(dir.path(), SimOptions { nodes: 4, ..SimOptions::default() }).await.unwrap();
    workload::daemon_set(&cluster.client(), "everywhere").await.unwrap();
    Workload::new("web", 8).deploy(&cluster.client()).await.unwrap();
    cluster
}

async fn cordon(client: &Client, node: &str, cordoned: bool) {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    nodes.patch(node, &PatchParams::default(), &patch).await.unwrap();
}

/// Evicts the pods of `web` from a node, each when the PDB lets it go, and waits until they are gone.
async fn drain(client: &Client, node: &str) {
    let web = Workload::new("web", 8);
    loop {
        let pods = workload::pods_on(client, node).await.unwrap();
        let mut names = pods.into_iter().filter_map(|pod| pod.metadata.name);
        let Some(name) = names.find(|name| name.starts_with("web-")) else { return };
        match workload::evict(client, &name).await {
            Err(kube::Error::Api(status)) if status.code == 429 => web.undisrupted(client).await.unwrap(),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => other.unwrap(),
        }
    }
}

async fn properly_rebooted(client: &Client, machine: &Machine) {
    let name = machine.node().name();
    cordon(client, name, true).await;
    drain(client, name).await;
    machine.power_cycle().await.unwrap();
    cordon(client, name, false).await;
}

#[tokio::test]
async fn the_referee_lets_a_proper_run_pass_and_sees_every_reboot() {
    let dir = Scratch::new("judge").unwrap();
    let cluster = cluster(&dir).await;
    let client = cluster.client();
    let referee = Referee::start(cluster.control_plane(), 1).await.unwrap();
    referee.declare(Declaration::ForeignCordon("node-4".to_owned())).await.unwrap();
    cordon(&client, "node-4", true).await;
    for machine in &cluster.machines()[..3] {
        properly_rebooted(&client, machine).await;
    }
    referee.declare(Declaration::ForeignCordonEnds("node-4".to_owned())).await.unwrap();
    cordon(&client, "node-4", false).await;
    let expect = Expect::rebooted_once(["node-1", "node-2", "node-3"]);
    referee.settled(&expect, LIMIT).await.unwrap();
    let verdict = referee.finish(&expect).await.unwrap();
    assert_eq!(verdict.violations, [""; 0], "{:#?}", verdict.timeline);
    assert_eq!(verdict.reboots.values().copied().collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[tokio::test]
async fn the_referee_catches_what_a_careless_operator_does() {
    let dir = Scratch::new("judge").unwrap();
    let cluster = cluster(&dir).await;
    let client = cluster.client();
    let referee = Referee::start(cluster.control_plane(), 1).await.unwrap();
    // No drain, no cordon, two at once, a person's cordon removed, and pods deleted without asking the PDB.
    cordon(&client, "node-1", true).await;
    cluster.machines()[0].power_cycle().await.unwrap();
    cluster.machines()[1].power_cycle().await.unwrap();
    referee.declare(Declaration::ForeignCordon("node-3".to_owned())).await.unwrap();
    cordon(&client, "node-3", true).await;
    cordon(&client, "node-3", false).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), "default");
    let everything = kube::api::ListParams::default().labels("app=web");
    pods.delete_collection(&kube::api::DeleteParams::default(), &everything).await.unwrap();

    let verdict = referee.finish(&Expect::rebooted_once(["node-1"])).await.unwrap();
    for words in [
        "node-1 was rebooted with pods on it: default/web-",
        "node-2 was rebooted without being cordoned",
        "node-2 is one too many for a quota of 1: node-1, node-2",
        "node-3 was uncordoned, but a person had cordoned it",
        "was taken from the PDB web",
        "node-1: still cordoned",
        "node-2: rebooted 1 times, expected 0",
    ] {
        assert!(verdict.violations.iter().any(|text| text.contains(words)), "{words}: {:#?}", verdict.violations);
    }
}

#[tokio::test]
async fn the_referee_goes_on_after_the_api_server_and_etcd_were_killed() {
    let dir = Scratch::new("judge").unwrap();
    let cluster = SimCluster::start(dir.path(), SimOptions { nodes: 1, ..SimOptions::default() }).await.unwrap();
    let client = cluster.client();
    let referee = Referee::start(cluster.control_plane(), 1).await.unwrap();
    cordon(&client, "node-1", true).await;
    cluster.control_plane().kill_apiserver().unwrap();
    cluster.control_plane().restart_apiserver().await.unwrap();
    cluster.machines()[0].power_cycle().await.unwrap();
    cluster.control_plane().kill_etcd().unwrap();
    cluster.control_plane().restart_etcd().await.unwrap();
    cordon(&client, "node-1", false).await;
    let expect = Expect::rebooted_once(["node-1"]);
    referee.settled(&expect, LIMIT).await.unwrap();
    let verdict = referee.finish(&expect).await.unwrap();
    assert_eq!(verdict.violations, [""; 0], "{:#?}", verdict.timeline);
}
