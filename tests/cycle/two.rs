//! Two of what there should be one of.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use reboot_tests::{
    process::Process,
    referee::Expect,
    sim::{Reboots, program},
    workload::Workload,
};

use crate::stage::{LIMIT, Stage, UPDATE, crash, grants, most_at_once, queue};

/// How long the lease of a leader that was killed holds off the others, and some time to notice.
const TAKEOVER: Duration = Duration::from_secs(35);
/// A lease that was handed back needs no waiting. (How long a busy machine may take to wake a process is included.)
const HANDOVER: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_second_controller_beside_the_first_changes_nothing() {
    let stage = Stage::set(4, 1, &[Workload::new("web", 8)]).await;
    stage.cluster.start_agents(&[]).unwrap();
    stage.cluster.announce_update(UPDATE).await.unwrap();
    let nodes = stage.cluster.names();
    for node in &nodes {
        stage.until_node(node, "to ask", |node| node.notes.contains_key("reboot-request")).await;
    }
    let _first = stage.cluster.spawn_controller("first", &[]).unwrap();
    let leader = stage.until_led(None).await;
    let mut second = stage.cluster.spawn_controller("second", &[]).unwrap();
    for node in &nodes {
        stage.until_rebooted(node).await;
    }
    assert!(second.ended().unwrap().is_none(), "it waits for its turn");
    assert_eq!(stage.until_led(None).await, leader);
    let verdict = stage.ends(&Expect::rebooted_once(&nodes)).await;
    assert_eq!(grants(&verdict), queue(&verdict));
    assert_eq!(most_at_once(&verdict), 1);
}

#[tokio::test]
async fn the_standby_takes_over_when_the_lease_of_a_killed_leader_ends_and_at_once_after_sigterm() {
    let stage = Stage::set(3, 1, &[Workload::new("web", 3)]).await;
    stage.cluster.start_agents(&[]).unwrap();
    let first = stage.cluster.spawn_controller("first", &[]).unwrap();
    let leader = stage.until_led(None).await;
    let mut second = stage.cluster.spawn_controller("second", &[]).unwrap();
    stage.anchor("node-1").await;
    stage.update("node-1").await;
    stage.until_at_anchor("node-1").await;

    // In the middle of a cycle, with another node waiting.
    stage.update("node-2").await;
    stage.until_waiting("node-2", "QuotaUsed").await;
    let killed = Instant::now();
    crash(first);
    let leader = stage.until_led(Some(&leader)).await;
    assert!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
    stage.weigh_anchor("node-1").await;
    stage.until_rebooted("node-1").await;

    let _third = stage.cluster.spawn_controller("third", &[]).unwrap();
    stage.until_rebooted("node-2").await;
    let asked = Instant::now();
    second.terminate().unwrap();
    stage.until_led(Some(&leader)).await;
    assert!(asked.elapsed() < HANDOVER, "{:?}", asked.elapsed());
    let ended = second.wait(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}");
    stage.update("node-3").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-1", "node-2", "node-3"])).await;
    assert_eq!(grants(&verdict), ["node-1", "node-2", "node-3"]);
}

#[tokio::test]
async fn two_agents_on_one_node_do_no_harm() {
    let stage = Stage::set(2, 1, &[Workload::new("web", 6)]).await;
    let _controller = stage.cluster.spawn_controller("controller", &[]).unwrap();
    let machine = stage.machine("node-1");
    machine.set_reboots(Reboots { comes_back: false, ..Reboots::default() });
    machine.start_agent(&[]).unwrap();
    let second = second_agent(&stage);
    stage.update("node-1").await;
    stage.until_node("node-1", "to go down", |node| !node.ready).await;
    // Nothing survives a reboot.
    drop(second);
    machine.set_reboots(Reboots::default());
    let _second = second_agent(&stage);
    machine.bring_back().await.unwrap();
    let verdict = stage.ends(&Expect::rebooted_once(["node-1"])).await;
    assert_eq!(grants(&verdict), ["node-1"]);
}

/// Another agent on node-1.
fn second_agent(stage: &Stage) -> Process {
    let machine = stage.machine("node-1");
    let files = machine.node().files();
    let mut command = Command::new(program("reboot-agent", "REBOOT_AGENT_BIN").unwrap());
    command
        .arg(format!("--kubeconfig={}", stage.cluster.control_plane().kubeconfig().display()))
        .arg("--node-name=node-1")
        .arg(format!("--bus-address={}", machine.bus_address()))
        .arg(format!("--boot-id-file={}", files.boot_id().display()))
        .arg(format!("--os-release-file={}", files.os_release().display()))
        .args(["--min-uptime=0s", "--listen=127.0.0.1:0"]);
    Process::spawn("the second agent", command, &files.dir().join("second-agent.log")).unwrap()
}
