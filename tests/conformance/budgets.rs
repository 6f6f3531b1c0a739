//! `PodDisruptionBudgets` and evictions.

use serde_json::{Value, json};

use crate::side::{MERGE, Side};

const STATUS: &[&str] = &[
    "/status/currentHealthy",
    "/status/desiredHealthy",
    "/status/disruptionsAllowed",
    "/status/expectedPods",
    "/status/observedGeneration",
    "/status/conditions/0/reason",
    "/status/conditions/0/status",
];

fn pod(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": "some-node", "containers": [{"name": "main", "image": "none"}]},
    })
}

/// Creates a pod and lets it be Ready, or Running without being Ready.
async fn run(side: &mut Side, pod: &Value, ready: bool) -> Value {
    let pods = side.path("api/v1", "pods");
    side.post(&pods, pod).await;
    let path = format!("{pods}/{}/status", pod["metadata"]["name"].as_str().unwrap());
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    side.patch(&path, MERGE, &status).await
}

async fn budget(side: &mut Side, name: &str, spec: Value) -> Value {
    let budget = json!({"metadata": {"name": name}, "spec": spec});
    side.post(&side.path("apis/policy/v1", "poddisruptionbudgets"), &budget).await
}

/// Waits for the budget's status to say so many healthy pods of so many, and logs it.
async fn counted(side: &mut Side, name: &str, healthy: u64, expected: u64) -> Value {
    let path = side.path("apis/policy/v1", &format!("poddisruptionbudgets/{name}"));
    let found = side.until(&path, |found| {
        let (status, generation) = (&found["status"], &found["metadata"]["generation"]);
        status["currentHealthy"] == healthy
            && status["expectedPods"] == expected
            && status["observedGeneration"] == *generation
            && status["disruptedPods"].as_object().is_none_or(serde_json::Map::is_empty)
    });
    let found = found.await;
    side.show(&found, STATUS);
    found
}

async fn evict(side: &mut Side, name: &str, options: Value) -> Value {
    let path = side.path("api/v1", &format!("pods/{name}/eviction"));
    let mut body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    if !options.is_null() {
        body["deleteOptions"] = options;
    }
    side.post(&path, &body).await
}

pub(crate) async fn refusals(side: &mut Side) {
    side.namespace().await;
    for name in ["a", "b", "c"] {
        run(side, &pod(name, "web"), true).await;
    }
    let selector = json!({"matchLabels": {"app": "web"}});
    budget(side, "web", json!({"minAvailable": 2, "selector": selector})).await;
    counted(side, "web", 3, 3).await;
    let other_uid = json!({"preconditions": {"uid": "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90"}});
    evict(side, "a", json!({"dryRun": ["All"]})).await;
    let gone = evict(side, "a", Value::Null).await;
    side.show(&gone, &["/kind", "/status", "/code"]);
    let pods = side.path("api/v1", "pods");
    let ending = side.get(&format!("{pods}/a")).await;
    let target = ending["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] == "DisruptionTarget"));
    side.show(&json!({"condition": target}), &["/condition/reason", "/condition/status"]);
    side.show(&ending, &["/metadata/deletionGracePeriodSeconds"]);
    counted(side, "web", 2, 3).await;
    evict(side, "b", Value::Null).await;
    evict(side, "b", json!({"dryRun": ["All"]})).await;
    evict(side, "b", other_uid.clone()).await;
    // The same pod once more is no new disruption.
    evict(side, "a", Value::Null).await;
    evict(side, "none", Value::Null).await;
    let misnamed = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}});
    side.post(&format!("{pods}/c/eviction"), &misnamed).await;

    let path = side.path("apis/policy/v1", "poddisruptionbudgets/web");
    side.patch(&path, MERGE, &json!({"spec": {"minAvailable": 0}})).await;
    counted(side, "web", 2, 3).await;
    evict(side, "b", other_uid).await;
    budget(
        side,
        "two",
        json!({"minAvailable": 0, "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
    )
    .await;
    evict(side, "b", Value::Null).await;
    evict(side, "b", json!({"dryRun": ["All"]})).await;
}

pub(crate) async fn unguarded(side: &mut Side) {
    side.namespace().await;
    let other_uid = json!({"preconditions": {"uid": "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90"}});
    for name in ["a", "b", "c"] {
        run(side, &pod(name, "web"), name != "c").await;
    }
    evict(side, "a", other_uid.clone()).await;
    evict(side, "a", json!({"dryRun": ["All"], "preconditions": other_uid["preconditions"]})).await;
    evict(side, "a", json!({"gracePeriodSeconds": 3})).await;
    let pods = side.path("api/v1", "pods");
    let ending = side.get(&format!("{pods}/a")).await;
    side.show(&ending, &["/metadata/deletionGracePeriodSeconds", "/metadata/generation"]);

    budget(side, "web", json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}})).await;
    counted(side, "web", 1, 3).await;
    // Not Ready, and enough others are: nothing is taken from the budget.
    evict(side, "c", Value::Null).await;
    side.post(&pods, &pod("pending", "web")).await;
    evict(side, "pending", Value::Null).await;
    evict(side, "b", Value::Null).await;

    run(side, &pod("x", "sick"), false).await;
    run(side, &pod("y", "sick"), false).await;
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "sick"}}});
    budget(side, "sick", spec).await;
    counted(side, "sick", 0, 2).await;
    evict(side, "x", Value::Null).await;
    let path = side.path("apis/policy/v1", "poddisruptionbudgets/sick");
    side.patch(&path, MERGE, &json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})).await;
    evict(side, "x", Value::Null).await;
}

pub(crate) async fn statuses(side: &mut Side) {
    side.namespace().await;
    let deployments = side.path("apis/apps/v1", "deployments");
    let (selector, template) = (
        json!({"matchLabels": {"app": "web"}}),
        json!({
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "none"}]},
        }),
    );
    let spec = json!({"replicas": 5, "selector": selector, "template": template});
    let deployment = side.post(&deployments, &json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let owner = |object: &Value, api: &str, kind: &str| {
        json!([{
            "apiVersion": api, "kind": kind, "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
            "controller": true,
        }])
    };
    let set = json!({"metadata": {"name": "web-1", "ownerReferences": owner(&deployment, "apps/v1", "Deployment")}, "spec": spec});
    let set = side.post(&side.path("apis/apps/v1", "replicasets"), &set).await;
    for name in ["a", "b", "c", "d"] {
        let mut pod = pod(name, "web");
        pod["metadata"]["ownerReferences"] = owner(&set, "apps/v1", "ReplicaSet");
        run(side, &pod, name != "d").await;
    }
    for (name, spec) in [
        ("one", json!({"maxUnavailable": 1})),
        ("percent", json!({"maxUnavailable": "50%"})),
        ("least", json!({"minAvailable": "30%"})),
        ("number", json!({"minAvailable": 2})),
        ("none", json!({"maxUnavailable": 0})),
    ] {
        let mut spec = spec;
        spec["selector"] = selector.clone();
        budget(side, name, spec).await;
        counted(side, name, 3, if name == "number" { 4 } else { 5 }).await;
    }
    budget(side, "nobody", json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "nobody"}}})).await;
    counted(side, "nobody", 0, 0).await;
    // On their own, pods count for nothing by maxUnavailable.
    run(side, &pod("alone", "alone"), true).await;
    budget(side, "alone", json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "alone"}}})).await;
    counted(side, "alone", 1, 0).await;
}
