//! Every answer that the API server can be made to give to an eviction, and what the drain makes of it.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::Namespace,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use reboot_tests::{proxy::Fault, referee::Declaration, workload::is_ready};
use serde_json::{Value, json};

use crate::{
    pods::{lasting, of, on, pod, unready},
    site::{EVICTION, Site},
    stage::{Stage, claims},
};

#[tokio::test]
async fn every_answer_to_an_eviction_is_understood() {
    Stage::hold(claims![
        a_pod_without_a_budget_is_evicted_once,
        a_budget_that_closes_at_the_last_moment_is_heard_when_it_opens,
        two_budgets_on_a_pod_are_named_and_one_less_lets_it_go,
        a_namespace_that_is_being_deleted_takes_its_pods_with_it,
        a_pod_that_took_over_the_name_is_not_touched,
        a_pod_that_is_not_ready_goes_where_its_budget_always_allows_it,
        a_pod_that_is_not_ready_goes_where_the_others_are_enough_and_stays_where_they_are_not,
        what_admission_refuses_is_told_in_its_words_and_holds_up_no_other,
        a_throttle_is_left_alone_for_as_long_as_it_asks,
    ])
    .await;
}

/// What the first refusal by a budget is worth waiting for, where no change of the budget is heard.
const PAUSE: SignedDuration = SignedDuration::from_secs(15);

/// The budget that lets none go, and the one that does.
fn closed() -> Value {
    json!({"minAvailable": 1})
}

fn open() -> Value {
    json!({"minAvailable": 0})
}

async fn a_pod_without_a_budget_is_evicted_once(site: Site<'_>) -> usize {
    site.create(pod("web")).await;
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [201]);
    site.stage.until_event(site.name(), "EvictedUnmanaged", &format!("{}/web", site.name())).await;
    1
}

/// 429 with the cause `DisruptionBudget`.
async fn a_budget_that_closes_at_the_last_moment_is_heard_when_it_opens(site: Site<'_>) -> usize {
    site.create(pod("web")).await;
    site.budget("web", open(), 1).await;
    let proxy = site.ask_and_hold(1, &[]).await;
    site.budget("web", closed(), 0).await;
    proxy.set(Fault::None);
    proxy.until_answered(1).await.unwrap();
    site.budget("web", open(), 1).await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [429, 201]);
    let evictions = site.evictions("web");
    let waited = evictions[1].at.duration_since(evictions[0].at);
    assert!(waited < PAUSE, "it waits for the budget, not for the end of a pause: {waited:#}");
    1
}

/// 500.
async fn two_budgets_on_a_pod_are_named_and_one_less_lets_it_go(site: Site<'_>) -> usize {
    site.create(pod("web")).await;
    site.budget("web", open(), 1).await;
    let proxy = site.ask_and_hold(1, &[]).await;
    site.budget_over("web", "other", open(), 1).await;
    proxy.set(Fault::None);
    site.until_status(&format!("{}/web is guarded by more than one, PodDisruptionBudgets", site.name())).await;
    site.budgets().delete("other", &DeleteParams::default()).await.unwrap();
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [500, 201]);
    1
}

/// 403 with the cause `NamespaceTerminating`.
async fn a_namespace_that_is_being_deleted_takes_its_pods_with_it(site: Site<'_>) -> usize {
    site.create(lasting(pod("web"))).await;
    let proxy = site.ask_and_hold(1, &[]).await;
    let namespaces: Api<Namespace> = Api::all(site.stage.client());
    namespaces.delete(site.name(), &DeleteParams::default()).await.unwrap();
    site.until_ending("web").await;
    site.until_answer("web", 403).await;
    proxy.set(Fault::None);
    proxy.until_answered(1).await.unwrap();
    site.end("web").await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [403]);
    1
}

/// 409 on the UID, or 403 from the admission policy, which is asked before and may be a moment behind.
async fn a_pod_that_took_over_the_name_is_not_touched(site: Site<'_>) -> usize {
    let (moved, replaced) = (site.create(lasting(pod("moved"))).await, site.create(lasting(pod("replaced"))).await);
    // Without this one the drain would be over as soon as the others are deleted.
    site.create(lasting(pod("holds"))).await;
    let proxy = site.ask_and_hold(3, &[]).await;
    site.end("moved").await;
    site.end("replaced").await;
    let elsewhere = site.create(on(site.stage.spare(), pod("moved"))).await;
    let here = site.create(lasting(pod("replaced"))).await;
    assert!(moved != elsewhere && replaced != here);
    // The one that is here is to go as well, by an eviction of its own.
    proxy.until_met(4).await.unwrap();
    proxy.set(Fault::None);
    // Whichever eviction comes first, it is there until both are answered.
    proxy.until_answered(4).await.unwrap();
    site.end("replaced").await;
    site.end("holds").await;
    site.until_rebooted().await;
    assert!(matches!(site.answers("moved")[..], [403 | 409]), "{:?}", site.answers("moved"));
    let mut answers = site.answers("replaced");
    answers.sort_unstable();
    assert!(matches!(answers[..], [201, 403 | 409]), "{answers:?}");
    let kept = site.pods().get("moved").await.unwrap();
    assert!(kept.uid() == Some(elsewhere) && kept.metadata.deletion_timestamp.is_none(), "{kept:?}");
    1
}

