//! The API server or its store away, in every phase of the cycle.

use std::time::Duration;

use reboot_tests::{
    real::{RealOptions, RealReboots},
    referee::Expect,
    scene::last_reboot,
};
use tokio::time::sleep;

use crate::{
    phases::{PHASES, Phase},
    stage::Stage,
};

/// No kubelet is missed for an outage of the API server: what follows from that is not the subject here.
pub(crate) fn patient() -> RealOptions {
    RealOptions { grace: Duration::from_hours(1), ..RealOptions::default() }
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    ApiServer,
    Etcd,
}

/// It is killed, and comes back after some seconds with the data that it had.
pub(crate) async fn killed(part: Part) {
    let stage = Stage::with(&patient(), 1).await;
    let nodes = stage.cluster.names();
    for (phase, node) in PHASES.into_iter().zip(&nodes) {
        let before = stage.boot_id(node).await;
        stage.reach(phase, node).await;
        let control_plane = stage.cluster.control_plane();
        match part {
            Part::ApiServer => control_plane.kill_apiserver().unwrap(),
            Part::Etcd => control_plane.kill_etcd().unwrap(),
        }
        // The length of the outage: the machine may go down and come back in it.
        sleep(Duration::from_secs(3)).await;
        match part {
            Part::ApiServer => control_plane.restart_apiserver().await.unwrap(),
            Part::Etcd => {
                if phase == Phase::Committed {
                    // Down, and up again, without it.
                    stage.node(node).until_boots(2).await.unwrap();
                }
                control_plane.restart_etcd().await.unwrap();
            }
        }
        stage.go_on(phase, node).await;
        let back = stage.until_back(node, &before).await;
        assert_eq!(last_reboot(&back)["outcome"], "rebooted", "{phase:?}: {}", last_reboot(&back));
        stage.until_slots(&[]).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes)).await;
}

/// It is stopped in its tracks for a minute, while five nodes are each in another phase: connections stay, and nothing
/// answers.
pub(crate) async fn stopped_for_a_minute() {
    let stage = Stage::with(&patient(), 5).await;
    let nodes = stage.cluster.names();
    let mut before = Vec::new();
    for node in &nodes {
        before.push(stage.boot_id(node).await);
    }
    // Those that nothing holds in their phase come last.
    let order = [Phase::Asked, Phase::Draining, Phase::Booted, Phase::Committed, Phase::Granted];
    let late = RealReboots { kubelet: Duration::from_secs(30), ..RealReboots::default() };
    for (phase, node) in order.into_iter().zip(&nodes) {
        if phase == Phase::Booted {
            stage.node(node).set_reboots(late);
        }
        stage.reach(phase, node).await;
    }
    stage.cluster.control_plane().pause_apiserver().unwrap();
    sleep(Duration::from_mins(1)).await;
    stage.cluster.control_plane().resume_apiserver().unwrap();
    for ((phase, node), before) in order.into_iter().zip(&nodes).zip(&before) {
        stage.go_on(phase, node).await;
        stage.until_back(node, before).await;
    }
    stage.ends(&Expect::rebooted_once(&nodes)).await;
}
