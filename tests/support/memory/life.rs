//! What else a cluster needs to look alive: Deployments get pods, pods get nodes, and kubelets run and end them.
//!
//! In real time, for a demo. The annotations `testbed/ready-after` and `testbed/termination` mean what they mean in
//! `kwok.yaml`.

use std::{collections::BTreeSet, time::Duration};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::MemoryApi;

/// Who writes here.
const CONTROLLERS: &str = "kube-controller-manager";
const KUBELET: &str = "kubelet";
/// Containers stop after this, unless their pod says otherwise.
const TERMINATION: Duration = Duration::from_millis(200);

/// Plays all this; never returns.
pub async fn live(api: MemoryApi) {
    let mut changes = api.changes();
    let mut kubelets =
        Kubelets { api: api.clone(), starting: BTreeSet::new(), ending: BTreeSet::new(), tasks: JoinSet::new() };
    loop {
        scale(&api);
        schedule(&api);
        kubelets.run();
        tokio::select! {
            change = changes.recv() => {
                if change.is_none() {
                    return;
                }
            }
            Some(_) = kubelets.tasks.join_next() => {}
        }
        // What has come meanwhile is seen by the same look.
        while changes.try_recv().is_ok() {}
    }
}

/// Every Deployment has as many pods as it wants, and says how many are Ready.
fn scale(api: &MemoryApi) {
    for deployment in api.list("deployments", "") {
        let (name, namespace) = (text(&deployment, "/metadata/name"), text(&deployment, "/metadata/namespace"));
        let uid = &deployment["metadata"]["uid"];
        let of_it = |pod: &Value| pod.pointer("/metadata/ownerReferences/0/uid") == Some(uid) && !is_ending(pod);
        let pods: Vec<_> = api.list("pods", namespace).into_iter().filter(|pod| of_it(pod)).collect();
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or_default();
        for _ in pods.len() as u64..wanted {
            let mut pod = deployment["spec"]["template"].clone();
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["namespace"] = json!(namespace);
            pod["metadata"]["generateName"] = json!(format!("{name}-"));
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid, "controller": true,
            }]);
            // What is refused is tried again with the next change.
            let _refused = api.create(CONTROLLERS, &pod);
        }
        let ready = pods.iter().filter(|pod| super::budgets::is_ready(pod)).count();
        let status = json!({"status": {"replicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready}});
        let _refused = api.patch(CONTROLLERS, "deployments/status", namespace, name, &status);
    }
}

/// Every pod has a node: the one with the fewest pods of those that are Ready and not cordoned.
fn schedule(api: &MemoryApi) {
    let pods = api.list("pods", "");
    let node_of = |pod: &Value| text(pod, "/spec/nodeName").to_owned();
    let mut taken: Vec<String> = pods.iter().map(|pod| node_of(pod)).collect();
    let nodes: Vec<_> = api.list("nodes", "").into_iter().filter(|node| takes_pods(node)).collect();
    for pod in pods.iter().filter(|pod| node_of(pod).is_empty() && !is_ending(pod)) {
        let load = |node: &str| taken.iter().filter(|other| *other == node).count();
        let names = nodes.iter().map(|node| text(node, "/metadata/name"));
        let Some(node) = names.min_by_key(|node| load(node)).map(str::to_owned) else { return };
        let patch = json!({"spec": {"nodeName": node}});
        let (name, namespace) = (text(pod, "/metadata/name"), text(pod, "/metadata/namespace"));
        if api.patch("kube-scheduler", "pods", namespace, name, &patch).is_ok() {
            taken.push(node);
        }
    }
}

struct Kubelets {
    api: MemoryApi,
    /// UIDs of pods that are on their way.
    starting: BTreeSet<String>,
    ending: BTreeSet<String>,
    tasks: JoinSet<()>,
}

impl Kubelets {
    /// Starts what has a node and ends what is deleted.
    fn run(&mut self) {
        for pod in self.api.list("pods", "") {
            let uid = text(&pod, "/metadata/uid").to_owned();
            let place = (text(&pod, "/metadata/namespace").to_owned(), text(&pod, "/metadata/name").to_owned());
            let api = self.api.clone();
            if is_ending(&pod) {
                if self.ending.insert(uid.clone()) {
                    let after = delay(&pod, "testbed~1termination").unwrap_or(TERMINATION);
                    self.tasks.spawn(async move {
                        sleep(after).await;
                        end(&api, &place, &uid);
                    });
                }
            } else if !text(&pod, "/spec/nodeName").is_empty() && self.starting.insert(uid) {
                let after = delay(&pod, "testbed~1ready-after");
                tell(&api, &place, &pod, after.is_none());
                if let Some(after) = after {
                    self.tasks.spawn(async move {
                        sleep(after).await;
                        tell(&api, &place, &pod, true);
                    });
                }
            }
        }
    }
}

/// kubelet says that a pod runs, and whether it is Ready.
fn tell(api: &MemoryApi, (namespace, name): &(String, String), pod: &Value, ready: bool) {
    let word = if ready { "True" } else { "False" };
    let conditions = ["Initialized", "ContainersReady", "Ready"]
        .map(|kind| json!({"type": kind, "status": if kind == "Initialized" { "True" } else { word }}));
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let containers: Vec<_> = containers
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0,
                "state": {"running": {}},
            })
        })
        .collect();
    let status = json!({"status": {"phase": "Running", "conditions": conditions, "containerStatuses": containers}});
    // The pod may be gone by now.
    let _gone = api.patch(KUBELET, "pods/status", namespace, name, &status);
}

/// kubelet says that a pod's containers have ended: that is the end of the pod.
fn end(api: &MemoryApi, (namespace, name): &(String, String), uid: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    let _gone = api.request(KUBELET, Method::DELETE, &path, &options);
}

fn takes_pods(node: &Value) -> bool {
    super::budgets::is_ready(node) && node["spec"]["unschedulable"] != true
}

fn is_ending(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The duration in an annotation (its name escaped as in JSON pointers), such as `700ms`.
fn delay(pod: &Value, annotation: &str) -> Option<Duration> {
    let text = pod.pointer(&format!("/metadata/annotations/{annotation}"))?.as_str()?;
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
