//! What scenarios do and wait for as people would: on Nodes, with annotations and cordons, and by what Nodes, the ledger
//! and the Lease show. A referee watches; what a person does is declared to it.

#![allow(clippy::unwrap_used, reason = "steps of tests, which panic on failure")]
#![allow(clippy::missing_panics_doc, reason = "said once, on the type")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    pin::pin,
    time::Duration,
};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use serde_json::{Value, json};

use crate::{
    call::{until, within},
    referee::{
        Declaration, Expect, Referee, Verdict,
        history::{NodeSeen, PREFIX, PodSeen},
    },
    workload::{POD_IMAGE, is_ready},
};

/// The longest wait for anything. An idle machine needs seconds, a busy one may need much longer; and where an agent is
/// killed while it evicts, the API server may have charged the budget and not deleted the pod: the disruption controller
/// gives that up after two minutes (`DeletionTimeout`), and until then nobody can evict.
pub const LIMIT: Duration = Duration::from_mins(4);
/// Where the operator's own objects are.
pub const NAMESPACE: &str = "reboot-operator";

/// A cluster as its administrator sees it, and its referee.
///
/// Its methods panic when something does not happen: they are steps of a test.
pub struct Scene {
    client: Client,
    /// The referee.
    pub referee: Referee,
}

impl Scene {
    /// The scene that this referee watches.
    pub fn new(client: Client, referee: Referee) -> Self {
        Self { client, referee }
    }

    /// A client of the administrator.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A person sets an annotation (named without the prefix), or removes it.
    pub async fn annotate(&self, node: &str, key: &str, value: Option<&str>) {
        let annotations = json!({(format!("{PREFIX}{key}")): value});
        self.patch_node(node, &json!({"metadata": {"annotations": annotations}})).await;
    }

    /// A person cordons the node; the referee knows.
    pub async fn cordon(&self, node: &str) {
        self.referee.declare(Declaration::ForeignCordon(node.to_owned())).await.unwrap();
        self.patch_node(node, &json!({"spec": {"unschedulable": true}})).await;
    }

    /// The person uncordons it.
    pub async fn uncordon(&self, node: &str) {
        self.referee.declare(Declaration::ForeignCordonEnds(node.to_owned())).await.unwrap();
        self.patch_node(node, &json!({"spec": {"unschedulable": null}})).await;
    }

