//! Lists: pages, selectors, forms.

use serde_json::{Value, json};

use crate::side::{MERGE, Side, version};

fn names(list: &Value) -> String {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|item| item["metadata"]["name"].as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn pages(side: &mut Side) {
    side.namespace().await;
    let maps = side.path("api/v1", "configmaps");
    for name in ["a", "b", "c", "d", "e"] {
        side.post(&maps, &json!({"metadata": {"name": name}})).await;
    }
    let whole = side.get(&maps).await;
    side.show(&whole, &["/kind", "/apiVersion", "/items/0/kind", "/items/0/apiVersion"]);
    side.note("names", names(&whole));
    let first = side.get(&format!("{maps}?limit=2")).await;
    side.note("names", names(&first));
    side.show(&first, &["/metadata/remainingItemCount"]);
    side.delete(&format!("{maps}/d"), &Value::Null).await;
    let token = |list: &Value| {
        let token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        form_urlencoded::byte_serialize(token.as_bytes()).collect::<String>()
    };
    let (_, second) = side.quiet_get(&format!("{maps}?limit=2&continue={}", token(&first))).await;
    side.note("names", names(&second));
    side.note("the same version", version(&first) == version(&second));
    side.show(&second, &["/metadata/remainingItemCount"]);
    let (_, third) = side.quiet_get(&format!("{maps}?limit=2&continue={}", token(&second))).await;
    side.note("names", names(&third));
    side.show(&third, &["/metadata/remainingItemCount", "/metadata/continue"]);
    let exact = format!("{maps}?resourceVersion={}&resourceVersionMatch=Exact", version(&whole));
    let then = side.get(&exact).await;
    side.note("names", names(&then));
    let now = side.get(&format!("{maps}?resourceVersion=0")).await;
    side.note("names", names(&now));
    let selected = side.get(&format!("{maps}?limit=1&fieldSelector=metadata.namespace!=x")).await;
    side.show(&selected, &["/metadata/remainingItemCount"]);
    let none = side.get(&side.path("api/v1", "pods")).await;
    side.show(&none, &["/items", "/kind"]);
    side.get("/api/v1/namespaces/nowhere/pods").await;
}

pub(crate) async fn selectors(side: &mut Side) {
    side.namespace().await;
    let pods = side.path("api/v1", "pods");
    for (name, node, labels) in [
        ("a", Some("one"), json!({"app": "web", "tier": "front"})),
        ("b", Some("two"), json!({"app": "web"})),
        ("c", None, json!({"app": "db"})),
        ("d", Some("one"), json!({})),
    ] {
        let mut pod = json!({
            "metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]},
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = json!(node);
        }
        side.post(&pods, &pod).await;
    }
    side.patch(&format!("{pods}/d/status"), MERGE, &json!({"status": {"phase": "Failed"}})).await;
    for query in [
        "fieldSelector=spec.nodeName%3Done",
        "fieldSelector=spec.nodeName%3D",
        "fieldSelector=spec.nodeName!%3Done,status.phase%3DPending",
        "fieldSelector=metadata.name%3D%3Db",
        "fieldSelector=status.phase!%3DSucceeded,status.phase!%3DFailed",
        "fieldSelector=spec.nothing%3Dx",
        "fieldSelector=nonsense",
        "labelSelector=app%3Dweb",
        "labelSelector=app%3D%3Dweb,tier",
        "labelSelector=app!%3Dweb",
        "labelSelector=!tier",
        "labelSelector=app%20in%20(web,db),!tier",
        "labelSelector=app%20notin%20(web)",
        "labelSelector=app%3Dweb&fieldSelector=spec.nodeName%3Dtwo",
    ] {
        let list = side.get(&format!("{pods}?{query}")).await;
        side.note("names", names(&list));
    }
    let bad = side.quiet_get(&format!("{pods}?labelSelector=a%20in%20web")).await;
    side.note("nonsense", bad.0);
    side.create_node("a", json!({"unschedulable": true})).await;
    side.create_node("b", json!({})).await;
    let own = side.node("").trim_end_matches('-').to_owned();
    for fields in ["spec.unschedulable%3Dtrue", "spec.unschedulable%3Dfalse"] {
        let list = side.get(&format!("/api/v1/nodes?labelSelector=of%3D{own}&fieldSelector={fields}")).await;
        side.note("names", names(&list));
    }
}

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub(crate) async fn forms(side: &mut Side) {
    side.namespace().await;
    let path = side.node_path("a");
    side.create_node("a", json!({})).await;
    let get = hyper::Method::GET;
    let (_, one) = side.exchange(&get, &path, "", METADATA, &Value::Null).await;
    side.show(&one, &["/kind", "/apiVersion", "/metadata/name", "/metadata/labels", "/spec"]);
    let own = side.node("").trim_end_matches('-').to_owned();
    let nodes = format!("/api/v1/nodes?labelSelector=of%3D{own}");
    let (_, list) = side.exchange(&get, &nodes, "", METADATA_LIST, &Value::Null).await;
    side.show(&list, &["/kind", "/apiVersion", "/items/0/kind", "/items/0/apiVersion", "/items/0/metadata/name"]);
    let status = |ready: &str| {
        json!({"status": {"conditions": [{"type": "Ready", "status": ready}],
        "nodeInfo": {"kubeletVersion": "v1.36.3", "osImage": "An OS"}}})
    };
    let row = async |side: &mut Side, path: &str| {
        let (code, table) = side.exchange(&get, path, "", TABLE, &Value::Null).await;
        side.note("a table", code);
        side.show(&table, &["/kind", "/apiVersion", "/rows/0/object/kind"]);
        let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
        // Age is a matter of time, and columns for `-o wide` are of no concern.
        let cells = table["rows"][0]["cells"].as_array().cloned().unwrap_or_default();
        for (column, cell) in columns.iter().zip(cells).filter(|(column, _)| column["priority"] == 0) {
            let is_age = ["Age", "Last Seen"].iter().any(|name| column["name"] == *name);
            side.note(&column["name"].to_string(), if is_age { json!("…") } else { cell });
        }
    };
    row(side, &path).await;
    side.patch(&format!("{path}/status"), MERGE, &status("True")).await;
    row(side, &path).await;
    side.patch(
        &path,
        MERGE,
        &json!({"spec": {"unschedulable": true}, "metadata": {"labels": {"node-role.kubernetes.io/x": ""}}}),
    )
    .await;
    side.patch(&format!("{path}/status"), MERGE, &status("Unknown")).await;
    row(side, &nodes).await;
    let pod = json!({"metadata": {"name": "pod"}, "spec": {"nodeName": "x", "containers": [{"name": "main", "image": "none"}]}});
    side.post(&side.path("api/v1", "pods"), &pod).await;
    row(side, &side.path("api/v1", "pods")).await;
    side.delete(&side.path("api/v1", "pods/pod"), &Value::Null).await;
    row(side, &side.path("api/v1", "pods/pod")).await;
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": "50%", "selector": {}}});
    side.post(&side.path("apis/policy/v1", "poddisruptionbudgets"), &budget).await;
    row(side, &side.path("apis/policy/v1", "poddisruptionbudgets")).await;
    side.post(&side.path("api/v1", "configmaps"), &json!({"metadata": {"name": "one"}, "data": {"a": "1"}})).await;
    row(side, &side.path("api/v1", "configmaps/one")).await;
}
