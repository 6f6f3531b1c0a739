//! One node of a stage with a namespace of its own, which has its name: what people and controllers do there, and what is
//! seen of it.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, ServiceAccount},
    policy::v1::{Eviction, PodDisruptionBudget},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::Status,
};
use reboot_tests::{
    call::{until, within},
    control_plane::audit::Request,
    proxy::{Fault, Proxy},
    referee::history::NodeSeen,
    scene::phase_of,
    sim::Machine,
};
use serde_json::{Value, json};

use crate::{
    pods::{lasting, of, on, pod},
    stage::{LIMIT, Stage},
};

/// A node and its machine.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) machine: &'a Machine,
}

/// How the path of an eviction ends.
pub(crate) const EVICTION: &str = "/eviction";

impl Site<'_> {
    /// The name of the node, and of the namespace.
    pub(crate) fn name(&self) -> &str {
        self.machine.node().name()
    }

    pub(crate) async fn make_namespace(self) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": self.name()}})).unwrap();
        Api::all(self.stage.client()).create(&PostParams::default(), &namespace).await.unwrap();
        // Without it the API server refuses every pod.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.stage.client(), self.name());
        let exists = |account: Option<&ServiceAccount>| account.is_some();
        until(LIMIT, "waiting for the default service account", accounts, "default", exists).await.unwrap();
    }

    /// Creates a pod, on this node unless it says where, and waits until it runs. Returns its UID.
    pub(crate) async fn create(self, mut pod: Value) -> String {
        if pod["spec"]["nodeName"].is_null() {
            pod = on(self.name(), pod);
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
        let running = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        self.until_pod(&pod.name_any(), "to run", running).await.uid().unwrap()
    }

    /// Makes or changes the PDB of the pods with the label `app` of this name, and waits until its status says that it
    /// lets so many go.
    pub(crate) async fn budget(self, name: &str, spec: Value, allowed: i32) {
        self.budget_over(name, name, spec, allowed).await;
    }

    /// The same for pods with another label.
    pub(crate) async fn budget_over(self, app: &str, name: &str, mut spec: Value, allowed: i32) {
        spec["selector"] = json!({"matchLabels": {"app": app}});
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec,
        });
        let apply = PatchParams::apply("test").force();
        self.budgets().patch(name, &apply, &Patch::Apply(&budget)).await.unwrap();
        let counted = |budget: Option<&PodDisruptionBudget>| {
            budget.and_then(|budget| Some((budget.metadata.generation, budget.status.as_ref()?))).is_some_and(
                |(generation, status)| {
                    status.observed_generation == generation && status.disruptions_allowed == allowed
                },
            )
        };
        until(LIMIT, format!("the PDB {name} to allow {allowed}"), self.budgets(), name, counted).await.unwrap();
    }

    /// A person asks for a reboot.
    pub(crate) async fn ask(self) {
        self.stage.annotate(self.name(), "reboot-needed", Some("new kernel parameters")).await;
    }

    /// Starts the agent anew, behind a proxy of its own.
    pub(crate) async fn agent_behind_proxy(self, args: &[&str]) -> Proxy {
        let control_plane = self.stage.cluster.control_plane();
        let proxy = Proxy::start(&control_plane.kubeconfig()).await.unwrap();
        let own = control_plane.kubeconfig_of(&format!("reboot-agent-{}", self.name())).unwrap();
        let kubeconfig = proxy.kubeconfig(&own).unwrap();
        let args: Vec<_> = ["--kubeconfig", kubeconfig.to_str().unwrap()].iter().chain(args).copied().collect();
        self.machine.start_agent(&args).unwrap();
        proxy
    }

    /// Asks, and returns when the agent has posted so many evictions, which the proxy holds.
    pub(crate) async fn ask_and_hold(self, evictions: usize, args: &[&str]) -> Proxy {
        let proxy = self.agent_behind_proxy(args).await;
        proxy.set_for(EVICTION, Fault::Hold);
        self.ask().await;
        proxy.until_met(evictions).await.unwrap();
        proxy
    }

    /// Asks, with two pods here under the budget `pair`, which lets one of them go, and that one does not end. Returns the
    /// name of the other, which the drain waits for.
    pub(crate) async fn drain_one_of_two(self) -> String {
        for name in ["one", "two"] {
            self.create(lasting(of("pair", pod(name)))).await;
        }
        self.budget("pair", json!({"minAvailable": 1}), 1).await;
        self.ask().await;
        self.until_status("is blocked by PodDisruptionBudget pair").await;
        let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
        let left: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        left[0].name_any()
    }

    /// Waits until the API server would answer an eviction of this pod so. What its admission goes by is a cache that
    /// nobody can watch.
    pub(crate) async fn until_answer(self, pod: &str, code: u16) {
        let asks = async {
            while self.dry_run(pod).await != code {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, anyhow::Error>(())
        };
        within(LIMIT, format!("waiting until evictions of {pod} are answered with {code}"), asks).await.unwrap();
    }

    async fn dry_run(self, pod: &str) -> u16 {
        let eviction: Eviction = serde_json::from_value(json!({"metadata": {"name": pod}})).unwrap();
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match self.pods().create_subresource::<_, Status>("eviction", pod, &dry, &eviction).await {
            Ok(_) => 201,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        }
    }

    /// Deletes a lasting pod at once, as people do by force, and as kubelet does when its containers have ended. (Of any
    /// other pod KWOK would delete, a moment later, whatever has the name by then.)
    pub(crate) async fn end(self, pod: &str) {
        self.pods().delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
        let gone = |pod: Option<&Pod>| pod.is_none();
        until(LIMIT, format!("waiting for {pod} to be gone"), self.pods(), pod, gone).await.unwrap();
    }

    /// Waits until the pod looks like that; `what` ends the sentence "waiting for web …".
    pub(crate) async fn until_pod(self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        let holds = |pod: Option<&Pod>| pod.is_some_and(&holds);
        until(LIMIT, format!("waiting for {name} {what}"), self.pods(), name, holds).await.unwrap().unwrap()
    }

    /// Waits until an eviction of the pod is accepted, and it has not ended.
    pub(crate) async fn until_ending(self, pod: &str) -> Pod {
        self.until_pod(pod, "to be evicted", |pod| pod.metadata.deletion_timestamp.is_some()).await
    }

    /// Waits until it is gone, or another pod has its name.
    pub(crate) async fn until_gone(self, pod: &str, uid: &str) {
        let gone = |pod: Option<&Pod>| pod.and_then(|pod| pod.metadata.uid.as_deref()) != Some(uid);
        until(LIMIT, format!("waiting for {pod} to be gone"), self.pods(), pod, gone).await.unwrap();
    }

    /// Waits until the node says so in `reboot-status`.
    pub(crate) async fn until_status(self, words: &str) {
        let seen = self.stage.until_status(self.name(), words).await;
        assert_eq!(phase_of(&seen).as_deref(), Some("draining"), "{seen:?}");
    }

    pub(crate) async fn until_rebooted(self) -> NodeSeen {
        self.stage.until_rebooted(self.name()).await
    }

    /// The evictions of this pod that agents have posted and the API server has received, in order.
    pub(crate) fn evictions(self, pod: &str) -> Vec<Request> {
        let mut requests = self.stage.requests(jiff::Timestamp::MIN);
        requests.retain(|request| {
            request.resource == "pods/eviction" && request.namespace == self.name() && request.name == pod
        });
        requests
    }

    /// How they were answered.
    pub(crate) fn answers(self, pod: &str) -> Vec<u16> {
        self.evictions(pod).iter().map(|request| request.code).collect()
    }

    pub(crate) fn pods(self) -> Api<Pod> {
        Api::namespaced(self.stage.client(), self.name())
    }

    pub(crate) fn budgets(self) -> Api<PodDisruptionBudget> {
        Api::namespaced(self.stage.client(), self.name())
    }
}
