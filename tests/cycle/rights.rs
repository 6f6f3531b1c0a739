//! What the manifests grant to the two accounts is what a sound run uses: no less, no more.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
    path::Path,
};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use reboot_tests::{bus::Answer, control_plane::audit::Request, referee::Expect, workload::Workload};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::stage::{LIMIT, NAMESPACE, Stage, UPDATE, phase_of};

const ACCOUNTS: [&str; 2] = ["reboot-agent", "reboot-controller"];

#[tokio::test]
async fn a_sound_run_is_refused_nothing_and_uses_every_right_that_it_has() {
    let mut stage = Stage::set(2, 1, &[Workload::new("web", 4)]).await;
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    stage.cluster.install(&manifests).await.unwrap();
    let mut controller = stage.cluster.spawn_controller("controller", &[]).unwrap();
    pod_with_a_volume(&stage.client(), "node-2").await;
    // The volume stays attached: nothing detaches it here.
    stage.cluster.start_agents(&["--drain-wait-for-volumes=1s"]).unwrap();
    stage.cluster.announce_update(UPDATE).await.unwrap();
    for node in ["node-1", "node-2"] {
        stage.until_rebooted(node).await;
    }
    twice_granted(&stage, "node-1").await;
    killed_past_the_point_of_no_return(&stage, "node-2").await;
    // It hands the lease back.
    controller.terminate().unwrap();
    assert!(controller.wait(LIMIT).await.unwrap().success());
    let mut unused = BTreeSet::new();
    let mut refused = Vec::new();
    let audit = stage.cluster.control_plane().audit().unwrap();
    for account in ACCOUNTS {
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let requests: Vec<_> = audit.iter().filter(|request| request.user == user).collect();
        assert!(!requests.is_empty(), "{account} ran under its own account");
        refused.extend(requests.iter().filter(|request| request.code == 403).map(|&request| request.clone()));
        let granted = granted(&stage.client(), account).await;
        assert!(!granted.is_empty(), "{account} has rights");
        unused.extend(granted.into_iter().filter(|right| !requests.iter().any(|request| right.covers(request))));
    }
    assert_eq!(refused, []);
    assert!(unused.is_empty(), "granted and never used:{}", unused.iter().map(ToString::to_string).collect::<String>());
    stage.ends(&Expect::default().rebooted("node-1", 2).rebooted("node-2", 2)).await;
}

/// A pod on this node whose volume is attached to it.
async fn pod_with_a_volume(client: &Client, node: &str) {
    let name = json!({"name": "data"});
    let size = json!({"storage": "1Gi"});
    let csi = json!({"driver": "csi.testbed", "volumeHandle": "data"});
    let modes = json!(["ReadWriteOnce"]);
    let bound = json!({"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"});
    let volume = json!({"accessModes": modes, "capacity": size, "csi": csi, "claimRef": bound, "storageClassName": ""});
    let claim = json!({"accessModes": modes, "resources": {"requests": size}, "volumeName": "data",
                       "storageClassName": ""});
    let uses = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let pod = json!({"nodeName": node, "containers": [{"name": "main", "image": "testbed"}], "volumes": uses});
    let attachment = json!({"attacher": "csi.testbed", "nodeName": node, "source": {"persistentVolumeName": "data"}});
    let pods = Api::<Pod>::default_namespaced(client.clone());
    create(&Api::<PersistentVolume>::all(client.clone()), json!({"metadata": name, "spec": volume})).await;
    let claims = Api::<PersistentVolumeClaim>::default_namespaced(client.clone());
    create(&claims, json!({"metadata": name, "spec": claim})).await;
    create(&pods, json!({"metadata": name, "spec": pod})).await;
    create(&Api::<VolumeAttachment>::all(client.clone()), json!({"metadata": name, "spec": attachment})).await;
}

