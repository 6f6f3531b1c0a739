//! Pods that end after they were evicted and come back elsewhere, and the budget that guards some of them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use reboot_core::audit::Actor;
use reboot_core::node::NodeView;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::world::{self, World, read};
use crate::memory::MemoryApi;

/// The namespace of everything here.
const NAMESPACE: &str = "default";

/// The name of the budget, and of the pods under it.
const BUDGET: &str = "web";

/// The pods that every node has, and that nobody evicts.
const DAEMON: &str = "daemon";

/// Makes the namespace of the operator, the pods of the beginning, spread over the nodes, and the budget, which lets a tenth of its pods go
/// at a time, and at least one.
pub fn begin(world: &World) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world::NAMESPACE}});
    world.write(Actor::Machine, |api| drop(api.create("kubectl", &namespace).expect("a namespace")));
    for machine in &world.machines {
        create(world, DAEMON, &machine.name);
        for _ in 0..world.random.below(world.setup.pods + 1) {
            create(world, if world.random.once_in(2) { BUDGET } else { "free" }, &machine.name);
        }
    }
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": BUDGET, "namespace": NAMESPACE},
        "spec": {"minAvailable": least_available(world, false), "selector": {"matchLabels": {"app": BUDGET}}},
    });
    world.write(Actor::Machine, |api| drop(api.create("helm", &budget).expect("a budget")));
}

/// A person makes the budget let no pod go, or as many as at the beginning.
pub fn set_budget(world: &World, blocks: bool) {
    let patch = json!({"spec": {"minAvailable": least_available(world, blocks)}});
    world.write(Actor::Person, |api| {
        drop(api.patch("kubectl-edit", "poddisruptionbudgets", NAMESPACE, BUDGET, &patch));
    });
}

fn least_available(world: &World, blocks: bool) -> usize {
    let guarded = world.api.list("pods", "").iter().filter(|pod| app(pod) == BUDGET).count();
    let spare = if blocks { 0 } else { (guarded / 10).max(1) };
    guarded.saturating_sub(spare)
}

fn create(world: &World, app: &str, node: &str) {
    let kind = if app == DAEMON { "DaemonSet" } else { "ReplicaSet" };
    let name = format!("{app}-{:08x}", world.random.next() >> 32);
    let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": app, "uid": app, "controller": true}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": app}, "ownerReferences": owner},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30, "containers": [{"name": "it"}]},
    });
    // A pod is born without a status.
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    world.write(Actor::Machine, |api| {
        api.create("kube-controller-manager", &pod).expect("a pod");
        api.patch("kubelet", "pods/status", NAMESPACE, &name, &status).expect("its status");
    });
}

/// A pod comes to a node, cordoned or not.
pub fn add(world: &World, node: &str) {
    create(world, "free", node);
}

/// Follows the pods: kubelets end those that are deleted, and others take their place.
pub async fn live(world: Arc<World>) {
    let mut changes = world.api.changes();
    while let Some(change) = changes.recv().await {
        if change.key.resource != "pods" {
            continue;
        }
        match (&change.before, &change.after) {
            (before, Some(after)) if is_deleted(after) && !before.as_deref().is_some_and(is_deleted) => {
                tokio::spawn(end(world.clone(), after.clone()));
            }
            (Some(gone), None) if app(gone) != DAEMON => {
                tokio::spawn(replace(world.clone(), app(gone).to_owned()));
            }
            _ => {}
        }
    }
}

fn is_deleted(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

fn app(pod: &Value) -> &str {
    pod["metadata"]["labels"]["app"].as_str().unwrap_or_default()
}

/// kubelet ends a pod within its grace period, but not while the machine is down.
async fn end(world: Arc<World>, pod: Arc<Value>) {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    sleep(world.random.time(Duration::from_secs(30))).await;
    while world.machines.iter().any(|machine| machine.name == node && !machine.is_up()) {
        sleep(Duration::from_secs(5)).await;
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    world.write(Actor::Machine, |api| drop(api.delete("kubelet", "pods", NAMESPACE, name, Some(0))));
}

/// Another pod starts as soon as there is a node for it, and is Ready after a while.
async fn replace(world: Arc<World>, app: String) {
    loop {
        sleep(Duration::from_secs(1) + world.random.time(Duration::from_secs(30))).await;
        let nodes = world.api.list("nodes", "");
        let first = world.random.below(nodes.len());
        // Node by node from there, because to read them all takes longer than all else.
        let mut views = nodes.iter().cycle().skip(first).take(nodes.len()).filter_map(|node| Some(view(&read(node)?)));
        if let Some(node) = views.find(|node| node.ready && !node.unschedulable) {
            return create(&world, &app, &node.name);
        }
    }
}

fn view(node: &Node) -> NodeView {
    node.into()
}

/// The disruption controller looks at its budgets again as time passes: an eviction that nothing came of is forgotten.
pub async fn keep_budgets(world: Arc<World>) {
    loop {
        sleep(Duration::from_secs(30)).await;
        world.write(Actor::Machine, MemoryApi::update_budgets);
    }
}