    async fn patch_node(&self, node: &str, patch: &Value) {
        let nodes: Api<Node> = Api::all(self.client());
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Puts a pod on the node that takes an hour to end once it is evicted, or until [`Scene::weigh_anchor`]: it holds a
    /// drain. (A finalizer would not do: on a real node the pod's phase becomes Succeeded, and nobody waits for it.)
    pub async fn anchor(&self, node: &str) {
        let name = anchor_of(node);
        let command = ["/busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
        let pod = json!({
            "metadata": {"name": name, "annotations": {"testbed/termination": "1h"}},
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 3600,
                "containers": [{"name": "main", "image": POD_IMAGE, "command": command}],
            },
        });
        let pods: Api<Pod> = Api::default_namespaced(self.client());
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let ready = |pod: Option<&Pod>| pod.is_some_and(is_ready);
        until(LIMIT, format!("waiting for {name}"), pods, &name, ready).await.unwrap();
    }

    /// Waits until the anchor is evicted; other evictions may be under way.
    pub async fn until_anchor_evicted(&self, node: &str) {
        let evicted = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
        let pods: Api<Pod> = Api::default_namespaced(self.client());
        until(LIMIT, format!("the drain of {node}"), pods, &anchor_of(node), evicted).await.unwrap();
    }

    /// Waits until the anchor is all that is left to go, but for a controller that may be here: it goes last.
    pub async fn until_at_anchor(&self, node: &str) {
        let only_here = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let (pods, writer) = reflector::store();
        let changes = watcher(Api::<Pod>::all(self.client()), only_here).reflect(writer);
        let mut held = pin!(changes.try_filter(|_| {
            let pods = pods.state();
            let mut left =
                pods.iter().map(|pod| PodSeen::from(&**pod)).filter(|pod| pod.evictable && pod.namespace != NAMESPACE);
            let anchor = left.next().is_some_and(|pod| pod.terminating && pod.name == anchor_of(node));
            ready(anchor && left.next().is_none())
        }));
        within(LIMIT, format!("the drain of {node}"), held.try_next()).await.unwrap();
    }

    /// Lets the anchor go: it is deleted by force, as people do with what hangs.
    pub async fn weigh_anchor(&self, node: &str) {
        let pods: Api<Pod> = Api::default_namespaced(self.client());
        let now = DeleteParams::default().grace_period(0);
        match pods.delete(&anchor_of(node), &now).await {
            // The machine may have gone down with it, and its Node too.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.unwrap()),
        }
    }

    /// Waits until the Node looks like that; `what` ends the sentence "waiting for node-1 …".
    pub async fn until_node(&self, node: &str, what: &str, holds: impl Fn(&NodeSeen) -> bool) -> NodeSeen {
        let nodes: Api<Node> = Api::all(self.client());
        let holds = |node: Option<&Node>| node.is_some_and(|node| holds(&NodeSeen::from(node)));
        match until(LIMIT, format!("waiting for {node} {what}"), nodes, node, holds).await {
            Ok(seen) => NodeSeen::from(&seen.unwrap()),
            Err(error) => panic!("{error:#}\n{}", story(&self.referee.so_far().await.unwrap())),
        }
    }

    /// Waits until the node waits for this reason; returns all that is said.
    pub async fn until_waiting(&self, node: &str, reason: &str) -> Value {
        let what = format!("to wait for {reason}");
        waiting(&self.until_node(node, &what, |node| waiting(node)["reason"] == *reason).await)
    }

    /// Waits until `reboot-status` has these words.
    pub async fn until_status(&self, node: &str, words: &str) -> NodeSeen {
        let says = |node: &NodeSeen| node.notes.get("reboot-status").is_some_and(|status| status.contains(words));
        self.until_node(node, &format!("to say {words:?}"), says).await
    }

    /// Waits until the node's cycle was given back for this reason, and the node serves as before.
    pub async fn until_given_back(&self, node: &str, reason: &str) -> NodeSeen {
        let back = |node: &NodeSeen| {
            let last = last_reboot(node);
            last["outcome"] == "gave-back" && last["reason"] == *reason && !node.cordoned && phase_of(node).is_none()
        };
        self.until_node(node, &format!("to give back because of {reason}"), back).await
    }

    /// Waits for an Event on the node with this reason and these words in its message.
    pub async fn until_event(&self, node: &str, reason: &str, words: &str) {
        let about = watcher::Config::default().fields(&format!("involvedObject.name={node}"));
        let events = watcher(Api::<Event>::default_namespaced(self.client()), about).default_backoff();
        let mut told = pin!(events.applied_objects().try_filter(|event| {
            let says = event.message.as_deref().is_some_and(|message| message.contains(words));
            ready(says && event.reason.as_deref() == Some(reason))
        }));
        within(LIMIT, format!("an Event {reason} on {node}: {words}"), told.try_next()).await.unwrap();
    }

    /// Waits until the node's cycle has ended in a reboot, and the node serves again.
    pub async fn until_rebooted(&self, node: &str) -> NodeSeen {
        let done = |node: &NodeSeen| node.ready && !node.cordoned && last_reboot(node)["outcome"] == "rebooted";
        self.until_node(node, "to have rebooted", |node| done(node) && phase_of(node).is_none()).await
    }

    /// Waits until the nodes that hold a slot are these, in the order of their names.
    pub async fn until_slots(&self, nodes: &[&str]) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), NAMESPACE);
        let held = |map: Option<&ConfigMap>| map.is_some_and(|map| slots(map) == BTreeSet::from_iter(owned(nodes)));
        until(LIMIT, format!("waiting for the slots {nodes:?}"), maps, "reboot-slots", held).await.unwrap();
    }

    /// Waits until the Lease is held by anyone but `other`; returns the holder.
    pub async fn until_led(&self, other: Option<&str>) -> String {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        let led = |lease: Option<&Lease>| holder(lease).is_some_and(|holder| Some(holder) != other);
        let lease = until(LIMIT, "waiting for a leader", leases, "reboot-controller", led).await.unwrap();
        holder(lease.as_ref()).unwrap().to_owned()
    }

    /// Removes the Lease of a controller that was killed, so that the next one need not wait it out: how long that takes
    /// is the subject of `two`.
    pub async fn forget_leader(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        leases.delete("reboot-controller", &DeleteParams::default()).await.unwrap();
    }

    /// The verdict at the end of a sound scenario: the expected state is reached, no slot is left, and no rule was broken.
    pub async fn verdict(self, expect: &Expect) -> Verdict {
        let verdict = self.end(expect).await;
        assert_eq!(verdict.violations, [""; 0], "{}", story(&verdict));
        verdict
    }

    /// The verdict on a saboteur: the expected state is reached, and rules were broken in each of these words, and no
    /// others.
    pub async fn caught(self, expect: &Expect, words: &[&str]) {
        let verdict = self.end(expect).await;
        for words in words {
            assert!(verdict.violations.iter().any(|text| text.contains(words)), "{words}: {verdict:#?}");
        }
        let expected = |text: &String| words.iter().any(|words| text.contains(words));
        assert!(verdict.violations.iter().all(expected), "{:#?}\n{}", verdict.violations, story(&verdict));
    }

    async fn end(self, expect: &Expect) -> Verdict {
        let settled = self.referee.settled(expect, LIMIT).await;
        if let Err(error) = settled {
            panic!("{error:#}\n{}", story(&self.referee.so_far().await.unwrap()));
        }
        self.until_slots(&[]).await;
        self.referee.finish(expect).await.unwrap()
    }
}

