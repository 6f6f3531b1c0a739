//! A node that does not play its part holds up nobody, as far as the quota allows.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use reboot_tests::{referee::Expect, sim::Reboots, workload::Workload};
use serde_json::{Value, json};

use crate::stage::{NAMESPACE, Stage, crash, grants, most_at_once, waiting};

#[tokio::test]
async fn a_node_without_an_agent_says_so_and_holds_up_nobody() {
    let stage = Stage::set(3, 1, &[Workload::new("web", 3)]).await;
    let _controller = stage.cluster.spawn_controller("controller", &[]).unwrap();
    for node in ["node-2", "node-3"] {
        stage.machine(node).start_agent(&[]).unwrap();
    }
    stage.annotate("node-1", "reboot-needed", Some("a new kernel")).await;
    stage.until_waiting("node-1", "NoAgent").await;
    for node in ["node-2", "node-3"] {
        stage.update(node).await;
    }
    for node in ["node-2", "node-3"] {
        stage.until_rebooted(node).await;
    }
    stage.until_waiting("node-1", "NoAgent").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-2", "node-3"])).await;
    assert!(!grants(&verdict).contains(&"node-1"));
}

#[tokio::test]
async fn a_node_that_never_returns_keeps_the_only_slot_and_is_named_until_its_node_is_deleted() {
    let stage = Stage::set(3, 1, &[Workload::new("web", 3)]).await;
    let controller = stage.cluster.spawn_controller("first", &[]).unwrap();
    stage.cluster.start_agents(&[]).unwrap();
    lose(&stage, "node-1").await;
    for node in ["node-2", "node-3"] {
        stage.update(node).await;
    }
    for node in ["node-2", "node-3"] {
        let why = stage.until_waiting(node, "QuotaUsed").await;
        assert_eq!(why["blocker"], Value::Null, "nobody is blamed yet: {why}");
    }

    // Ten minutes later, with another controller.
    crash(controller);
    age_slots(&stage).await;
    stage.forget_leader().await;
    let _controller = stage.cluster.spawn_controller("second", &[]).unwrap();
    for node in ["node-2", "node-3"] {
        stage.until_node(node, "to name node-1", |node| waiting(node)["blocker"] == "node-1").await;
    }
    stage.until_slots(&["node-1"]).await;
    assert_eq!(grants(&stage.referee.so_far().await.unwrap()), ["node-1"]);

    delete_node(&stage, "node-1").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-2", "node-3"])).await;
    assert_eq!(grants(&verdict).len(), 3);
}

#[tokio::test]
async fn with_a_quota_of_two_the_rest_goes_on_one_at_a_time_beside_a_node_that_never_returns() {
    let stage = Stage::set(4, 2, &[Workload::new("web", 4)]).await;
    let _controller = stage.cluster.spawn_controller("controller", &["--max-unavailable=2"]).unwrap();
    stage.cluster.start_agents(&[]).unwrap();
    lose(&stage, "node-1").await;
    for node in ["node-2", "node-3", "node-4"] {
        stage.update(node).await;
    }
    for node in ["node-2", "node-3", "node-4"] {
        stage.until_rebooted(node).await;
    }
    stage.until_slots(&["node-1"]).await;
    delete_node(&stage, "node-1").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-2", "node-3", "node-4"])).await;
    assert_eq!(most_at_once(&verdict), 2);
}

/// The node goes down for its reboot and stays down.
async fn lose(stage: &Stage, node: &str) {
    stage.machine(node).set_reboots(Reboots { comes_back: false, ..Reboots::default() });
    stage.update(node).await;
    stage.until_node(node, "to go down", |node| !node.ready).await;
}

/// Makes every slot in the ledger an hour older.
async fn age_slots(stage: &Stage) {
    let maps: Api<ConfigMap> = Api::namespaced(stage.client(), NAMESPACE);
    let map = maps.get("reboot-slots").await.unwrap();
    let mut ledger: Value = serde_json::from_str(&map.data.unwrap()["ledger"]).unwrap();
    for slot in ledger["slots"].as_array_mut().unwrap() {
        let since: jiff::Timestamp = slot["since"].as_str().unwrap().parse().unwrap();
        slot["since"] = json!(since - jiff::SignedDuration::from_hours(1));
    }
    let patch = Patch::Merge(json!({"data": {"ledger": ledger.to_string()}}));
    maps.patch("reboot-slots", &PatchParams::default(), &patch).await.unwrap();
}

async fn delete_node(stage: &Stage, node: &str) {
    let nodes: Api<Node> = Api::all(stage.client());
    nodes.delete(node, &DeleteParams::default()).await.unwrap();
}