async fn a_pod_that_is_not_ready_goes_where_its_budget_always_allows_it(site: Site<'_>) -> usize {
    site.create(unready(pod("web"))).await;
    site.budget("web", json!({"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), 0).await;
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [201]);
    1
}

/// The policy `IfHealthyBudget`, which is the default.
async fn a_pod_that_is_not_ready_goes_where_the_others_are_enough_and_stays_where_they_are_not(
    site: Site<'_>,
) -> usize {
    let spare = site.stage.spare();
    site.create(on(spare, lasting(of("web", pod("other"))))).await;
    let unready = site.create(unready(of("web", pod("unready")))).await;
    site.budget("web", closed(), 0).await;
    let proxy = site.ask_and_hold(1, &[]).await;
    // Without the other one there are not enough.
    site.stage.referee.declare(Declaration::PastBudgets(spare.to_owned())).await.unwrap();
    site.end("other").await;
    site.until_answer("unready", 429).await;
    proxy.set(Fault::None);
    site.until_status("unready is blocked by PodDisruptionBudget web").await;
    site.create(on(spare, of("web", pod("other")))).await;
    site.until_gone("unready", &unready).await;
    site.until_rebooted().await;
    assert_eq!(site.answers("unready"), [429, 201]);
    let other = site.pods().get("other").await.unwrap();
    assert!(is_ready(&other) && other.metadata.deletion_timestamp.is_none(), "{other:?}");
    1
}

/// 422 and 403.
async fn what_admission_refuses_is_told_in_its_words_and_holds_up_no_other(site: Site<'_>) -> usize {
    let mut others = Vec::new();
    for name in ["invalid", "forbidden", "one", "two", "three"] {
        let uid = site.create(pod(name)).await;
        if !matches!(name, "invalid" | "forbidden") {
            others.push((name, uid));
        }
    }
    make_policy(site).await;
    site.until_answer("invalid", 422).await;
    site.until_answer("forbidden", 403).await;
    site.ask().await;
    for (name, uid) in &others {
        site.until_gone(name, uid).await;
    }
    // Which of the two is named first is nobody's concern.
    site.until_status("not on my watch").await;
    unmake_policy(site).await;
    site.until_rebooted().await;
    for (name, refusal) in [("invalid", 422), ("forbidden", 403)] {
        let answers = site.answers(name);
        let (last, before) = answers.split_last().unwrap();
        assert!(
            *last == 201 && !before.is_empty() && before.iter().all(|code| *code == refusal),
            "{name}: {answers:?}"
        );
    }
    for (name, _) in others {
        assert_eq!(site.answers(name), [201]);
    }
    1
}

async fn make_policy(site: Site<'_>) {
    let only_here = json!({"matchLabels": {"kubernetes.io/metadata.name": site.name()}});
    let evictions =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/eviction"]});
    let policy = json!({
        "metadata": {"name": site.name()},
        "spec": {
            "matchConstraints": {"namespaceSelector": only_here, "resourceRules": [evictions]},
            "validations": [
                {"expression": "request.name != 'invalid'", "message": "not on my watch"},
                {"expression": "request.name != 'forbidden'", "message": "not on my watch", "reason": "Forbidden"},
            ],
        },
    });
    let binding = json!({
        "metadata": {"name": site.name()}, "spec": {"policyName": site.name(), "validationActions": ["Deny"]},
    });
    let parameters = PostParams::default();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(site.stage.client());
    policies.create(&parameters, &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(site.stage.client());
    bindings.create(&parameters, &serde_json::from_value(binding).unwrap()).await.unwrap();
}

async fn unmake_policy(site: Site<'_>) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(site.stage.client());
    bindings.delete(site.name(), &DeleteParams::default()).await.unwrap();
}

/// 429 in plain text, as from the API server's priority and fairness.
async fn a_throttle_is_left_alone_for_as_long_as_it_asks(site: Site<'_>) -> usize {
    site.create(pod("web")).await;
    let proxy = site.agent_behind_proxy(&[]).await;
    proxy.set_for(EVICTION, Fault::Throttle(3));
    site.ask().await;
    proxy.until_met(2).await.unwrap();
    let met = proxy.met();
    let left_alone = met[1].duration_since(met[0]);
    assert!(left_alone >= Duration::from_secs(3), "{left_alone:?}");
    proxy.set(Fault::None);
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [201]);
    1
}
