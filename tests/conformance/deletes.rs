//! Deletes.

use serde_json::{Value, json};

use crate::side::{MERGE, Side, version};

const ENDING: &[&str] = &[
    "/kind",
    "/metadata/deletionGracePeriodSeconds",
    "/metadata/generation",
    "/metadata/finalizers",
    "/metadata/name",
];

pub(crate) async fn plain(side: &mut Side) {
    side.namespace().await;
    let (maps, path) = (side.path("api/v1", "configmaps"), side.path("api/v1", "configmaps/one"));
    let map = json!({"metadata": {"name": "one"}});
    side.delete(&path, &Value::Null).await;
    let made = side.post(&maps, &map).await;
    let uid = made["metadata"]["uid"].clone();
    side.delete(&path, &json!({"preconditions": {"uid": "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90"}})).await;
    side.delete(&path, &json!({"preconditions": {"uid": uid, "resourceVersion": "1"}})).await;
    let answer = side.delete(&path, &json!({"preconditions": {"uid": uid, "resourceVersion": version(&made)}})).await;
    side.show(&answer, &["/kind", "/status"]);
    side.get(&path).await;

    let held = json!({"metadata": {"name": "one", "finalizers": ["example.com/hold"]}});
    side.post(&maps, &held).await;
    let held = side.delete(&path, &Value::Null).await;
    side.show(&held, ENDING);
    side.note("its end has begun", held["metadata"]["deletionTimestamp"].is_string());
    let again = side.delete(&path, &Value::Null).await;
    side.note("the version stays", version(&held) == version(&again));
    side.patch(&path, MERGE, &json!({"metadata": {"labels": {"still": "here"}}})).await;
    let freed = side.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    side.show(&freed, &["/metadata/finalizers", "/metadata/labels"]);
    side.get(&path).await;

    side.create_node("a", json!({})).await;
    let node = side.node_path("a");
    side.delete(&node, &json!({"propagationPolicy": "Background"})).await;
    side.get(&node).await;
}

fn pod(name: &str, grace: Option<u32>, node: Option<&str>) -> Value {
    let containers = json!([{"name": "main", "image": "none"}]);
    let mut spec = json!({"containers": containers});
    if let Some(grace) = grace {
        spec["terminationGracePeriodSeconds"] = json!(grace);
    }
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

pub(crate) async fn pods(side: &mut Side) {
    side.namespace().await;
    let pods = side.path("api/v1", "pods");
    let at = |name: &str| format!("{pods}/{name}");
    let began = side.post(&pods, &pod("unplaced", None, None)).await;
    let path = format!("{pods}?resourceVersion={}&watch=true", version(&began));
    let mut watch = side.watch(&path, "application/json").await.unwrap();
    let gone = side.delete(&at("unplaced"), &Value::Null).await;
    side.show(&gone, ENDING);
    side.get(&at("unplaced")).await;
    side.events(&mut watch, 2, ENDING).await;

    side.post(&pods, &pod("placed", None, Some("some-node"))).await;
    let ending = side.delete(&at("placed"), &Value::Null).await;
    side.show(&ending, ENDING);
    let again = side.delete(&at("placed"), &Value::Null).await;
    side.note("the version stays", version(&ending) == version(&again));
    let longer = side.delete(&at("placed"), &json!({"gracePeriodSeconds": 60})).await;
    side.show(&longer, ENDING);
    let shorter = side.delete(&at("placed"), &json!({"gracePeriodSeconds": 5})).await;
    side.show(&shorter, ENDING);
    // As kubelet ends it.
    let uid = &ending["metadata"]["uid"];
    let over = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    let over = side.delete(&at("placed"), &over).await;
    side.show(&over, ENDING);
    side.get(&at("placed")).await;
    side.events(&mut watch, 5, ENDING).await;

    side.post(&pods, &pod("short", Some(7), Some("some-node"))).await;
    let ending = side.delete(&at("short"), &Value::Null).await;
    side.show(&ending, ENDING);
    side.post(&pods, &pod("over", None, Some("some-node"))).await;
    side.patch(&format!("{}/status", at("over")), MERGE, &json!({"status": {"phase": "Succeeded"}})).await;
    side.delete(&at("over"), &Value::Null).await;
    side.get(&at("over")).await;
    side.post(&pods, &pod("now", None, Some("some-node"))).await;
    side.delete(&format!("{}?gracePeriodSeconds=0", at("now")), &Value::Null).await;
    side.get(&at("now")).await;
    side.events(&mut watch, 9, ENDING).await;
}
