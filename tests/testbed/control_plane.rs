//! The control plane and the pods on simulated nodes.

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    core::v1::{Namespace, Node},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use reboot_tests::{
    control_plane::{ControlPlane, Controllers, Options, client_from},
    nodes::{FIRST_OS_VERSION, Farewell, SimNode, start_kwok},
    process::Process,
    scratch::Scratch,
    workload::{self, Workload},
};
use tokio::time::timeout;

/// A control plane, nodes and KWOK, without buses.
struct Cluster {
    control_plane: ControlPlane,
    nodes: Vec<SimNode>,
    _kwok: Process,
    _dir: Scratch,
}

impl Cluster {
    async fn start(nodes: usize) -> Self {
        let dir = Scratch::new("testbed").unwrap();
        let control_plane = ControlPlane::start(&dir.path().join("cp"), Options::default()).await.unwrap();
        let kwok = start_kwok(&control_plane, dir.path()).unwrap();
        let kubelet = control_plane.client_as("kubelet").await.unwrap();
        let mut all = Vec::new();
        for index in 1..=nodes {
            let name = format!("node-{index}");
            let node = SimNode::create(kubelet.clone(), &dir.path().join(&name), &name, &[("pool", "a")]).await;
            all.push(node.unwrap());
        }
        Self { control_plane, nodes: all, _kwok: kwok, _dir: dir }
    }
}

#[tokio::test]
async fn pods_become_ready_and_a_pdb_refuses_the_second_eviction() {
    let cluster = Cluster::start(3).await;
    let client = cluster.control_plane.client();
    let web = Workload::new("web", 3).annotated("testbed/ready-after", "1s").annotated("testbed/termination", "500ms");
    web.deploy(&client).await.unwrap();
    workload::daemon_set(&client, "everywhere").await.unwrap();
    let pods = web.pods(&client).await.unwrap();
    assert!(pods.len() == 3 && pods.iter().all(workload::is_ready));

    let name = |index: usize| pods[index].metadata.name.clone().unwrap();
    workload::evict(&client, &name(0)).await.unwrap();
    let refused = workload::evict(&client, &name(1)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 429);
    let cause = status.details.unwrap().causes.remove(0);
    assert_eq!(cause.reason, "DisruptionBudget");

    web.undisrupted(&client).await.unwrap();
    workload::evict(&client, &name(1)).await.unwrap();
    let audit = cluster.control_plane.audit().unwrap();
    let evictions = audit.iter().filter(|request| request.resource == "pods/eviction");
    let answers: Vec<_> = evictions.map(|request| (request.user.as_str(), request.code)).collect();
    assert_eq!(answers, [("admin", 201), ("admin", 429), ("admin", 201)]);
}

#[tokio::test]
async fn a_node_reports_what_its_kubelet_would() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let nodes: Api<Node> = Api::all(cluster.control_plane.client());
    let read = async || {
        let seen = nodes.get(node.name()).await.unwrap();
        let status = seen.status.unwrap();
        let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        let info = status.node_info.unwrap();
        (ready.status, info.boot_id, info.os_image)
    };
    let file = || std::fs::read_to_string(node.files().boot_id()).unwrap();
    let first = node.boot_id();
    let (ready, boot_id, os) = read().await;
    assert!(ready == "True" && boot_id == first && os.contains(FIRST_OS_VERSION));
    assert_eq!(file(), format!("{first}\n"));

    for (farewell, seen) in [(Farewell::Silent, "True"), (Farewell::NotReady, "False"), (Farewell::Unknown, "Unknown")]
    {
        node.go_down(farewell).await.unwrap();
        assert_eq!(read().await.0, seen);
    }
    let second = node.boot_machine("4100.0.0").unwrap();
    assert_ne!(second, first);
    assert_eq!(file(), format!("{second}\n"));
    assert!(std::fs::read_to_string(node.files().os_release()).unwrap().contains("VERSION_ID=4100.0.0\n"));
    assert_eq!(read().await.1, first, "kubelet has not said anything yet");
    node.report_not_ready().await.unwrap();
    let (ready, boot_id, _) = read().await;
    assert!(ready == "False" && boot_id == second);
    node.report().await.unwrap();
    let (ready, boot_id, os) = read().await;
    assert!(ready == "True" && boot_id == second && os.contains("4100.0.0"));
}

#[tokio::test]
async fn a_token_bound_to_a_pod_names_the_pods_node() {
    let cluster = Cluster::start(1).await;
    let control_plane = &cluster.control_plane;
    workload::daemon_set(&control_plane.client(), "everywhere").await.unwrap();
    let pods = workload::pods_on(&control_plane.client(), "node-1").await.unwrap();
    let token = control_plane.token_for("default", "default", pods[0].metadata.name.as_deref()).await.unwrap();
    let kubeconfig = control_plane.kubeconfig_for_token("bound", &token).unwrap();
    let client = client_from(&kubeconfig).await.unwrap();
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:default"));
    assert_eq!(user.extra.unwrap()["authentication.kubernetes.io/node-name"], ["node-1"]);

    let refused = Api::<Node>::all(client).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.is_forbidden()), "RBAC is on");
}

#[tokio::test]
async fn the_api_server_can_be_stopped_and_killed_and_comes_back_with_its_data() {
    let dir = Scratch::new("testbed").unwrap();
    let options = Options { controllers: Controllers::None, ..Options::default() };
    let control_plane = ControlPlane::start(dir.path(), options).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(control_plane.client());
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "kept"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();

    control_plane.pause_apiserver().unwrap();
    let silence = timeout(Duration::from_millis(300), namespaces.get("kept")).await;
    assert!(silence.is_err(), "it answered: {silence:?}");
    control_plane.resume_apiserver().unwrap();
    namespaces.get("kept").await.unwrap();

    control_plane.kill_apiserver().unwrap();
    assert!(matches!(namespaces.get("kept").await, Err(kube::Error::Service(_) | kube::Error::HyperError(_))));
    control_plane.restart_apiserver().await.unwrap();
    namespaces.get("kept").await.unwrap();
}
