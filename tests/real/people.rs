//! People who act at the worst moments.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use reboot_tests::{
    call::until,
    referee::{Declaration, Expect},
    scene::{LIMIT, NAMESPACE, grants, last_reboot},
};
use serde_json::json;

use crate::{
    phases::Phase,
    stage::{Stage, UPDATE},
};

/// Two machines that wait for their turn are rebooted by hand. That is what they asked for: it is not done again.
pub(crate) async fn rebooted_by_hand() {
    let stage = Stage::set(1).await;
    stage.reach(Phase::Draining, "node-1").await;
    for node in ["node-2", "node-3"] {
        stage.node(node).announce_update(UPDATE).await.unwrap();
        stage.until_waiting(node, "QuotaUsed").await;
        stage.referee.declare(Declaration::Broken(node.to_owned())).await.unwrap();
        let before = stage.boot_id(node).await;
        // The connection may break before the answer is there.
        let _going_down = stage.node(node).execute(&["systemctl", "--no-block", "reboot"]);
        let back = stage.until_back(node, &before).await;
        assert_eq!(last_reboot(&back)["outcome"], "found-rebooted", "{}", last_reboot(&back));
    }
    stage.go_on(Phase::Draining, "node-1").await;
    stage.until_rebooted("node-1").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-1"])).await;
    assert_eq!(grants(&verdict), ["node-1"]);
}

/// A pause in the drain, a cordon of one's own, a force past the quota, and a Node that is deleted in the drain.
pub(crate) async fn interventions() {
    let stage = Stage::set(1).await;
    stage.reach(Phase::Draining, "node-1").await;
    stage.annotate("node-1", "reboot-paused", Some("database migration")).await;
    let paused =
        stage.until_node("node-1", "to give back", |node| !node.cordoned && !last_reboot(node).is_null()).await;
    assert_eq!(last_reboot(&paused)["reason"], "Paused", "{}", last_reboot(&paused));
    stage.annotate("node-1", "reboot-paused", None).await;
    stage.until_node("node-1", "to go on", |node| node.cordoned).await;

    // The quota is used by node-1, whose drain is held.
    stage.referee.declare(Declaration::Forced("node-2".to_owned())).await.unwrap();
    stage.annotate("node-2", "reboot", Some("now")).await;
    stage.until_rebooted("node-2").await;
    stage.weigh_anchor("node-1").await;
    stage.until_rebooted("node-1").await;

    stage.cordon("node-3").await;
    stage.node("node-3").announce_update(UPDATE).await.unwrap();
    let kept = stage.until_node("node-3", "to reboot", |node| last_reboot(node)["outcome"] == "rebooted").await;
    assert!(kept.cordoned, "a person's cordon outlives the reboot");
    stage.uncordon("node-3").await;

    stage.reach(Phase::Draining, "node-4").await;
    let before = stage.boot_id("node-4").await;
    stage.referee.declare(Declaration::Broken("node-4".to_owned())).await.unwrap();
    delete_node(&stage, "node-4").await;
    stage.weigh_anchor("node-4").await;
    stage.until_back("node-4", &before).await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2", "node-3", "node-4"])).await;
}

/// Without the ledger nothing is granted until it is whole again, and whoever drains is in it.
pub(crate) async fn ledger_lost() {
    let stage = Stage::set(1).await;
    stage.reach(Phase::Draining, "node-1").await;
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_waiting("node-2", "QuotaUsed").await;
    let ledgers: Api<ConfigMap> = Api::namespaced(stage.client(), NAMESPACE);
    ledgers.delete("reboot-slots", &DeleteParams::default()).await.unwrap();
    stage.node("node-3").announce_update(UPDATE).await.unwrap();
    stage.until_slots(&["node-1"]).await;
    let garbled = Patch::Merge(json!({"data": {"ledger": "{\"slots\": 7"}}));
    ledgers.patch("reboot-slots", &PatchParams::default(), &garbled).await.unwrap();
    stage.node("node-4").announce_update(UPDATE).await.unwrap();
    stage.until_waiting("node-4", "QuotaUsed").await;
    stage.go_on(Phase::Draining, "node-1").await;
    let nodes = ["node-1", "node-2", "node-3", "node-4"];
    for node in nodes {
        stage.until_rebooted(node).await;
    }
    stage.ends(&Expect::rebooted_once(nodes)).await;
}

/// Deletes the Node as people do to whom a machine looks dead; its kubelet, started again, registers a new one.
async fn delete_node(stage: &Stage, name: &str) {
    let nodes: Api<Node> = Api::all(stage.client());
    let uid = nodes.get(name).await.unwrap().uid();
    nodes.delete(name, &DeleteParams::default()).await.unwrap();
    stage.node(name).execute(&["systemctl", "restart", "kubelet"]).unwrap();
    let again = |node: Option<&Node>| node.is_some_and(|node| node.uid() != uid);
    until(LIMIT, format!("waiting for {name} to be registered again"), nodes.clone(), name, again).await.unwrap();
}
