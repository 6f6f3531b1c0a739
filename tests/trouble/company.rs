//! What else goes on while a node is rebooted: other writers, restarts, pods of every kind, other nodes that are down.

use std::time::Duration;

use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    core::v1::{Node, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use reboot_tests::{
    call::until,
    nodes::Farewell,
    referee::{Declaration, Expect, history::NodeSeen},
};
use serde_json::{Value, json};

use crate::{
    site::{Site, phase, value},
    world::{LIMIT, NAMESPACE, World, claims},
};

#[tokio::test]
async fn a_cycle_goes_its_way_whatever_else_goes_on() {
    let claims = claims![
        a_drain_waits_for_slow_pods_and_a_refusal_stops_no_other_eviction,
        what_is_not_to_be_evicted_stays,
        a_restarted_agent_goes_on_with_the_drain,
        a_restarted_agent_leaves_a_persons_cordon_alone,
        other_writers_are_no_obstacle_and_lose_nothing,
        other_accounts_of_the_namespace_may_do_nothing,
    ];
    let nodes = claims.len();
    World::start(nodes, nodes).await.hold(claims).await;
}

async fn a_drain_waits_for_slow_pods_and_a_refusal_stops_no_other_eviction(site: Site<'_>) -> usize {
    site.machine.start_agent(&["--on-drain-blocked", "drain"]).unwrap();
    site.block().await;
    let names = [1, 2, 3].map(|number| format!("slow-{number}"));
    for name in &names {
        let annotations = json!({"testbed/termination": "2s"});
        create(site, json!({"metadata": {"name": name, "annotations": annotations}})).await;
    }
    site.ask().await;
    for name in &names {
        let gone = |pod: Option<&Pod>| pod.is_none();
        until(LIMIT, format!("{name} to be gone"), pods(site), name, gone).await.unwrap();
    }
    let seen = site.until_status("PodDisruptionBudget").await;
    assert_eq!(phase(&seen), "draining");
    site.unblock().await;
    site.until_rebooted().await;
    1
}

async fn what_is_not_to_be_evicted_stays(site: Site<'_>) -> usize {
    let mirror = json!({"kubernetes.io/config.mirror": "0123", "kubernetes.io/config.source": "file"});
    create(site, json!({"metadata": {"name": "mirror", "annotations": mirror}})).await;
    create(site, json!({"metadata": {"name": "finished"}})).await;
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods(site).patch_status("finished", &PatchParams::default(), &ended).await.unwrap();
    // The third kind is the agent's own, of its DaemonSet.
    let before = here(site).await;
    assert_eq!(before.len(), 3, "{before:?}");
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!(here(site).await, before);
    for name in ["mirror", "finished"] {
        pods(site).delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    1
}

async fn a_restarted_agent_goes_on_with_the_drain(site: Site<'_>) -> usize {
    let id = |node: &NodeSeen| value(node, "reboot-in-progress")["id"].clone();
    let begun = site.drain_held().await;
    site.machine.restart_agent().unwrap();
    site.release().await;
    assert_eq!(site.until_rebooted().await["id"], id(&begun));
    1
}

async fn a_restarted_agent_leaves_a_persons_cordon_alone(site: Site<'_>) -> usize {
    site.cordon().await;
    site.machine.restart_agent().unwrap();
    site.annotate("reboot-paused", "so that nothing but an answer comes").await;
    site.ask().await;
    let seen = site.until("to be answered", |node| node.notes.contains_key("reboot-request")).await;
    assert!(seen.cordoned, "{seen:?}");
    site.remove("reboot-needed").await;
    site.remove("reboot-paused").await;
    site.uncordon().await;
    0
}

async fn other_writers_are_no_obstacle_and_lose_nothing(site: Site<'_>) -> usize {
    let nodes: Api<Node> = Api::all(site.world.client());
    // As fast as a careless controller, so that much of what the agent decides is stale when it is written.
    let writing = async {
        for number in 1_usize.. {
            let key = |number: usize| format!("example.com/{}", number % 2);
            let patch = json!({"metadata": {"annotations": {(key(number)): number.to_string()}}});
            let node = nodes.patch(site.name(), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            let before = node.annotations().get(&key(number - 1)).map(String::as_str);
            assert!(number == 1 || before == Some((number - 1).to_string().as_str()), "{number} after {before:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rebooted = async {
        site.ask().await;
        site.until_rebooted().await;
    };
    tokio::select! {
        () = rebooted => {}
        () = writing => {}
    }
    1
}

async fn other_accounts_of_the_namespace_may_do_nothing(site: Site<'_>) -> usize {
    let reviews: Api<SubjectAccessReview> = Api::all(site.world.client());
    for (verb, group, resource) in
        [("patch", "", "nodes"), ("list", "", "nodes"), ("list", "", "pods"), ("update", "", "configmaps")]
    {
        let review = json!({"spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:default"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"],
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": NAMESPACE},
        }});
        let review = serde_json::from_value(review).unwrap();
        let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        assert!(!status.allowed, "{verb} {resource}: {status:?}");
    }
    0
}

/// Two nodes, one slot.
#[tokio::test]
async fn a_node_that_is_down_uses_the_quota_up() {
    let world = World::start(2, 1).await;
    let [asks, down] = [1, 2].map(|number| world.site(number));
    for farewell in [Farewell::Unknown, Farewell::NotReady] {
        down.machine.node().go_down(farewell).await.unwrap();
        asks.ask().await;
        let waiting = asks.until_waiting("QuotaUsed").await;
        assert_eq!(waiting["blocker"], Value::Null, "it may be back in a moment: {waiting}");
        asks.until("to name it", |node| value(node, "reboot-waiting")["blocker"] == down.name()).await;
        assert!(!asks.seen().await.notes.contains_key("reboot"));
        down.machine.node().report().await.unwrap();
        asks.until_rebooted().await;
    }
    // But it may itself be rebooted: that costs nothing more.
    world.declare(Declaration::Broken(down.name().to_owned())).await;
    down.machine.node().go_down(Farewell::NotReady).await.unwrap();
    down.ask().await;
    down.until_rebooted().await;
    world.ends(&Expect::default().rebooted("node-1", 2).rebooted("node-2", 1)).await;
}

async fn create(site: Site<'_>, mut pod: Value) {
    pod["spec"] = json!({"nodeName": site.name(), "containers": [{"name": "main", "image": "testbed"}]});
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    pods(site).create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        status.and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    until(LIMIT, format!("{name} to run"), pods(site), &name, running).await.unwrap();
}

fn pods(site: Site<'_>) -> Api<Pod> {
    Api::default_namespaced(site.world.client())
}

/// The pods on the node, by UID.
async fn here(site: Site<'_>) -> Vec<String> {
    let all: Api<Pod> = Api::all(site.world.client());
    let here = ListParams::default().fields(&format!("spec.nodeName={}", site.name()));
    let mut uids: Vec<_> = all.list(&here).await.unwrap().items.iter().filter_map(kube::ResourceExt::uid).collect();
    uids.sort_unstable();
    uids
}
