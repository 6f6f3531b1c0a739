//! The pods of the agent's own node: watched from the grant on, listed afresh, evicted; and the budgets and volumes that
//! have a say in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::Status;
use kube::runtime::watcher;
use kube::{Api, Client};
use reboot_core::annotations::EVICTION_LABEL;
use reboot_core::drain::{BudgetView, PodRef, PodView, Refusal};
use reboot_core::step::{Evict, EvictReply, Means};
use reboot_core::values::printable;
use reboot_runtime::call::{CallError, call, call_within};

use crate::volumes::Volumes;
use crate::watched::Watched;

/// How long one eviction may take. The API server itself tries for about 10 s when writes of the budget collide, and a
/// call that is cut short may leave the budget charged for two minutes with the pod still there.
const EVICTION_LIMIT: Duration = Duration::from_secs(30);

/// Access to the pods of one node.
#[derive(Clone)]
pub(crate) struct Pods {
    client: Client,
    node: String,
    selector: String,
}

impl Pods {
    /// The pods of the node of this name.
    pub(crate) fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned(), selector: format!("spec.nodeName={node}") }
    }

    /// Begins to watch them.
    pub(crate) fn watch(&self) -> Watched<Pod, PodView> {
        let config = watcher::Config::default().fields(&self.selector);
        Watched::new(Api::all(self.client.clone()), config, |pod| Some(PodView::from(pod)))
    }

    /// Begins to watch every `PodDisruptionBudget`. One watch of all costs the API server less than one for each namespace
    /// of the node's pods.
    pub(crate) fn watch_budgets(&self) -> Watched<PodDisruptionBudget, BudgetView> {
        let config = watcher::Config::default();
        Watched::new(Api::all(self.client.clone()), config, |budget| Some(BudgetView::from(budget)))
    }

    /// Begins to watch the volumes that are attached to the node.
    pub(crate) fn watch_volumes(&self) -> Volumes {
        Volumes::watch(self.client.clone(), &self.node)
    }

    /// Lists them from the API server's store, not from a cache.
    pub(crate) async fn list(&self) -> Result<Vec<PodView>, CallError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&self.selector);
        let pods = call("listing the pods of the node", api.list(&params)).await?;
        Ok(pods.items.iter().map(PodView::from).collect())
    }

    /// Makes exactly this pod go, by an eviction or by its deletion.
    pub(crate) async fn evict(&self, evict: &Evict) -> EvictReply {
        let Evict { pod: PodRef { namespace, name, uid }, means, grace, .. } = evict;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let (uid, grace) = (uid.clone(), grace.map(|grace| grace.as_secs()));
        let done = match means {
            Means::Eviction => {
                let (params, body) = (PostParams::default(), eviction(namespace, name, uid, grace));
                let posted = api.create_subresource::<_, Status>("eviction", name, &params, &body);
                call_within(EVICTION_LIMIT, "evicting a pod", posted).await.map(|_| ())
            }
            Means::Deletion => {
                let params = DeleteParams {
                    grace_period_seconds: grace.and_then(|seconds| u32::try_from(seconds).ok()),
                    preconditions: Some(kube::api::Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::default()
                };
                call_within(EVICTION_LIMIT, "deleting a pod", api.delete(name, &params)).await.map(|_| ())
            }
        };
        sort(done)
    }
}

/// The body is made here because `Api::evict` of kube 5.0.0 sends the delete options under a wrong name, so that the
/// API server ignores the UID.
fn eviction(namespace: &str, name: &str, uid: String, grace: Option<u64>) -> Eviction {
    let (label, value) = EVICTION_LABEL;
    Eviction {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(label.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            grace_period_seconds: grace.and_then(|seconds| i64::try_from(seconds).ok()),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteOptions::default()
        }),
    }
}

