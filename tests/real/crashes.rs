//! Power failures, agents that are killed or replaced, and the controller's own node: in every phase of the cycle.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use reboot_tests::{
    call::until,
    real::{Install, RealOptions},
    referee::{Declaration, Expect},
    scene::{LIMIT, NAMESPACE, last_reboot},
    sim::kubectl,
    workload::{Workload, pods_on},
};

use crate::{
    phases::{PHASES, Phase},
    stage::{Stage, UPDATE},
};

/// Whatever the node was about to do, it is back in service after the failure, and is not rebooted once more for it.
pub(crate) async fn power_failure() {
    let stage = Stage::set(1).await;
    for (phase, node) in PHASES.into_iter().zip(stage.cluster.names()) {
        let before = stage.boot_id(&node).await;
        stage.referee.declare(Declaration::Broken(node.clone())).await.unwrap();
        stage.reach(phase, &node).await;
        stage.node(&node).fail_power().await.unwrap();
        stage.node(&node).switch_on();
        stage.go_on(phase, &node).await;
        let back = stage.until_back(&node, &before).await;
        let outcome = last_reboot(&back)["outcome"].clone();
        let expected = if phase == Phase::Asked { "found-rebooted" } else { "rebooted" };
        // A power failure at the moment of the grant may come before the agent's answer to it, or after.
        assert!(outcome == expected || phase == Phase::Granted, "{phase:?}: {}", last_reboot(&back));
        stage.until_slots(&[]).await;
        let boots = stage.node(&node).power().borrow().boots;
        assert_eq!(boots, if phase == Phase::Booted { 3 } else { 2 }, "{phase:?}");
    }
    stage.ends(&Expect::default()).await;
}

/// How an agent ends before its time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Its process is killed; kubelet starts it again in the same pod.
    Killed,
    /// Its pod is deleted; the `DaemonSet` makes another.
    Deleted,
}

pub(crate) async fn agent_ends(end: End) {
    let stage = Stage::set(1).await;
    let nodes = stage.cluster.names();
    for (phase, node) in PHASES.into_iter().zip(&nodes) {
        let before = stage.boot_id(node).await;
        stage.reach(phase, node).await;
        match end {
            // Where the machine has just been started, there may be none yet.
            End::Killed => drop(stage.node(node).kill("reboot-agent")),
            End::Deleted => delete_agent(&stage, node).await,
        }
        stage.go_on(phase, node).await;
        let back = stage.until_back(node, &before).await;
        assert_eq!(last_reboot(&back)["outcome"], "rebooted", "{phase:?}: {}", last_reboot(&back));
        stage.until_slots(&[]).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes)).await;
}

/// Every agent is replaced while one of them drains; then comes an update on all.
pub(crate) async fn roll_out() {
    let stage = Stage::set(1).await;
    stage.reach(Phase::Draining, "node-1").await;
    let kubeconfig = stage.cluster.control_plane().kubeconfig();
    let restart = ["-n", NAMESPACE, "rollout", "restart", "daemonset/reboot-agent"];
    kubectl(&kubeconfig, &restart).await.unwrap();
    let nodes = stage.cluster.names();
    let rolled_out = |set: Option<&DaemonSet>| {
        let Some((set, status)) = set.and_then(|set| Some((set, set.status.as_ref()?))) else { return false };
        let replaced = status.updated_number_scheduled.and_then(|number| usize::try_from(number).ok());
        let ready = usize::try_from(status.number_ready).ok();
        status.observed_generation == set.metadata.generation
            && replaced == Some(nodes.len())
            && ready == Some(nodes.len())
    };
    let sets = Api::namespaced(stage.client(), NAMESPACE);
    until(LIMIT, "waiting for the roll-out", sets, "reboot-agent", rolled_out).await.unwrap();
    stage.go_on(Phase::Draining, "node-1").await;
    for node in &nodes[1..] {
        stage.node(node).announce_update(UPDATE).await.unwrap();
    }
    for node in &nodes {
        stage.until_rebooted(node).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes)).await;
}

/// The leader is drained like any other pod; its successor sees the cycle through.
pub(crate) async fn leaders_node() {
    let stage = Stage::set(1).await;
    let node = stage.leader().await.node;
    stage.node(&node).announce_update(UPDATE).await.unwrap();
    stage.until_rebooted(&node).await;
    stage.ends(&Expect::rebooted_once([node])).await;
}

/// There is nowhere to go for the controller: it waits, drained, until its node is back.
pub(crate) async fn only_node() {
    let options = RealOptions { nodes: 1, ..RealOptions::default() };
    // No PDB would let them go: there is no other node for their replacements.
    let web = Workload::new("web", 6).without_pdb();
    let stage = Stage::installed(&options, 1, &Install::with_quota(1), &web).await;
    stage.cluster.announce_update(UPDATE).await.unwrap();
    stage.until_rebooted("node-1").await;
    stage.ends(&Expect::rebooted_once(["node-1"])).await;
}

async fn delete_agent(stage: &Stage, node: &str) {
    let names = pods_on(&stage.client(), node).await.unwrap();
    let mut names = names.iter().map(ResourceExt::name_any);
    let Some(agent) = names.find(|name| name.starts_with("reboot-agent")) else { return };
    let pods: Api<Pod> = Api::namespaced(stage.client(), NAMESPACE);
    // A pod that a reboot has taken with it is what this makes happen.
    let _gone = pods.delete(&agent, &DeleteParams::default()).await;
}
