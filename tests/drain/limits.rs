//! How far a drain goes, and what people may set about it: pods that do not end, grace periods, budgets that stay closed,
//! pods that are not to be lost.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::Pod,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use reboot_tests::{call::until, proxy::Fault, referee::Declaration, scene::NAMESPACE};
use serde_json::{Value, json};

use crate::{
    pods::{lasting, pod},
    site::Site,
    stage::{LIMIT, Stage, claims},
};

#[tokio::test]
async fn a_drain_goes_as_far_as_people_have_set_and_says_so() {
    Stage::hold(claims![
        a_pod_that_does_not_end_is_waited_for_unless_people_have_set_a_limit,
        a_grace_period_is_cut_short_when_the_drain_takes_too_long,
        a_pod_is_deleted_past_its_budget_when_the_drain_takes_too_long,
        pods_are_deleted_past_their_budgets_where_eviction_is_disabled,
        pods_that_people_want_to_keep_block_the_whole_drain,
        pods_that_the_selector_leaves_out_stay,
    ])
    .await;
}

/// A finalizer keeps the pod after its containers have ended.
async fn a_pod_that_does_not_end_is_waited_for_unless_people_have_set_a_limit(site: Site<'_>) -> usize {
    let mut stuck = pod("stuck");
    stuck["metadata"]["finalizers"] = json!(["testbed/stuck"]);
    stuck["spec"]["terminationGracePeriodSeconds"] = json!(1);
    site.create(stuck).await;
    site.ask().await;
    site.until_ending("stuck").await;
    site.until_status("1 of 1 pods left").await;
    // From now on it is long past its time.
    site.stage.referee.declare(Declaration::Undrained(site.name().to_owned())).await.unwrap();
    site.machine.start_agent(&["--skip-wait-for-delete-timeout=1s"]).unwrap();
    site.until_rebooted().await;
    let left = site.pods().get("stuck").await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_some(), "{left:?}");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    site.pods().patch("stuck", &PatchParams::default(), &free).await.unwrap();
    1
}

async fn a_grace_period_is_cut_short_when_the_drain_takes_too_long(site: Site<'_>) -> usize {
    site.machine.start_agent(&["--drain-shorten-after=1s"]).unwrap();
    site.create(lasting(pod("slow"))).await;
    site.ask().await;
    let grace = |pod: &Pod| pod.metadata.deletion_grace_period_seconds;
    assert_eq!(grace(&site.until_ending("slow").await), Some(3600));
    site.until_pod("slow", "to have less time", |pod| grace(pod) == Some(10)).await;
    site.stage.until_event(site.name(), "GraceShortened", &format!("{}/slow", site.name())).await;
    site.end("slow").await;
    site.until_rebooted().await;
    assert_eq!(site.answers("slow"), [201, 201]);
    1
}

async fn a_pod_is_deleted_past_its_budget_when_the_drain_takes_too_long(site: Site<'_>) -> usize {
    site.create(pod("web")).await;
    site.budget("web", json!({"minAvailable": 0}), 1).await;
    let proxy = site.ask_and_hold(1, &["--drain-delete-after=1s"]).await;
    site.budget("web", json!({"minAvailable": 1}), 0).await;
    proxy.set(Fault::None);
    // It may not, and says so, until it has the right.
    site.until_status("web is refused: Forbidden").await;
    site.stage.referee.declare(Declaration::PastBudgets(site.name().to_owned())).await.unwrap();
    may_delete_pods(site).await;
    site.stage.until_event(site.name(), "DeletedPastBudget", &format!("{}/web", site.name())).await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [429]);
    1
}

async fn pods_are_deleted_past_their_budgets_where_eviction_is_disabled(site: Site<'_>) -> usize {
    site.stage.referee.declare(Declaration::PastBudgets(site.name().to_owned())).await.unwrap();
    may_delete_pods(site).await;
    site.machine.start_agent(&["--disable-eviction"]).unwrap();
    site.create(pod("web")).await;
    site.budget("web", json!({"minAvailable": 1}), 0).await;
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!(site.answers("web"), [0; 0]);
    1
}

/// The right that `cluster-role.yaml` has as a comment, in this namespace.
async fn may_delete_pods(site: Site<'_>) {
    let name = format!("deletes-pods-of-{}", site.name());
    let role = json!({
        "metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}],
    });
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "reboot-agent", "namespace": NAMESPACE}],
    });
    let parameters = PostParams::default();
    let roles: Api<Role> = Api::namespaced(site.stage.client(), site.name());
    roles.create(&parameters, &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(site.stage.client(), site.name());
    bindings.create(&parameters, &serde_json::from_value(binding).unwrap()).await.unwrap();
}

async fn pods_that_people_want_to_keep_block_the_whole_drain(site: Site<'_>) -> usize {
    site.machine
        .start_agent(&["--on-drain-blocked=drain", "--drain-unmanaged-pods=block", "--drain-emptydir-pods=block"])
        .unwrap();
    let plain = replica_set(site, "plain", json!([])).await;
    let scratch = replica_set(site, "scratch", json!([{"name": "scratch", "emptyDir": {}}])).await;
    site.create(lasting(pod("bare"))).await;
    site.ask().await;
    // Which of the two is named first is nobody's concern.
    site.until_status("blocks the drain: it has").await;
    site.end("bare").await;
    site.until_status(&format!("{scratch} blocks the drain: it has an emptyDir")).await;
    for pod in ["bare", &plain, &scratch] {
        assert_eq!(site.answers(pod), [0; 0], "{pod}");
    }
    site.sets().delete("scratch", &DeleteParams::background()).await.unwrap();
    site.until_rebooted().await;
    assert_eq!((site.answers(&plain), site.answers(&scratch)), (vec![201], vec![]));
    1
}

async fn pods_that_the_selector_leaves_out_stay(site: Site<'_>) -> usize {
    site.stage.referee.declare(Declaration::Undrained(site.name().to_owned())).await.unwrap();
    site.machine.start_agent(&["--drain-pod-selector=app!=stays"]).unwrap();
    let stays = site.create(pod("stays")).await;
    site.create(pod("goes")).await;
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!((site.answers("goes"), site.answers("stays")), (vec![201], vec![]));
    assert_eq!(site.pods().get("stays").await.unwrap().uid(), Some(stays));
    1
}

impl Site<'_> {
    fn sets(self) -> Api<ReplicaSet> {
        Api::namespaced(self.stage.client(), self.name())
    }
}

/// Makes a `ReplicaSet` with one pod, on this node or nowhere; returns the pod's name.
async fn replica_set(site: Site<'_>, name: &str, volumes: Value) -> String {
    let mut template = pod(name);
    template["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": site.name()});
    template["spec"]["volumes"] = volumes;
    let set = json!({
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    });
    site.sets().create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();
    let ready = |set: Option<&ReplicaSet>| {
        let status = set.and_then(|set| set.status.as_ref());
        status.and_then(|status| status.ready_replicas) == Some(1)
    };
    until(LIMIT, format!("waiting for the pod of {name}"), site.sets(), name, ready).await.unwrap();
    let of_it = ListParams::default().labels(&format!("app={name}"));
    site.pods().list(&of_it).await.unwrap().items[0].name_any()
}
