//! Twenty machines whose agents are units of their systemd, and an agent that was tampered with.

use reboot_tests::{
    real::RealFleet,
    referee::{Declaration, Expect, Referee},
    scene::{LIMIT, Scene, most_at_once},
    scratch::Scratch,
};

use crate::stage::UPDATE;

const NODES: usize = 20;

pub(crate) async fn twenty_nodes() {
    let dir = Scratch::new("fleet").unwrap();
    let fleet = RealFleet::start(dir.path(), NODES, 2).await.unwrap();
    let referee = Referee::start(fleet.cluster.control_plane(), 2).await.unwrap();
    let scene = Scene::new(fleet.cluster.client(), referee);
    let nodes = fleet.cluster.names();
    fleet.cluster.announce_update(UPDATE).await.unwrap();
    let expect = Expect::rebooted_once(&nodes);
    // Ten times as long as for two.
    scene.referee.settled(&expect, 10 * LIMIT).await.unwrap();
    let verdict = scene.verdict(&expect).await;
    assert_eq!(most_at_once(&verdict), 2);
    assert_eq!(fleet.cluster.failures(), [""; 0]);
}

/// The agent of old: whatever was before, it begins by uncordoning its node.
pub(crate) async fn uncordons_at_its_start() {
    let dir = Scratch::new("fleet").unwrap();
    let fleet = RealFleet::start(dir.path(), 2, 1).await.unwrap();
    let referee = Referee::start(fleet.cluster.control_plane(), 1).await.unwrap();
    let scene = Scene::new(fleet.cluster.client(), referee);
    scene.cordon("node-1").await;
    let node = fleet.cluster.node("node-1").unwrap();
    let script = "#!/bin/sh\nkubectl --kubeconfig=/etc/kubernetes/agent.kubeconfig uncordon $(uname -n)\n";
    let put = format!("printf '{script}' > /etc/kubernetes/before-agent && chmod +x /etc/kubernetes/before-agent");
    node.execute(&["sh", "-c", &put]).unwrap();
    node.execute(&["systemctl", "restart", "reboot-agent"]).unwrap();
    scene.until_node("node-1", "to be uncordoned", |node| !node.cordoned).await;
    scene.referee.declare(Declaration::ForeignCordonEnds("node-1".to_owned())).await.unwrap();
    scene.caught(&Expect::default(), &["node-1 was uncordoned, but a person had cordoned it"]).await;
}
