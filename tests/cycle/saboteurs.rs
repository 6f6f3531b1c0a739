//! The referee is no use if it lets everything pass: three saboteurs, each of which it must name.

use std::os::unix::fs::PermissionsExt as _;

use reboot_tests::{
    control_plane::binary,
    referee::{Declaration, Expect},
    sim::{Reboots, program},
    workload::Workload,
};

use crate::stage::{LIMIT, Stage, UPDATE};

#[tokio::test]
async fn a_controller_that_grants_one_more_than_the_quota_is_caught() {
    let stage = Stage::set(3, 1, &[]).await;
    for node in ["node-1", "node-2"] {
        stage.anchor(node).await;
    }
    let _controller = stage.cluster.spawn_controller("controller", &["--max-unavailable=2"]).unwrap();
    stage.cluster.start_agents(&[]).unwrap();
    stage.update("node-1").await;
    stage.update("node-2").await;
    for node in ["node-1", "node-2"] {
        stage.until_at_anchor(node).await;
    }
    for node in ["node-1", "node-2"] {
        stage.weigh_anchor(node).await;
    }
    stage.caught(&Expect::rebooted_once(["node-1", "node-2"]), &["is one too many for a quota of 1"]).await;
}

#[tokio::test]
async fn an_agent_that_skips_the_drain_is_caught() {
    let stage = Stage::set(1, 1, &[Workload::new("web", 3).without_pdb()]).await;
    let _controller = stage.cluster.spawn_controller("controller", &[]).unwrap();
    stage.cluster.start_agents(&["--drain-timeout=0s", "--on-drain-timeout=reboot"]).unwrap();
    stage.cluster.announce_update(UPDATE).await.unwrap();
    let words = "node-1 was rebooted with pods on it: default/web-";
    stage.caught(&Expect::rebooted_once(["node-1"]), &[words]).await;
}

#[tokio::test]
async fn an_agent_that_uncordons_at_its_start_is_caught() {
    let stage = Stage::set(2, 1, &[]).await;
    let script = stage.dir().join("saboteur");
    let agent = program("reboot-agent", "REBOOT_AGENT_BIN").unwrap();
    let kubectl = binary("kubectl").unwrap_or_else(|_| "kubectl".into());
    let text = format!(
        "#!/bin/sh\n'{}' --kubeconfig \"$REBOOT_AGENT_KUBECONFIG\" uncordon \"$REBOOT_AGENT_NODE_NAME\" &&\n\
         exec '{}' \"$@\"\n",
        kubectl.display(),
        agent.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for machine in stage.cluster.machines() {
        machine.replace_agent(script.clone());
        machine.set_reboots(Reboots { comes_back: false, ..Reboots::default() });
    }
    stage.cordon("node-2").await;
    let _controller = stage.cluster.spawn_controller("controller", &["--max-unavailable=2"]).unwrap();
    stage.cluster.start_agents(&[]).unwrap();
    stage.until_node("node-2", "to be uncordoned", |node| !node.cordoned).await;
    stage.referee.declare(Declaration::ForeignCordonEnds("node-2".to_owned())).await.unwrap();

    stage.update("node-1").await;
    stage.until_node("node-1", "to go down", |node| !node.ready).await;
    let words = [
        "node-2 was uncordoned, but a person had cordoned it",
        "node-1 was uncordoned before it was Ready under a new boot ID",
    ];
    let machine = stage.machine("node-1");
    machine.set_reboots(Reboots { kubelet: LIMIT * 2, ..Reboots::default() });
    tokio::select! {
        ended = machine.bring_back() => panic!("kubelet was heard: {ended:?}"),
        _ = stage.until_node("node-1", "to be uncordoned", |node| !node.cordoned) => {}
    }
    machine.node().report().await.unwrap();
    stage.caught(&Expect::rebooted_once(["node-1"]), &words).await;
}
