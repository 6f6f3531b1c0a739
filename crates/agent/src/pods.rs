//! The pods of the agent's own node: watched while a cycle is under way, listed afresh, evicted.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::{ListParams, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use reboot_core::annotations::EVICTION_LABEL;
use reboot_core::drain::{PodRef, PodView};
use reboot_core::step::EvictReply;
use reboot_runtime::call::{CallError, call, call_within};

use crate::watched::Watched;

/// How long one eviction may take. The API server itself tries for about 10 s when writes of the budget collide, and a
/// call that is cut short may leave the budget charged for two minutes with the pod still there.
const EVICTION_LIMIT: Duration = Duration::from_secs(30);

/// Access to the pods of one node.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    selector: String,
}

impl Pods {
    /// The pods of the node of this name.
    pub fn new(client: Client, node: &str) -> Self {
        Self { client, selector: format!("spec.nodeName={node}") }
    }

    /// Begins to watch them.
    pub fn watch(&self) -> Watched<Pod, PodView> {
        Watched::new(Api::all(self.client.clone()), &self.selector, |pod| PodView::from(pod))
    }

    /// Lists them from the API server's store, not from a cache.
    pub async fn list(&self) -> Result<Vec<PodView>, CallError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&self.selector);
        let pods = call("listing the pods of the node", api.list(&params)).await?;
        Ok(pods.items.iter().map(PodView::from).collect())
    }

    /// Posts an eviction of exactly this pod.
    ///
    /// The body is made here because `Api::evict` of kube 5.0.0 sends the delete options under a wrong name, so that the
    /// API server ignores the UID.
    pub async fn evict(&self, pod: PodRef) -> EvictReply {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let (label, value) = EVICTION_LABEL;
        let eviction = Eviction {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                labels: Some([(label.to_owned(), value.to_owned())].into()),
                ..ObjectMeta::default()
            },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions { uid: Some(pod.uid), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams::default();
        let posted = api.create_subresource::<_, Status>("eviction", &pod.name, &params, &eviction);
        sort(call_within(EVICTION_LIMIT, "evicting a pod", posted).await.map(|_| ()))
    }
}

/// The cause that the API server names when a `PodDisruptionBudget` refuses an eviction
/// (`pkg/registry/core/pod/storage/eviction.go`).
const BUDGET: &str = "DisruptionBudget";

fn sort(answer: Result<(), CallError>) -> EvictReply {
    match answer {
        // 404: the pod is gone. (409 means that its name belongs to another pod now, or that two writes met: the watch
        // of the pods tells which, so it is tried again like any other refusal.)
        Ok(()) | Err(CallError::Gone(_)) => EvictReply::Accepted,
        Err(error) => match error.cause(BUDGET) {
            Some(words) => EvictReply::Refused(format!("PodDisruptionBudget: {words}")),
            None => EvictReply::Refused(error.to_string()),
        },
    }
}