/// The phase of the cycle that is in progress.
pub fn phase_of(node: &NodeSeen) -> Option<String> {
    Some(json_of(node, "reboot-in-progress")["phase"].as_str()?.to_owned())
}

/// Why the node waits (`reboot-waiting`); null where it does not.
pub fn waiting(node: &NodeSeen) -> Value {
    json_of(node, "reboot-waiting")
}

/// How the node's latest cycle ended; null before the first.
pub fn last_reboot(node: &NodeSeen) -> Value {
    json_of(node, "last-reboot")
}

/// The value of an annotation; null where there is none.
fn json_of(node: &NodeSeen, key: &str) -> Value {
    node.notes.get(key).map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
}

/// The nodes in the order in which they were granted a reboot, as often as they were.
pub fn grants(verdict: &Verdict) -> Vec<&str> {
    let granted = verdict.timeline.iter().filter(|moment| moment.what.starts_with("reboot = "));
    granted.map(|moment| moment.subject.as_str()).collect()
}

/// The order in which the nodes' requests came in: by time, then name.
pub fn queue(verdict: &Verdict) -> Vec<&str> {
    let mut asked = BTreeMap::new();
    for moment in &verdict.timeline {
        if let Some(request) = moment.what.strip_prefix("reboot-request = ") {
            let request: Value = serde_json::from_str(request).unwrap();
            let since: Timestamp = request["since"].as_str().unwrap().parse().unwrap();
            asked.entry(moment.subject.as_str()).or_insert(since);
        }
    }
    let mut queue: Vec<_> = asked.into_iter().map(|(node, since)| (since, node)).collect();
    queue.sort_unstable();
    queue.into_iter().map(|(_, node)| node).collect()
}

/// How many cycles were in progress at the same time, at most.
pub fn most_at_once(verdict: &Verdict) -> usize {
    let (mut under_way, mut most) = (BTreeSet::new(), 0);
    for moment in &verdict.timeline {
        if moment.what.starts_with("reboot-in-progress = ") {
            under_way.insert(&moment.subject);
        } else if moment.what == "reboot-in-progress removed" {
            under_way.remove(&moment.subject);
        }
        most = most.max(under_way.len());
    }
    most
}

/// What happened, for whoever looks into a failure.
pub fn story(verdict: &Verdict) -> String {
    let moments: Vec<_> = verdict.timeline.iter().map(ToString::to_string).collect();
    moments.join("\n")
}

fn slots(map: &ConfigMap) -> BTreeSet<String> {
    let text = map.data.as_ref().and_then(|data| data.get("ledger"));
    let ledger: Value = text.map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
    let slots = ledger["slots"].as_array().into_iter().flatten();
    slots.map(|slot| slot["node"].as_str().unwrap().to_owned()).collect()
}

fn holder(lease: Option<&Lease>) -> Option<&str> {
    lease?.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn anchor_of(node: &str) -> String {
    format!("anchor-{node}")
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
