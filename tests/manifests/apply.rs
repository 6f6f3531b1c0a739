//! The documented ways to install, each on an empty cluster of its own: they succeed at the first try.

use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Error,
    api::{ObjectMeta, PostParams},
};
use reboot_tests::{
    control_plane::{ControlPlane, Controllers, Options, binary},
    process::output,
};
use serde_json::json;

use super::{COMPONENTS, FILES, pod, root, workload};

#[tokio::test]
async fn applying_the_folder_installs_everything() {
    check("folder", &["apply -f manifests/"]).await;
}

#[tokio::test]
async fn applying_the_kustomization_installs_everything() {
    check("kustomization", &["apply -k ."]).await;
}

#[tokio::test]
async fn creating_file_by_file_installs_everything() {
    let commands = ["namespace", "admission", "cluster-role", "reboot-controller", "reboot-agent"]
        .map(|f| format!("create -f manifests/{f}.yaml"));
    check("files", &commands.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn the_controllers_pod_is_valid_where_pod_security_is_restricted_and_the_agents_is_not() {
    let cluster = empty_cluster("restricted").await;
    let labels = [("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())].into();
    let metadata = ObjectMeta { name: Some("strict".to_owned()), labels: Some(labels), ..Default::default() };
    let namespace = Namespace { metadata, ..Default::default() };
    Api::<Namespace>::all(cluster.client()).create(&PostParams::default(), &namespace).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "strict");
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), "strict");
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    for component in COMPONENTS {
        let metadata = json!({"name": format!("reboot-{component}")});
        let account = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let pod = json!({"metadata": metadata, "spec": pod(&workload(component))});
        match pods.create(&dry_run, &serde_json::from_value(pod).unwrap()).await {
            Ok(_) => assert_eq!(component, "controller"),
            Err(Error::Api(status)) => {
                assert_eq!((component, status.code), ("agent", 403), "{}", status.message);
                assert!(status.message.contains("hostPath"), "{}", status.message);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Runs the kubectl commands on an empty cluster: each must exit with 0, and then every object must be there.
async fn check(name: &str, commands: &[&str]) {
    let cluster = empty_cluster(name).await;
    for command in commands {
        kubectl(&cluster, command);
    }
    for object in FILES.iter().flat_map(|(_, objects)| objects.iter()) {
        let (kind, path) = object.split_once(' ').unwrap();
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        kubectl(&cluster, &format!("get {kind} {name} --namespace {namespace}"));
    }
}

/// An API server without controllers: nothing here needs a pod to run.
pub(super) async fn empty_cluster(name: &str) -> ControlPlane {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests").join(name);
    ControlPlane::start(&dir, Options { controllers: Controllers::None, ..Default::default() }).await.unwrap()
}

/// Runs kubectl in the root of the project, and fails with its own words.
pub(super) fn kubectl(cluster: &ControlPlane, command: &str) {
    let program = binary("kubectl").unwrap_or_else(|_| "kubectl".into());
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    let args = [&*kubeconfig, "--request-timeout=30s"].into_iter().chain(command.split(' '));
    // kubectl has no flag for its working directory.
    let args: Vec<&str> = ["-C", root(), "--"].into_iter().chain([program.to_str().unwrap()]).chain(args).collect();
    output("env", &args[..]).unwrap();
}
