//! The leader killed or cut off, nodes cut off, requests refused for half a minute, and an API server that stands still
//! for ten.

use std::time::{Duration, Instant};

use reboot_tests::{
    proxy::{Cut, Fault},
    real::{Install, RealOptions},
    referee::Expect,
    scene::last_reboot,
    workload::Workload,
};
use tokio::time::sleep;

use crate::{
    health::FEW_REQUESTS,
    outages::patient,
    phases::{PHASES, Phase},
    stage::{Stage, UPDATE},
};

/// Two controllers, of which the leader is killed with each node of five in another phase: the other one takes over.
pub(crate) async fn leader_killed() {
    let stage = Stage::installed(&RealOptions::default(), 1, &two_controllers(1), &Workload::new("web", 6)).await;
    let nodes = stage.cluster.names();
    for (phase, node) in PHASES.into_iter().zip(&nodes) {
        let before = stage.boot_id(node).await;
        // Known beforehand: a phase may be over while it is looked for.
        let leader = stage.leader().await;
        stage.reach(phase, node).await;
        let killed = stage.node(&leader.node).kill("reboot-controller").unwrap_or_default();
        // From the node that is drained it may have gone by itself, and the machine may be off.
        assert!(killed > 0 || leader.node == *node, "{phase:?}: no controller on {}", leader.node);
        stage.until_led(Some(&leader.identity)).await;
        stage.go_on(phase, node).await;
        let back = stage.until_back(node, &before).await;
        assert_eq!(last_reboot(&back)["outcome"], "rebooted", "{phase:?}: {}", last_reboot(&back));
        stage.until_slots(&[]).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes)).await;
}

/// The other controller takes over, and the one that could not hear of it stands by when it is back.
pub(crate) async fn leader_cut_off() {
    let stage = Stage::installed(&RealOptions::default(), 2, &two_controllers(2), &Workload::new("web", 6)).await;
    let leader = stage.leader().await;
    let others: Vec<_> = stage.cluster.names().into_iter().filter(|node| *node != leader.node).collect();
    stage.reach(Phase::Draining, &others[0]).await;
    stage.node(&leader.node).unplug().unwrap();
    stage.until_node(&leader.node, "to be missed", |node| !node.ready).await;
    let next = stage.until_led(Some(&leader.identity)).await;
    // The quota of two is used: by the node that is drained, and by the one that is missed.
    stage.node(&others[1]).announce_update(UPDATE).await.unwrap();
    stage.until_waiting(&others[1], "QuotaUsed").await;
    stage.node(&leader.node).plug().unwrap();
    stage.until_node(&leader.node, "to be heard of", |node| node.ready).await;
    assert_eq!(stage.until_led(None).await, next, "the one that was cut off stands by");
    stage.go_on(Phase::Draining, &others[0]).await;
    for node in &others[..2] {
        stage.until_rebooted(node).await;
    }
    stage.node(&leader.node).announce_update(UPDATE).await.unwrap();
    stage.until_rebooted(&leader.node).await;
    stage.ends(&Expect::rebooted_once([&others[0], &others[1], &leader.node])).await;
}

