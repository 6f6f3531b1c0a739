//! An update on all nodes at once, and machines that take their time or do not come back.

use std::time::Duration;

use reboot_tests::{
    real::{Install, RealOptions, RealReboots},
    referee::{Declaration, Expect},
    scene::{grants, last_reboot, most_at_once, phase_of, waiting},
    workload::Workload,
};

use crate::stage::{Stage, UPDATE};

pub(crate) async fn update(quota: usize) {
    let stage = Stage::set(quota).await;
    let nodes = stage.cluster.names();
    stage.cluster.announce_update(UPDATE).await.unwrap();
    for node in &nodes {
        let last = last_reboot(&stage.until_rebooted(node).await);
        assert_eq!((&last["osBefore"], &last["osAfter"]), (&"4081.2.0".into(), &UPDATE.into()), "{node}: {last}");
    }
    let verdict = stage.ends(&Expect::rebooted_once(&nodes)).await;
    let mut granted = grants(&verdict);
    granted.sort_unstable();
    assert_eq!(granted, nodes, "every node is granted once");
    assert_eq!(most_at_once(&verdict), quota);
}

/// Long enough that the node is no longer Ready, and that a minute's patience of anybody is used up.
pub(crate) async fn slow_machine() {
    let stage = Stage::set(1).await;
    let slow = RealReboots { down: Duration::from_mins(1), ..RealReboots::default() };
    stage.node("node-1").set_reboots(slow);
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    stage.until_node("node-1", "to reboot", |node| phase_of(node).as_deref() == Some("rebooting")).await;
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_waiting("node-2", "QuotaUsed").await;
    stage.until_node("node-1", "to be missed", |node| !node.ready).await;
    for node in ["node-1", "node-2"] {
        stage.until_rebooted(node).await;
    }
    let verdict = stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
    assert_eq!(grants(&verdict), ["node-1", "node-2"]);
}

/// It keeps its slot, and whoever waits says why; the others go on within the quota.
pub(crate) async fn lost_machine() {
    let stage = Stage::set(2).await;
    let lost = RealReboots { comes_back: false, ..RealReboots::default() };
    stage.node("node-1").set_reboots(lost);
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    stage.until_node("node-1", "to be missed", |node| !node.ready).await;
    // From now on the test is to blame for it.
    stage.referee.declare(Declaration::Broken("node-1".to_owned())).await.unwrap();

    stage.anchor("node-2").await;
    for node in ["node-2", "node-3", "node-4"] {
        stage.node(node).announce_update(UPDATE).await.unwrap();
        if node == "node-2" {
            stage.until_at_anchor(node).await;
        }
    }
    for node in ["node-3", "node-4"] {
        stage.until_waiting(node, "QuotaUsed").await;
    }
    stage.weigh_anchor("node-2").await;
    for node in ["node-2", "node-3", "node-4"] {
        stage.until_rebooted(node).await;
    }
    stage.until_slots(&["node-1"]).await;
    stage.node("node-1").switch_on();
    let back = stage.until_rebooted("node-1").await;
    assert_eq!(last_reboot(&back)["osAfter"], UPDATE);
    stage.ends(&Expect::rebooted_once(["node-1", "node-2", "node-3", "node-4"])).await;
}

/// The same OS version as before: the second reboot for the same update waits, and says so.
pub(crate) async fn update_that_does_not_take() {
    let stage = Stage::set(1).await;
    let stubborn = RealReboots { takes_update: false, ..RealReboots::default() };
    stage.node("node-1").set_reboots(stubborn);
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    let last = last_reboot(&stage.until_rebooted("node-1").await);
    assert_eq!(last["osAfter"], "4081.2.0", "{last}");
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    let reason = stage.until_node("node-1", "to wait for the second", |node| !waiting(node).is_null()).await;
    assert_eq!(waiting(&reason)["reason"], "BackingOff", "{}", waiting(&reason));
    // Others do not wait for it.
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_rebooted("node-2").await;
    let waits = ["reboot-needed", "reboot-request", "reboot-waiting"];
    let expected = Expect::rebooted_once(["node-1", "node-2"]);
    stage.ends(&waits.iter().fold(expected, |expected, key| expected.may_keep(key))).await;
}

/// The referee is no use if it lets everything pass: an operator that was installed for another quota, and told to wait
/// for no pod.
pub(crate) async fn sabotage() {
    let hasty = ["--drain-timeout=0s", "--on-drain-timeout=reboot"].map(str::to_owned);
    let install = Install { agent: hasty.into(), ..Install::with_quota(2) };
    let web = Workload::new("web", 6).without_pdb();
    let stage = Stage::installed(&RealOptions::default(), 1, &install, &web).await;
    let nodes = stage.cluster.names();
    stage.cluster.announce_update(UPDATE).await.unwrap();
    for node in &nodes {
        stage.until_rebooted(node).await;
    }
    let words = ["is one too many for a quota of 1", "was rebooted with pods on it: "];
    stage.caught(&Expect::rebooted_once(&nodes), &words).await;
}