/// Sorts what the API server answers to an eviction (`pkg/registry/core/pod/storage/eviction.go`).
fn sort(answer: Result<(), CallError>) -> EvictReply {
    let error = match answer {
        // 404: the pod is gone.
        Ok(()) | Err(CallError::Gone(_)) => return EvictReply::Accepted,
        Err(error) => error,
    };
    // Words of a webhook or a load balancer: they are copied into annotations, and may be a whole page.
    let words = || printable(error.status().map_or("", |status| &status.message));
    EvictReply::Refused(match &error {
        _ if error.cause(BUDGET).is_some() => Refusal::Budget(printable(error.cause(BUDGET).unwrap_or_default())),
        _ if error.cause(NAMESPACE_TERMINATING).is_some() => Refusal::NamespaceTerminating,
        CallError::Throttled { retry_after, .. } => Refusal::Throttled(*retry_after),
        CallError::Conflict(_) | CallError::Refused(_) if OTHER_UID.iter().any(|other| words().contains(other)) => {
            Refusal::Replaced
        }
        CallError::Conflict(_) => Refusal::Conflict,
        CallError::Refused(answer) if matches!(answer.status.code, 401 | 403) => Refusal::Forbidden(words()),
        CallError::Refused(_) | CallError::Gone(_) => Refusal::NotAdmitted(words()),
        CallError::Unknown(words) if words.contains(SEVERAL_BUDGETS) => Refusal::SeveralBudgets,
        CallError::Unknown(words) => Refusal::NoAnswer(printable(words)),
    })
}

/// The cause of a refusal by a `PodDisruptionBudget`.
const BUDGET: &str = "DisruptionBudget";

/// The cause of a refusal where the namespace is being deleted.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// In the words of a refusal because the UID is another one, from the eviction, from the store below it, or from the
/// admission policy, which is asked first; there is no cause to go by.
const OTHER_UID: [&str; 2] = ["UID in the precondition", "UID in precondition"];

/// In the words of the 500 for a pod that more than one budget guards; there is no cause to go by.
const SEVERAL_BUDGETS: &str = "more than one PodDisruptionBudget";

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    async fn check(code: u16, reason: &str, message: &str, cause: Option<(&str, &str)>, expected: Result<(), Refusal>) {
        let (reason_of_cause, words) = cause.unwrap_or_default();
        let cause = StatusCause { reason: reason_of_cause.into(), message: words.into(), field: String::new() };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: if code == 429 { 10 } else { 0 },
        };
        let status = Status::failure(message, reason).with_code(code).with_details(details);
        let answer = call("evicting a pod", std::future::ready(Err(kube::Error::Api(status.boxed())))).await;
        let expected = expected.map_or_else(EvictReply::Refused, |()| EvictReply::Accepted);
        assert_eq!(sort(answer), expected, "{code} {reason} {message}");
    }

    #[tokio::test]
    async fn every_answer_to_an_eviction_has_a_reason_of_its_own() {
        let needs = "The disruption budget web needs 2 healthy pods and has 2 currently";
        let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        let stored = "Precondition failed: UID in precondition: a, UID in object meta: b";
        let uid =
            "the UID in the precondition (a) does not match the UID in record (b). The object might have been deleted";
        let admission = "denied request: the UID in the precondition is not that of the pod with this name";
        let ten = Some(Duration::from_secs(10));
        let (budget, terminating) = (Some(("DisruptionBudget", needs)), Some(("NamespaceTerminating", "x")));
        let no = |refusal: fn(String) -> Refusal, words: &str| Err(refusal(words.into()));
        check(404, "NotFound", "pods web-0 not found", None, Ok(())).await;
        check(429, "TooManyRequests", "Cannot evict pod", budget, no(Refusal::Budget, needs)).await;
        check(429, "TooManyRequests", "too many requests", None, Err(Refusal::Throttled(ten))).await;
        check(500, "InternalError", two, None, Err(Refusal::SeveralBudgets)).await;
        check(403, "Forbidden", "being terminated", terminating, Err(Refusal::NamespaceTerminating)).await;
        check(409, "Conflict", uid, None, Err(Refusal::Replaced)).await;
        check(409, "Conflict", stored, None, Err(Refusal::Replaced)).await;
        check(403, "Forbidden", admission, None, Err(Refusal::Replaced)).await;
        check(409, "Conflict", "the object has been modified", None, Err(Refusal::Conflict)).await;
        check(403, "Forbidden", "no right", None, no(Refusal::Forbidden, "no right")).await;
        check(401, "Unauthorized", "who", None, no(Refusal::Forbidden, "who")).await;
        check(422, "Invalid", "a policy", None, no(Refusal::NotAdmitted, "a policy")).await;
        check(400, "BadRequest", "a webhook", None, no(Refusal::NotAdmitted, "a webhook")).await;
        let lost = "evicting a pod: 504 Timeout: slow";
        check(504, "Timeout", "slow", None, no(Refusal::NoAnswer, lost)).await;
    }
}
