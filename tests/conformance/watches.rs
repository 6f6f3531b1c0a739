//! Watches.

use serde_json::{Value, json};

use crate::side::{MERGE, Side, version};

const JSON: &str = "application/json";
const LABELS: &[&str] = &["/metadata/labels", "/kind"];

/// The Nodes of this scenario, with further parameters.
fn nodes(side: &Side, query: &str) -> String {
    let own = side.node("").trim_end_matches('-').to_owned();
    format!("/api/v1/nodes?watch=true&labelSelector=of%3D{own}&{query}")
}

pub(crate) async fn changes(side: &mut Side) {
    let first = side.create_node("a", json!({})).await;
    let from = nodes(side, &format!("resourceVersion={}", version(&first)));
    let mut watch = side.watch(&from, JSON).await.unwrap();
    let path = side.node_path("a");
    side.create_node("b", json!({})).await;
    side.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
    side.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
    side.patch(&format!("{path}/status"), MERGE, &json!({"status": {"phase": "Running"}})).await;
    side.delete(&path, &Value::Null).await;
    side.create_node("a", json!({})).await;
    let seen = side.events(&mut watch, 5, LABELS).await;
    let versions: Vec<u64> = seen.iter().map(|event| version(&event["object"]).parse().unwrap()).collect();
    side.note("versions grow", versions.is_sorted() && versions.windows(2).all(|pair| pair[0] != pair[1]));
    // A watch from an earlier version tells it all again, and says what was there before a delete.
    let mut again = side.watch(&from, JSON).await.unwrap();
    let told = side.events(&mut again, 5, LABELS).await;
    side.note("the same again", told == seen);
    let mut late = side.watch(&nodes(side, &format!("resourceVersion={}", versions[3])), JSON).await.unwrap();
    side.events(&mut late, 1, LABELS).await;
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut partial = side.watch(&from, metadata).await.unwrap();
    side.events(&mut partial, 5, &["/kind", "/apiVersion", "/spec"]).await;
    let mut table = side.watch(&from, "application/json;as=Table;v=v1;g=meta.k8s.io").await.unwrap();
    side.events(&mut table, 5, &["/kind", "/rows/0/cells/0", "/rows/0/cells/1", "/columnDefinitions/0/name"]).await;
    let mut short = side.watch(&format!("{from}&timeoutSeconds=1"), JSON).await.unwrap();
    side.events(&mut short, 6, &[]).await;
}

pub(crate) async fn starts(side: &mut Side) {
    side.create_node("a", json!({})).await;
    let newest = side.create_node("b", json!({})).await;
    for query in ["", "resourceVersion=0", "resourceVersion="] {
        let mut watch = side.watch(&nodes(side, query), JSON).await.unwrap();
        side.events(&mut watch, 2, LABELS).await;
    }
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let bookmark = &["/metadata/annotations", "/kind", "/apiVersion"];
    for from in ["", "&resourceVersion=0"] {
        let mut watch = side.watch(&nodes(side, &format!("{streaming}{from}")), JSON).await.unwrap();
        let seen = side.events(&mut watch, 3, bookmark).await;
        let at: u64 = version_of(&seen[2]);
        side.note("the bookmark covers all", at >= version(&newest).parse().unwrap());
    }
    let mut watch = side.watch(&nodes(side, streaming), JSON).await.unwrap();
    side.events(&mut watch, 3, bookmark).await;
    side.patch(&side.node_path("a"), MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
    side.events(&mut watch, 1, LABELS).await;
    let none = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = side.watch(&nodes(side, none), JSON).await.unwrap();
    side.patch(&side.node_path("b"), MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
    side.events(&mut watch, 1, LABELS).await;
    for query in ["sendInitialEvents=true", "resourceVersionMatch=NotOlderThan", "resourceVersion=nonsense"] {
        let refused = side.watch(&nodes(side, query), JSON).await;
        side.note("refused", refused.is_none());
    }
    let single = format!("/api/v1/nodes?watch=true&fieldSelector=metadata.name%3D{}", side.node("a"));
    let mut watch = side.watch(&single, JSON).await.unwrap();
    side.events(&mut watch, 1, LABELS).await;
    side.get(&format!("{}?resourceVersion=0", side.node_path("a"))).await;
}

fn version_of(event: &Value) -> u64 {
    version(&event["object"]).parse().unwrap()
}

pub(crate) async fn selected(side: &mut Side) {
    let first = side.create_node("a", json!({})).await;
    let path = side.node_path("a");
    let query = format!("resourceVersion={}", version(&first));
    let watched = nodes(side, &query).replace("&resource", "%2Cpool&resource");
    let mut watch = side.watch(&watched, JSON).await.unwrap();
    let label = |value: Value| json!({"metadata": {"labels": {"pool": value}}});
    side.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
    side.patch(&path, MERGE, &label(json!("one"))).await;
    side.patch(&path, MERGE, &label(json!("two"))).await;
    let left = side.patch(&path, MERGE, &label(Value::Null)).await;
    let seen = side.events(&mut watch, 3, LABELS).await;
    side.note("it left at the version of the change", version(&seen[2]["object"]) == version(&left));
    side.patch(&path, MERGE, &label(json!("three"))).await;
    side.delete(&path, &Value::Null).await;
    side.events(&mut watch, 2, LABELS).await;

    side.namespace().await;
    let pods = side.path("api/v1", "pods");
    let pod =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    let first = side.post(&pods, &pod("a")).await;
    let mut on_node = side
        .watch(&format!("{pods}?watch=1&fieldSelector=spec.nodeName%3Done&resourceVersion={}", version(&first)), JSON)
        .await
        .unwrap();
    let mut placed = pod("b");
    placed["spec"]["nodeName"] = json!("one");
    side.post(&pods, &placed).await;
    side.events(&mut on_node, 1, &["/spec/nodeName"]).await;
}
