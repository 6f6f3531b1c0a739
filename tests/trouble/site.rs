//! One node of a world: what a person does to it with kubectl, and what is seen of it.

use std::pin::pin;

use futures::TryStreamExt as _;
use k8s_openapi::api::{
    core::v1::{Event, Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use reboot_tests::{
    call::{until, within},
    proxy::Proxy,
    referee::{
        Declaration,
        history::{NodeSeen, PREFIX},
    },
    sim::{Machine, Reboots},
    workload::is_ready,
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World};

/// A node and the machine under it.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) world: &'a World,
    pub(crate) machine: &'a Machine,
}

impl<'a> Site<'a> {
    pub(crate) fn name(self) -> &'a str {
        self.machine.node().name()
    }

    /// A person sets an annotation, named without the prefix.
    pub(crate) async fn annotate(self, key: &str, value: &str) {
        let pair = format!("{PREFIX}{key}={value}");
        self.world.kubectl(&["annotate", "--overwrite", "node", self.name(), &pair]).await;
    }

    /// A person removes an annotation.
    pub(crate) async fn remove(self, key: &str) {
        self.world.kubectl(&["annotate", "node", self.name(), &format!("{PREFIX}{key}-")]).await;
    }

    /// A person asks for a reboot.
    pub(crate) async fn ask(self) {
        self.annotate("reboot-needed", "new kernel parameters").await;
    }

    /// A person forces a reboot; the referee knows.
    pub(crate) async fn force(self) {
        self.world.declare(Declaration::Forced(self.name().to_owned())).await;
        self.annotate("reboot", "now").await;
    }

    /// A person cordons the node; the referee knows.
    pub(crate) async fn cordon(self) {
        self.world.declare(Declaration::ForeignCordon(self.name().to_owned())).await;
        self.world.kubectl(&["cordon", self.name()]).await;
    }

    /// The person uncordons it.
    pub(crate) async fn uncordon(self) {
        self.world.declare(Declaration::ForeignCordonEnds(self.name().to_owned())).await;
        self.world.kubectl(&["uncordon", self.name()]).await;
    }

    /// A person deletes the Node; the machine and its agent run on.
    pub(crate) async fn delete(self) -> Node {
        let nodes: Api<Node> = Api::all(self.world.client());
        let node = nodes.get(self.name()).await.unwrap();
        self.world.kubectl(&["delete", "node", self.name()]).await;
        node
    }

    /// The same machine registers again, as another Node, of which a reboot is asked at once.
    pub(crate) async fn register_anew(self, mut node: Node) {
        let annotations = [(format!("{PREFIX}reboot-needed"), "asked of the new Node".to_owned())];
        let (name, labels) = (node.metadata.name.take(), node.metadata.labels.take());
        node.metadata = ObjectMeta { name, labels, annotations: Some(annotations.into()), ..ObjectMeta::default() };
        node.spec = None;
        let nodes: Api<Node> = Api::all(self.world.client());
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }

    /// Puts a pod on the node whose eviction is accepted, and which then stays until [`Site::release`]: it holds every
    /// drain.
    pub(crate) async fn anchor(self) {
        let pod = json!({
            "metadata": {"name": self.anchor_name(), "finalizers": ["testbed/anchor"]},
            "spec": {"nodeName": self.name(), "containers": [{"name": "main", "image": "testbed"}]},
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Whether a drain has come to the anchor.
    pub(crate) async fn anchor_is_evicted(self) -> bool {
        self.pods().get(&self.anchor_name()).await.unwrap().metadata.deletion_timestamp.is_some()
    }

    /// Waits until a drain has come to the anchor, and holds.
    pub(crate) async fn until_anchored(self) -> NodeSeen {
        let evicted = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
        until(LIMIT, format!("the drain of {}", self.name()), self.pods(), &self.anchor_name(), evicted).await.unwrap();
        self.until("to drain", |node| phase(node) == "draining").await
    }

    /// Lets the anchor go, and with it every drain.
    pub(crate) async fn release(self) {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.pods().patch(&self.anchor_name(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// Asks, and returns when the drain has come to the anchor.
    pub(crate) async fn drain_held(self) -> NodeSeen {
        self.anchor().await;
        self.ask().await;
        self.until_anchored().await
    }

    /// Puts a pod on the node that a PDB never lets go, until [`Site::unblock`].
    pub(crate) async fn block(self) {
        let name = format!("blocker-{}", self.name());
        let labels = json!({"app": name});
        let budget = json!({
            "metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
        });
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": self.name(), "containers": [{"name": "main", "image": "testbed"}]},
        });
        let parameters = PostParams::default();
        self.budgets().create(&parameters, &serde_json::from_value(budget).unwrap()).await.unwrap();
        self.pods().create(&parameters, &serde_json::from_value(pod).unwrap()).await.unwrap();
        // A pod that is not Ready may be evicted.
        let ready = |pod: Option<&Pod>| pod.is_some_and(is_ready);
        until(LIMIT, "the blocker", self.pods(), &name, ready).await.unwrap();
        let counted = |budget: Option<&PodDisruptionBudget>| {
            budget.and_then(|budget| budget.status.as_ref()).is_some_and(|status| status.current_healthy == 1)
        };
        until(LIMIT, "the blocker's PDB", self.budgets(), &name, counted).await.unwrap();
    }

    /// Takes the PDB away.
    pub(crate) async fn unblock(self) {
        self.budgets().delete(&format!("blocker-{}", self.name()), &DeleteParams::default()).await.unwrap();
    }

    /// Starts the agent anew, with a bad way to the API server of its own.
    pub(crate) async fn start_agent_behind_proxy(self) -> Proxy {
        let control_plane = self.world.cluster.control_plane();
        let proxy = Proxy::start(&control_plane.kubeconfig()).await.unwrap();
        let own = control_plane.kubeconfig_of(&format!("reboot-agent-{}", self.name())).unwrap();
        let kubeconfig = proxy.kubeconfig(&own).unwrap();
        self.machine.start_agent(&["--kubeconfig", kubeconfig.to_str().unwrap()]).unwrap();
        proxy
    }

    /// From its next reboot on the machine stays down until it is brought back.
    pub(crate) fn stays_down(self) {
        self.machine.set_reboots(Reboots { comes_back: false, ..Reboots::default() });
    }

    /// Waits for an Event on the Node: its type, its reason, and words of its message. Returns the message.
    pub(crate) async fn until_event(self, kind: &str, reason: &str, words: &str) -> String {
        let events: Api<Event> = Api::default_namespaced(self.world.client());
        let about = watcher::Config::default().fields(&format!("involvedObject.name={}", self.name()));
        let is = |event: &Event| {
            let says = event.message.as_deref().unwrap_or_default().contains(words);
            says && event.type_.as_deref() == Some(kind) && event.reason.as_deref() == Some(reason)
        };
        let mut events = pin!(watcher(events, about).default_backoff().applied_objects());
        let found = async {
            while let Some(event) = events.try_next().await? {
                if is(&event) {
                    return Ok(event.message.unwrap_or_default());
                }
            }
            anyhow::bail!("the watch ended")
        };
        within(LIMIT, format!("a {kind} Event {reason} on {}: {words}", self.name()), found).await.unwrap()
    }

    /// Waits until the Node looks like that; `what` ends the sentence "node-1 …".
    pub(crate) async fn until(self, what: &str, holds: impl Fn(&NodeSeen) -> bool) -> NodeSeen {
        let nodes: Api<Node> = Api::all(self.world.client());
        let holds = |node: Option<&Node>| node.is_some_and(|node| holds(&NodeSeen::from(node)));
        match until(LIMIT, format!("waiting for {} {what}", self.name()), nodes, self.name(), holds).await {
            Ok(node) => NodeSeen::from(&node.unwrap()),
            Err(error) => panic!("{error:#}\n{:#?}", self.seen().await),
        }
    }

    /// The Node as it is now.
    pub(crate) async fn seen(self) -> NodeSeen {
        let nodes: Api<Node> = Api::all(self.world.client());
        NodeSeen::from(&nodes.get(self.name()).await.unwrap())
    }

    /// Waits until the node waits for this reason; returns all that is said of it.
    pub(crate) async fn until_waiting(self, reason: &str) -> Value {
        let waits = |node: &NodeSeen| value(node, "reboot-waiting")["reason"] == *reason;
        value(&self.until(&format!("to wait for {reason}"), waits).await, "reboot-waiting")
    }

    /// Waits until `reboot-status` has these words.
    pub(crate) async fn until_status(self, words: &str) -> NodeSeen {
        let says = |node: &NodeSeen| node.notes.get("reboot-status").is_some_and(|status| status.contains(words));
        self.until(&format!("to say {words:?}"), says).await
    }

    /// Waits until the latest cycle was given back for this reason and the node serves as before; returns what is said
    /// of it.
    pub(crate) async fn until_given_back(self, reason: &str) -> Value {
        let back = |node: &NodeSeen| {
            let last = value(node, "last-reboot");
            last["outcome"] == "gave-back" && last["reason"] == *reason && !node.cordoned && phase(node).is_empty()
        };
        value(&self.until(&format!("to give back because of {reason}"), back).await, "last-reboot")
    }

    /// Waits until the latest cycle has ended in a reboot and nothing of it is left; returns what is said of it.
    pub(crate) async fn until_rebooted(self) -> Value {
        let done = |node: &NodeSeen| {
            let ended = ["reboot-needed", "reboot-request", "reboot", "reboot-in-progress", "reboot-waiting"];
            let clean = ended.iter().all(|key| !node.notes.contains_key(*key));
            node.ready && clean && value(node, "last-reboot")["outcome"] == "rebooted"
        };
        value(&self.until("to have rebooted", done).await, "last-reboot")
    }

    fn pods(self) -> Api<Pod> {
        Api::default_namespaced(self.world.client())
    }

    fn budgets(self) -> Api<PodDisruptionBudget> {
        Api::default_namespaced(self.world.client())
    }

    fn anchor_name(self) -> String {
        format!("anchor-{}", self.name())
    }
}

/// The value of an annotation; null where there is none, or one that is no JSON.
pub(crate) fn value(node: &NodeSeen, key: &str) -> Value {
    node.notes.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The phase of the cycle that is in progress; empty where there is none.
pub(crate) fn phase(node: &NodeSeen) -> String {
    value(node, "reboot-in-progress")["phase"].as_str().unwrap_or_default().to_owned()
}
