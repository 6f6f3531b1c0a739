//! Creates, replaces and patches.

use serde_json::{Value, json};

use crate::side::{JSON, MERGE, STRATEGIC, Side, version};

const NOTES: &[&str] = &["/metadata/annotations", "/metadata/labels", "/spec"];

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(crate) async fn creates(side: &mut Side) {
    side.namespace().await;
    let maps = side.path("api/v1", "configmaps");
    let made = side.post(&maps, &config_map("one", json!({"a": "1"}))).await;
    side.show(&made, &["/kind", "/apiVersion", "/data", "/metadata/name", "/metadata/labels", "/metadata/generation"]);
    side.post(&maps, &config_map("one", json!({}))).await;
    let empty = side.post(&maps, &config_map("empty", json!({}))).await;
    side.show(&empty, &["/data"]);
    side.post(&maps, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})).await;
    side.post("/api/v1/namespaces/nowhere/configmaps", &config_map("one", json!({}))).await;
    let mut elsewhere = config_map("two", json!({}));
    elsewhere["metadata"]["namespace"] = json!("default");
    side.post(&maps, &elsewhere).await;
    let named = side.post(&maps, &json!({"metadata": {"generateName": "made-up-"}})).await;
    let name = named["metadata"]["name"].as_str().unwrap_or_default();
    side.note("a name was made up", name.starts_with("made-up-") && name.len() == "made-up-".len() + 5);
    side.get(&side.path("api/v1", "configmaps/none")).await;
    side.get(&side.path("apis/nothing.example.com/v1", "things/none")).await;

    let node = side.create_node("a", json!({"unschedulable": false, "taints": []})).await;
    side.show(&node, NOTES);
    let path = side.path("apis/policy/v1", "poddisruptionbudgets");
    let budget = json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {}}});
    let budget = side.post(&path, &budget).await;
    side.show(&budget, &["/spec", "/metadata/generation", "/kind"]);
    let pod = json!({"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    let pod = side.post(&side.path("api/v1", "pods"), &pod).await;
    side.show(&pod, &["/status/phase", "/metadata/generation", "/spec/terminationGracePeriodSeconds"]);
}

pub(crate) async fn merge_patches(side: &mut Side) {
    let path = side.node_path("a");
    let node = side.create_node("a", json!({})).await;
    let set = json!({"metadata": {"annotations": {"example.com/a": "1", "example.com/b": ""}}});
    let first = side.patch_compared(&path, MERGE, &set, &node).await;
    side.show(&first, NOTES);
    let again = side.patch_compared(&path, MERGE, &set, &first).await;
    let nothing = side.patch_compared(&path, MERGE, &json!({}), &again).await;
    let remove = json!({"metadata": {"annotations": {"example.com/a": null, "example.com/none": null}}});
    let removed = side.patch_compared(&path, MERGE, &remove, &nothing).await;
    side.show(&removed, NOTES);
    let gone = side.patch_compared(&path, MERGE, &json!({"metadata": {"annotations": null}}), &removed).await;
    side.show(&gone, NOTES);

    let at = |version: &str| json!({"metadata": {"resourceVersion": version, "annotations": {"example.com/c": "1"}}});
    side.patch(&path, MERGE, &at(&version(&node))).await;
    let newest = side.patch_compared(&path, MERGE, &at(&version(&gone)), &gone).await;
    side.patch_compared(&path, MERGE, &at(&version(&newest)), &newest).await;
    let uid = |uid: &Value| json!({"metadata": {"uid": uid, "annotations": {"example.com/d": "1"}}});
    side.patch(&path, MERGE, &uid(&json!("0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90"))).await;
    side.patch(&path, MERGE, &uid(&node["metadata"]["uid"])).await;
    side.patch(&side.node_path("none"), MERGE, &set).await;
    side.patch(&path, "application/unheard-of", &set).await;

    let cordoned = side.patch(&path, MERGE, &json!({"spec": {"unschedulable": true}})).await;
    side.show(&cordoned, NOTES);
    let freed = side.patch_compared(&path, MERGE, &json!({"spec": {"unschedulable": false}}), &cordoned).await;
    side.show(&freed, NOTES);
    side.patch_compared(&path, MERGE, &json!({"spec": {"unschedulable": null}}), &freed).await;
    let status = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"x": "y"}}});
    let unmoved = side.patch(&path, MERGE, &status).await;
    side.show(&unmoved, &["/status/phase", "/metadata/labels"]);
}