async fn create<K: Clone + Debug + DeserializeOwned + Serialize>(api: &Api<K>, object: Value) {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// A person asks, pauses the drain, and lets it go on.
async fn twice_granted(stage: &Stage, node: &str) {
    stage.anchor(node).await;
    stage.annotate(node, "reboot-needed", Some("a new kernel")).await;
    stage.until_at_anchor(node).await;
    stage.annotate(node, "reboot-paused", Some("not now")).await;
    stage.until_node(node, "to give back", |node| phase_of(node).is_none() && !node.cordoned).await;
    stage.annotate(node, "reboot-paused", None).await;
    stage.until_node(node, "to drain again", |node| phase_of(node).is_some()).await;
    stage.weigh_anchor(node).await;
    let cluster = &stage.cluster;
    let boot = cluster.machine(node).unwrap().node().boot_id();
    stage.until_node(node, "to reboot again", |node| node.boot_id != boot && phase_of(node).is_none()).await;
    stage.until_slots(&[]).await;
}

/// What the next agent goes on from, it reads from the API server's store.
async fn killed_past_the_point_of_no_return(stage: &Stage, node: &str) {
    let machine = stage.machine(node);
    machine.logind().answer(Answer::gone());
    stage.annotate(node, "reboot-needed", Some("a new kernel")).await;
    stage.until_status(node, "logind was not reached").await;
    machine.kill_agent().unwrap();
    machine.logind().answer(Answer::Accept);
    let boot = machine.node().boot_id();
    machine.restart_agent().unwrap();
    stage.until_node(node, "to reboot again", |node| node.boot_id != boot && phase_of(node).is_none()).await;
    stage.until_slots(&[]).await;
}

/// One thing that an account may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: String,
    /// `None`: in every namespace, and for what has none.
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
    /// `None`: whatever its name.
    name: Option<String>,
}

impl Right {
    fn covers(&self, request: &Request) -> bool {
        let only = |bound: &Option<String>, value: &str| bound.as_deref().is_none_or(|bound| bound == value);
        // Where a watch does not begin with a list (before Kubernetes 1.32, as a rule), whoever watches lists as well.
        let lists_elsewhere = (self.verb.as_str(), request.verb.as_str()) == ("list", "watch");
        (&self.group, &self.resource) == (&request.group, &request.resource)
            && (self.verb == request.verb || lists_elsewhere)
            && only(&self.namespace, &request.namespace)
            && only(&self.name, &request.name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, group, resource, verb, .. } = self;
        write!(f, "\n  {account}: {verb} {group}/{resource}")?;
        write!(f, " {} in {}", self.name.as_deref().unwrap_or("*"), self.namespace.as_deref().unwrap_or("*"))
    }
}

/// Everything that RBAC gives to an account by its name, rule by rule taken apart.
async fn granted(client: &Client, account: &str) -> BTreeSet<Right> {
    let all = ListParams::default();
    let mut rights = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await.unwrap() {
        if binds(binding.subjects.as_deref(), account) {
            rights.extend(expand(account, None, &rules(client, None, &binding.role_ref).await));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await.unwrap() {
        if binds(binding.subjects.as_deref(), account) {
            let namespace = binding.namespace().unwrap();
            let rules = rules(client, Some(&namespace), &binding.role_ref).await;
            rights.extend(expand(account, Some(&namespace), &rules));
        }
    }
    rights
}

fn binds(subjects: Option<&[Subject]>, account: &str) -> bool {
    let is_it = |subject: &Subject| {
        let namespace = subject.namespace.as_deref();
        subject.kind == "ServiceAccount" && subject.name == account && namespace == Some(NAMESPACE)
    };
    subjects.into_iter().flatten().any(is_it)
}

async fn rules(client: &Client, namespace: Option<&str>, role: &RoleRef) -> Vec<PolicyRule> {
    let rules = match (role.kind.as_str(), namespace) {
        ("ClusterRole", _) => Api::<ClusterRole>::all(client.clone()).get(&role.name).await.unwrap().rules,
        ("Role", Some(namespace)) => {
            Api::<Role>::namespaced(client.clone(), namespace).get(&role.name).await.unwrap().rules
        }
        other => panic!("{other:?}"),
    };
    rules.unwrap()
}

fn expand(account: &str, namespace: Option<&str>, rules: &[PolicyRule]) -> Vec<Right> {
    let mut rights = Vec::new();
    for rule in rules {
        assert_eq!(rule.non_resource_urls, None, "{account} needs no URL beside the resources");
        let names = rule.resource_names.clone().unwrap_or_default();
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    rights.extend(names.iter().map(|name| Right {
                        account: account.to_owned(),
                        namespace: namespace.map(str::to_owned),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                    }));
                }
            }
        }
    }
    rights
}
