//! An update on all nodes at once.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use reboot_tests::{
    referee::Expect,
    workload::{self, Workload},
};

use crate::stage::{Stage, UPDATE, grants, last_reboot, most_at_once};

#[tokio::test]
async fn an_update_reboots_every_node_once_one_at_a_time() {
    check(1).await;
}

#[tokio::test]
async fn a_quota_of_two_is_used_and_kept() {
    check(2).await;
}

async fn check(quota: usize) {
    let web = Workload::new("web", 20);
    let stage = Stage::set(5, quota, std::slice::from_ref(&web)).await;
    workload::daemon_set(&stage.client(), "everywhere").await.unwrap();
    let client = stage.client();
    let stay = daemon_pods(&client).await;
    let nodes = stage.cluster.names();
    let _controller = stage.cluster.spawn_controller("controller", &[&format!("--max-unavailable={quota}")]).unwrap();
    stage.cluster.start_agents(&[]).unwrap();
    stage.cluster.announce_update(UPDATE).await.unwrap();

    for node in &nodes {
        let last = last_reboot(&stage.until_rebooted(node).await);
        assert_eq!((&last["osBefore"], &last["osAfter"]), (&"4081.2.0".into(), &UPDATE.into()), "{node}: {last}");
    }
    assert_eq!(daemon_pods(&client).await, stay, "the pods of a DaemonSet stay");
    let verdict = stage.ends(&Expect::rebooted_once(&nodes)).await;
    let mut granted = grants(&verdict);
    granted.sort_unstable();
    assert_eq!(granted, nodes, "every node is granted once");
    assert_eq!(most_at_once(&verdict), quota);
}

async fn daemon_pods(client: &Client) -> BTreeSet<Option<String>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pods = pods.list(&ListParams::default().labels("app=everywhere")).await.unwrap();
    pods.items.iter().map(ResourceExt::uid).collect()
}