pub(crate) async fn other_patches(side: &mut Side) {
    let path = side.node_path("a");
    let node = side.create_node("a", json!({"taints": [{"key": "a", "effect": "NoSchedule"}]})).await;
    let add = json!([{"op": "add", "path": "/metadata/annotations", "value": {"example.com/a": "1"}}]);
    let added = side.patch_compared(&path, JSON, &add, &node).await;
    side.show(&added, NOTES);
    let good = json!([
        {"op": "test", "path": "/metadata/annotations/example.com~1a", "value": "1"},
        {"op": "replace", "path": "/metadata/annotations/example.com~1a", "value": "2"},
    ]);
    let replaced = side.patch_compared(&path, JSON, &good, &added).await;
    side.show(&replaced, NOTES);
    let bad = side.exchange_code(&path, JSON, &good).await;
    side.note("a test that does not hold", bad);
    let removed = json!([{"op": "remove", "path": "/metadata/annotations/example.com~1a"}]);
    side.patch(&path, JSON, &removed).await;
    let bad = side.exchange_code(&path, JSON, &removed).await;
    side.note("removing what is not there", bad);
    let stale = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version(&node)},
        {"op": "add", "path": "/metadata/labels/new", "value": "1"},
    ]);
    side.patch(&path, JSON, &stale).await;

    let cordon = side.patch(&path, STRATEGIC, &json!({"spec": {"unschedulable": true}})).await;
    side.show(&cordon, NOTES);
    let again = side.patch_compared(&path, STRATEGIC, &json!({"spec": {"unschedulable": true}}), &cordon).await;
    let freed = side.patch_compared(&path, STRATEGIC, &json!({"spec": {"unschedulable": null}}), &again).await;
    side.show(&freed, NOTES);
    let taints = json!({"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}]}});
    let tainted = side.patch(&path, STRATEGIC, &taints).await;
    side.show(&tainted, NOTES);
    let conditions = |status: &str| {
        let condition = json!({"type": "Ready", "status": status, "reason": "Here"});
        json!({"status": {"conditions": [condition, {"type": status, "status": "True"}]}})
    };
    let status = format!("{path}/status");
    side.patch(&status, STRATEGIC, &conditions("True")).await;
    let told = side.patch(&status, STRATEGIC, &conditions("False")).await;
    side.show(&told, &["/status/conditions/0/status", "/status/conditions/1/type", "/status/conditions/2/type"]);
}

pub(crate) async fn replaces(side: &mut Side) {
    side.namespace().await;
    let (maps, path) = (side.path("api/v1", "configmaps"), side.path("api/v1", "configmaps/one"));
    side.put(&path, &config_map("one", json!({}))).await;
    let made = side.post(&maps, &config_map("one", json!({"a": "1"}))).await;
    let mut next = made.clone();
    next["data"] = json!({"b": "2"});
    let written = side.put(&path, &next).await;
    side.show(&written, &["/data"]);
    side.note("the version stays", version(&written) == version(&made));
    side.put(&path, &next).await;
    let same = side.put(&path, &written).await;
    side.note("the version stays", version(&written) == version(&same));
    let unconditional = side.put(&path, &config_map("one", json!({"c": "3"}))).await;
    side.show(&unconditional, &["/data"]);
    side.put(&path, &config_map("two", json!({}))).await;
    let mut other = unconditional.clone();
    other["metadata"]["uid"] = json!("0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90");
    let code = side.exchange(&hyper::Method::PUT, &path, "application/json", "application/json", &other).await;
    side.note("another UID", format!("{} {}", code.0, code.1["reason"]));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one"}});
    let code = side.exchange(&hyper::Method::PUT, &path, "application/json", "application/json", &secret).await;
    side.note("another kind", format!("{} {}", code.0, code.1["reason"]));
    side.delete(&path, &Value::Null).await;
    side.put(&path, &unconditional).await;
}

pub(crate) async fn leases(side: &mut Side) {
    side.namespace().await;
    let path = side.path("apis/coordination.k8s.io/v1", "leases/lock");
    let lease = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lock"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 1},
        })
    };
    let first = side.put(&path, &lease("a")).await;
    side.show(&first, &["/spec", "/kind", "/metadata/generation"]);
    side.put(&path, &lease("b")).await;
    let mut taken = first.clone();
    taken["spec"]["holderIdentity"] = json!("b");
    let second = side.put(&path, &taken).await;
    side.show(&second, &["/spec"]);
    side.put(&path, &taken).await;
    side.post(&side.path("apis/coordination.k8s.io/v1", "leases"), &lease("c")).await;
    side.delete(&path, &Value::Null).await;
    side.put(&path, &second).await;
    side.get(&path).await;
}

