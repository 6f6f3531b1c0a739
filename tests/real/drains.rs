//! Pods of every kind on one node that really run, take their time to end, and start elsewhere.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::Pod,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, api::PostParams};
use reboot_tests::{
    call::until,
    real::RealOptions,
    referee::{Expect, Verdict},
    scene::LIMIT,
    workload::{POD_IMAGE, Workload, is_ready},
};
use serde_json::{Value, json};

use crate::stage::Stage;

/// The node that is drained.
const NODE: &str = "node-1";
/// It ends as soon as it is told to.
const PROMPT: &str = "trap exit TERM; while :; do sleep 3600 & wait; done";
/// Only SIGKILL ends it.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";
const STUBBORN_GRACE: SignedDuration = SignedDuration::from_secs(8);
/// It takes some seconds, and much less than it has.
const SLOW: &str = "trap 'sleep 5; exit' TERM; while :; do sleep 1; done";
/// Pods of no special kind: with the others they are sixty.
const MANY: i32 = 50;

/// Sixty pods: some ignore SIGTERM, some are slow, some are a `StatefulSet` under a PDB, one is a Job's, one is nobody's,
/// one has an emptyDir. Each goes in its own time and none is waited for longer than it takes.
pub(crate) async fn every_kind_of_pod() {
    let stage = Stage::with(&RealOptions { nodes: 3, ..RealOptions::default() }, 1).await;
    for node in ["node-2", "node-3"] {
        stage.cordon(node).await;
    }
    deploy(&stage).await;
    for node in ["node-2", "node-3"] {
        stage.uncordon(node).await;
    }
    stage.node(NODE).announce_update(crate::stage::UPDATE).await.unwrap();
    stage.until_event(NODE, "EvictedUnmanaged", "default/bare").await;
    stage.until_event(NODE, "EvictedEmptyDir", "default/scratch-").await;
    stage.until_rebooted(NODE).await;
    let evicted = accepted(&stage);
    let verdict = stage.ends(&Expect::rebooted_once([NODE])).await;

    assert!(evicted.len() >= 60, "{evicted:?}");
    // Those of the `StatefulSet` have returned under their names, on other nodes.
    assert!(evicted.values().all(|times| *times == 1), "{evicted:?}");
    assert!((0..3).all(|number| evicted.contains_key(&format!("db-{number}"))), "{evicted:?}");
    let stubborn = lasted(&verdict, "default/stubborn-");
    assert!(stubborn >= STUBBORN_GRACE, "{stubborn:#}");
    let waited = after_the_last_pod(&verdict);
    assert!(waited < SignedDuration::from_secs(3), "{waited:#} after the last pod was gone");
}

async fn deploy(stage: &Stage) {
    let client = stage.client();
    let spec = |app: &str, replicas: i32, grace: i64, script: &str| {
        json!({
            "replicas": replicas, "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app}}, "spec": pod(grace, script)},
        })
    };
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let stubborn = spec("stubborn", 2, STUBBORN_GRACE.as_secs(), STUBBORN);
    let mut scratch = spec("scratch", 1, 30, PROMPT);
    scratch["template"]["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    for (name, spec) in [("stubborn", stubborn), ("slow", spec("slow", 2, 600, SLOW)), ("scratch", scratch)] {
        create(&deployments, name, spec).await;
    }
    let mut set = spec("db", 3, 30, PROMPT);
    set["serviceName"] = json!("db");
    create(&Api::<StatefulSet>::default_namespaced(client.clone()), "db", set).await;
    let budget = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "db"}}});
    create(&Api::<PodDisruptionBudget>::default_namespaced(client.clone()), "db", budget).await;
    let mut template = pod(30, PROMPT);
    template["restartPolicy"] = json!("Never");
    create(&Api::<Job>::default_namespaced(client.clone()), "job", json!({"template": {"spec": template}})).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    create(&pods, "bare", pod(30, PROMPT)).await;

    Workload::new("many", MANY).without_pdb().deploy(&client).await.unwrap();
    until(LIMIT, "waiting for the bare pod", pods, "bare", |pod: Option<&Pod>| pod.is_some_and(is_ready))
        .await
        .unwrap();
    for (name, replicas) in [("stubborn", 2), ("slow", 2), ("scratch", 1)] {
        let ready = |set: Option<&Deployment>| {
            set.and_then(|set| set.status.as_ref()?.ready_replicas).is_some_and(|ready| ready == replicas)
        };
        until(LIMIT, format!("waiting for {name}"), deployments.clone(), name, ready).await.unwrap();
    }
    let allowed = |budget: Option<&PodDisruptionBudget>| {
        budget.and_then(|budget| budget.status.as_ref()).is_some_and(|status| status.current_healthy == 3)
    };
    let budgets = Api::default_namespaced(client.clone());
    until(LIMIT, "waiting for the StatefulSet and its PDB", budgets, "db", allowed).await.unwrap();
    let runs = |job: Option<&Job>| job.and_then(|job| job.status.as_ref()?.ready).is_some_and(|ready| ready == 1);
    until(LIMIT, "waiting for the Job", Api::default_namespaced(client), "job", runs).await.unwrap();
}

fn pod(grace: i64, script: &str) -> Value {
    let container = json!({"name": "main", "image": POD_IMAGE, "command": ["/busybox", "sh", "-c", script]});
    json!({"terminationGracePeriodSeconds": grace, "containers": [container]})
}

async fn create<K>(objects: &Api<K>, name: &str, spec: Value)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    objects.create(&PostParams::default(), &object).await.unwrap();
}

/// How often an eviction of each pod was accepted.
fn accepted(stage: &Stage) -> BTreeMap<String, usize> {
    let mut accepted = BTreeMap::new();
    for request in stage.cluster.control_plane().audit().unwrap() {
        if request.resource == "pods/eviction" && request.code == 201 {
            *accepted.entry(request.name).or_default() += 1;
        }
    }
    accepted
}

/// How long it took from the first deletion of such a pod to the last that was gone.
fn lasted(verdict: &Verdict, pods: &str) -> SignedDuration {
    let on_node = |what: &str| {
        let of_them = verdict.timeline.iter().filter(|moment| moment.subject.starts_with(pods));
        of_them
            .filter(|moment| moment.what == format!("{what} {NODE}"))
            .map(|moment| moment.at.time)
            .collect::<Vec<_>>()
    };
    on_node("gone from").last().unwrap().duration_since(on_node("deleted on")[0])
}

/// How long after the last pod was gone the agent passed its point of no return.
fn after_the_last_pod(verdict: &Verdict) -> SignedDuration {
    let rebooting = |what: &str| what.starts_with("reboot-in-progress") && what.contains("rebooting");
    let passed = verdict.timeline.iter().position(|moment| moment.subject == NODE && rebooting(&moment.what)).unwrap();
    let gone = format!("gone from {NODE}");
    let last = verdict.timeline[..passed].iter().rfind(|moment| moment.what == gone).unwrap();
    verdict.timeline[passed].at.time.duration_since(last.at.time)
}