/// One waits, one drains, one goes down and boots, all without a word to the API server. They are missed, and use up the
/// quota; when they are back, each goes on where it was.
pub(crate) async fn nodes_cut_off() {
    let stage = Stage::set(3).await;
    let leader = stage.leader().await;
    let others: Vec<_> = stage.cluster.names().into_iter().filter(|node| *node != leader.node).collect();
    let cut_off = [Phase::Asked, Phase::Draining, Phase::Committed].into_iter().zip(&others);
    let mut before = Vec::new();
    for (phase, node) in cut_off.clone() {
        before.push(stage.boot_id(node).await);
        stage.reach(phase, node).await;
    }
    for (_, node) in cut_off.clone().rev() {
        stage.node(node).unplug().unwrap();
    }
    for (_, node) in cut_off.clone() {
        stage.until_node(node, "to be missed", |node| !node.ready).await;
    }
    stage.node(&others[2]).until_boots(2).await.unwrap();
    stage.node(&others[3]).announce_update(UPDATE).await.unwrap();
    stage.until_waiting(&others[3], "QuotaUsed").await;
    // The length of the outage, beside what it took so far: connections are given up in it.
    sleep(Duration::from_secs(30)).await;
    for (_, node) in cut_off.clone() {
        stage.node(node).plug().unwrap();
    }
    for ((phase, node), before) in cut_off.zip(&before) {
        // Else the referee would take the end of the outage for the beginning of the reboot.
        stage.until_node(node, "to be heard of", |node| node.ready).await;
        stage.go_on(phase, node).await;
        stage.until_back(node, before).await;
    }
    stage.until_rebooted(&others[3]).await;
    stage.ends(&Expect::rebooted_once(&others)).await;
}

/// Every request of the whole operator, from the end of a drain on, while another node waits.
pub(crate) async fn refused_for_half_a_minute() {
    let (stage, proxy) = Stage::behind_proxy(&patient(), 1).await;
    let nodes = stage.cluster.names();
    for (code, nodes) in [429, 500].into_iter().zip(nodes.chunks_exact(2)) {
        let before = stage.boot_id(&nodes[0]).await;
        stage.reach(Phase::Draining, &nodes[0]).await;
        stage.node(&nodes[1]).announce_update(UPDATE).await.unwrap();
        stage.until_waiting(&nodes[1], "QuotaUsed").await;
        let health = stage.health();
        let requests = || ["reboot-agent", "reboot-controller"].map(|program| proxy.requests(program));
        let sent = requests();
        proxy.set(Fault::Status(code));
        proxy.cut(Cut::Break);
        stage.go_on(Phase::Draining, &nodes[0]).await;
        // The length of the fault.
        sleep(Duration::from_secs(30)).await;
        let [agents, controller] = [0, 1].map(|program| requests()[program] - sent[program]);
        println!("{code}: {agents} requests of all agents, {controller} of the controller");
        assert!(agents <= stage.cluster.nodes().len() * FEW_REQUESTS, "{agents} requests of agents in 30 s of {code}");
        assert!(controller <= FEW_REQUESTS, "{controller} requests of the controller in 30 s of {code}");
        stage.health().as_good_as(&health);
        assert_eq!(stage.boot_id(&nodes[0]).await, before, "nothing is rebooted unseen");
        proxy.set(Fault::None);
        let ended = Instant::now();
        stage.until_back(&nodes[0], &before).await;
        println!("{code}: back {:.0?} after its end", ended.elapsed());
        stage.until_rebooted(&nodes[1]).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes[..4])).await;
}

/// In a drain, while another node waits: the processes stay what they were, in memory too, say little, and go on.
pub(crate) async fn still_for_ten_minutes() {
    // As long as the drain itself may take, unless more is allowed.
    let install = Install { agent: vec!["--drain-timeout=1h".to_owned()], ..Install::with_quota(1) };
    let stage = Stage::installed(&patient(), 1, &install, &Workload::new("web", 6)).await;
    let before = stage.boot_id("node-1").await;
    stage.reach(Phase::Draining, "node-1").await;
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_waiting("node-2", "QuotaUsed").await;
    let health = stage.health();
    stage.cluster.control_plane().pause_apiserver().unwrap();
    // The length of the outage.
    sleep(Duration::from_mins(10)).await;
    let after = stage.health();
    stage.cluster.control_plane().resume_apiserver().unwrap();
    after.as_good_as(&health);
    stage.go_on(Phase::Draining, "node-1").await;
    let back = stage.until_back("node-1", &before).await;
    assert_eq!(last_reboot(&back)["outcome"], "rebooted", "{}", last_reboot(&back));
    stage.until_rebooted("node-2").await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

fn two_controllers(quota: usize) -> Install {
    Install { controllers: 2, ..Install::with_quota(quota) }
}