pub(crate) async fn statuses(side: &mut Side) {
    let path = side.node_path("a");
    let status = format!("{path}/status");
    side.create_node("a", json!({})).await;
    let told = json!({
        "status": {"nodeInfo": {"bootID": "x", "kubeletVersion": "v1.36.3"}},
        "metadata": {"annotations": {"example.com/kubelet": "was here"}},
        "spec": {"unschedulable": true},
    });
    let node = side.patch(&status, MERGE, &told).await;
    side.show(&node, &["/status/nodeInfo/bootID", "/metadata/annotations", "/spec"]);
    let mut next = node.clone();
    next["status"]["nodeInfo"]["bootID"] = json!("y");
    next["spec"]["unschedulable"] = json!(true);
    let whole = side.put(&path, &next).await;
    side.show(&whole, &["/status/nodeInfo/bootID", "/spec"]);
    side.put(&status, &next).await;
    next["metadata"]["resourceVersion"] = whole["metadata"]["resourceVersion"].clone();
    next["spec"]["unschedulable"] = json!(false);
    let part = side.put(&status, &next).await;
    side.show(&part, &["/status/nodeInfo/bootID", "/spec"]);
    let read = side.get(&status).await;
    side.show(&read, &["/status/nodeInfo/bootID", "/kind"]);
    side.namespace().await;
    side.post(&side.path("api/v1", "configmaps"), &config_map("one", json!({}))).await;
    side.get(&side.path("api/v1", "configmaps/one/status")).await;
}

pub(crate) async fn dry_runs(side: &mut Side) {
    side.namespace().await;
    let (maps, path) = (side.path("api/v1", "configmaps"), side.path("api/v1", "configmaps/one"));
    side.post(&format!("{maps}?dryRun=All"), &config_map("one", json!({}))).await;
    side.get(&path).await;
    let made = side.post(&maps, &config_map("one", json!({}))).await;
    let patched = side.patch(&format!("{path}?dryRun=All"), MERGE, &json!({"data": {"a": "1"}})).await;
    side.show(&patched, &["/data"]);
    side.delete(&format!("{path}?dryRun=All"), &Value::Null).await;
    side.delete(&path, &json!({"dryRun": ["All"]})).await;
    let read = side.get(&path).await;
    side.show(&read, &["/data"]);
    side.note("the version stays", version(&read) == version(&made));
}

pub(crate) async fn events(side: &mut Side) {
    side.namespace().await;
    let newer = side.path("apis/events.k8s.io/v1", "events");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "told-"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Wait", "reason": "QuotaUsed", "type": "Normal",
        "reportingController": "reboot-controller", "reportingInstance": "one", "note": "it waits",
        "regarding": {"kind": "ConfigMap", "apiVersion": "v1", "name": "one", "namespace": side.path("", "").split('/').nth(3)},
    });
    let made = side.post(&newer, &event).await;
    side.show(&made, &["/note", "/regarding/name", "/reportingController", "/kind", "/apiVersion"]);
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (_, found) = side.quiet_get(&side.path("api/v1", &format!("events/{name}"))).await;
    side.show(&found, &["/message", "/involvedObject/name", "/reportingComponent", "/kind", "/apiVersion"]);
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let (code, grown) = side.quiet_patch(&format!("{newer}/{name}"), &series).await;
    side.note("a series", code);
    side.show(&grown, &["/series", "/note"]);
    for selector in ["involvedObject.name=one,reason=QuotaUsed", "involvedObject.name=two", "type!=Normal"] {
        let (_, list) = side.quiet_get(&format!("{}?fieldSelector={selector}", side.path("api/v1", "events"))).await;
        side.note(selector, list["items"].as_array().map_or(0, Vec::len));
    }
}
