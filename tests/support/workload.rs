//! Pods to drain: Deployments with a `PodDisruptionBudget`, and `DaemonSets`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{Node, Pod},
        policy::v1::{Eviction, PodDisruptionBudget},
    },
    apimachinery::pkg::apis::meta::v1::Status,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::call::{until, within};

/// A Deployment of the tests and what goes with it. All of them live in the namespace `default`.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name; pods carry it as the label `app`, the PDB has the same name.
    pub name: String,
    /// Number of pods.
    pub replicas: i32,
    /// `maxUnavailable` of its PDB; none, no PDB.
    pub max_unavailable: Option<i32>,
    /// Annotations of its pods: `kwok.yaml` lists those that mean something.
    pub annotations: Vec<(String, String)>,
}

/// What the pods run. Simulated nodes run nothing; real ones have an image of this name.
pub const POD_IMAGE: &str = "docker.io/testbed/pod:1";
const CALL: Duration = Duration::from_secs(10);
/// A few pods are Ready within a second; a thousand take a while.
const READY_LIMIT: Duration = Duration::from_mins(2);

impl Workload {
    /// A Deployment with a PDB that lets one pod at a time go.
    pub fn new(name: &str, replicas: i32) -> Self {
        Self { name: name.to_owned(), replicas, max_unavailable: Some(1), annotations: Vec::new() }
    }

    /// Without a PDB.
    #[must_use]
    pub fn without_pdb(mut self) -> Self {
        self.max_unavailable = None;
        self
    }

    /// With another `maxUnavailable`.
    #[must_use]
    pub fn max_unavailable(mut self, pods: i32) -> Self {
        self.max_unavailable = Some(pods);
        self
    }

    /// With an annotation on its pods.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Creates it and waits until every pod is available and the PDB's status counts them all.
    pub async fn deploy(&self, client: &Client) -> Result<()> {
        let name = self.name.as_str();
        let deployments: Api<Deployment> = create(client, name, self.deployment()).await?;
        if let Some(pods) = self.max_unavailable {
            let spec = json!({"maxUnavailable": pods, "selector": {"matchLabels": {"app": name}}});
            let _: Api<PodDisruptionBudget> = create(client, name, json!({"spec": spec})).await?;
        }
        self.available(client, deployments).await
    }

    /// Changes the number of pods of one that exists to this one's, and waits as [`Workload::deploy`] does.
    pub async fn scale(&self, client: &Client) -> Result<()> {
        let deployments = api::<Deployment>(client);
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": {"replicas": self.replicas}})));
        let call = deployments.patch(&self.name, &parameters, &patch);
        within(CALL, format!("scaling {}", self.name), call).await?;
        self.available(client, deployments).await
    }

    async fn available(&self, client: &Client, deployments: Api<Deployment>) -> Result<()> {
        let name = self.name.as_str();
        let available = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.and_then(|status| status.available_replicas) == Some(self.replicas)
        };
        until(READY_LIMIT, format!("waiting for the pods of {name}"), deployments, name, available).await?;
        if self.max_unavailable.is_some() {
            self.undisrupted(client).await?;
        }
        Ok(())
    }

    /// Waits until the PDB's status counts every pod as healthy.
    pub async fn undisrupted(&self, client: &Client) -> Result<()> {
        let healthy = |pdb: Option<&PodDisruptionBudget>| {
            let status = pdb.and_then(|pdb| pdb.status.as_ref());
            status.is_some_and(|status| status.current_healthy == self.replicas && status.disruptions_allowed > 0)
        };
        let pdbs = api::<PodDisruptionBudget>(client);
        until(READY_LIMIT, format!("waiting for the PDB of {}", self.name), pdbs, &self.name, healthy).await.map(drop)
    }

    /// Its pods, as the API server has them now.
    pub async fn pods(&self, client: &Client) -> Result<Vec<Pod>> {
        let parameters = ListParams::default().labels(&format!("app={}", self.name));
        let pods = api::<Pod>(client);
        Ok(within(CALL, format!("listing the pods of {}", self.name), pods.list(&parameters)).await?.items)
    }

    fn deployment(&self) -> Value {
        json!({"spec": {
            "replicas": self.replicas,
            "selector": {"matchLabels": {"app": self.name}},
            "template": template(&self.name, &self.annotations),
        }})
    }
}

/// Creates a `DaemonSet` and waits until it has a Ready pod on every Node there is.
pub async fn daemon_set(client: &Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = within(CALL, "listing nodes", nodes.list_metadata(&ListParams::default())).await?.items.len();
    let mut template = template(name, &[]);
    template["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
    let _: Api<DaemonSet> = create(client, name, json!({"spec": spec})).await?;
    daemon_set_ready(client, "default", name, nodes).await
}

/// Waits until a `DaemonSet` has so many Ready pods.
pub async fn daemon_set_ready(client: &Client, namespace: &str, name: &str, pods: usize) -> Result<()> {
    let sets = Api::namespaced(client.clone(), namespace);
    let ready = |set: Option<&DaemonSet>| {
        let status = set.and_then(|set| set.status.as_ref());
        status.is_some_and(|status| usize::try_from(status.number_ready) == Ok(pods))
    };
    until(READY_LIMIT, format!("waiting for the pods of {name}"), sets, name, ready).await.map(drop)
}

/// Asks the API server to evict a pod of the namespace `default`; a refusal by a PDB is a `kube::Error::Api` with 429.
pub async fn evict(client: &Client, pod: &str) -> Result<(), kube::Error> {
    let metadata = ObjectMeta { name: Some(pod.to_owned()), ..ObjectMeta::default() };
    let eviction = Eviction { metadata, delete_options: None };
    let pods = api::<Pod>(client);
    pods.create_subresource::<_, Status>("eviction", pod, &PostParams::default(), &eviction).await.map(drop)
}

/// The pods on a node, in all namespaces.
pub async fn pods_on(client: &Client, node: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::all(client.clone());
    let parameters = ListParams::default().fields(&format!("spec.nodeName={node}"));
    Ok(within(CALL, format!("listing the pods on {node}"), pods.list(&parameters)).await?.items)
}

/// Whether a pod has the condition Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn template(name: &str, annotations: &[(String, String)]) -> Value {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": POD_IMAGE}]},
    })
}

fn api<K>(client: &Client) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), "default")
}

async fn create<K>(client: &Client, name: &str, mut object: Value) -> Result<Api<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    object["metadata"] = json!({"name": name});
    let object: K = serde_json::from_value(object).with_context(|| format!("building {} {name}", K::kind(&())))?;
    let objects = api::<K>(client);
    let parameters = PostParams::default();
    let call = objects.create(&parameters, &object);
    let created = within(CALL, format!("creating {} {name}", K::kind(&())), call).await?;
    anyhow::ensure!(created.name_any() == name, "the API server renamed {name}");
    Ok(objects)
}
