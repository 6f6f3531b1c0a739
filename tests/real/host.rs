//! What lives beside the agent on a node: logind and who delays it, `update_engine`, the bus, kubelet.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, api::PostParams};
use reboot_tests::{
    real::{KubeletSettings, RealOptions, RealReboots},
    referee::Expect,
    scene::{grants, last_reboot, phase_of},
    workload::{POD_IMAGE, daemon_set_ready},
};
use serde_json::json;

use crate::stage::{Stage, UPDATE};

/// A lock that blocks shutdowns (an administrator's `systemd-inhibit`) stops the agent before anything is drained away
/// for nothing more than a moment: it gives back, says why, and comes again when its patience allows.
pub(crate) async fn inhibitor() {
    let stage = Stage::set(1).await;
    let node = stage.node("node-1");
    let hold = "systemd-run --quiet --unit=holder systemd-inhibit --what=shutdown --mode=block --who=backup --why=running sleep infinity";
    node.execute(&hold.split(' ').collect::<Vec<_>>()).unwrap();
    node.announce_update(UPDATE).await.unwrap();
    let refused = |words: &str| words.contains("backup");
    let seen = stage
        .until_node("node-1", "to give back", |node| last_reboot(node)["outcome"] == "gave-back" && !node.cordoned)
        .await;
    let last = last_reboot(&seen);
    assert_eq!(last["reason"], "RebootRefused", "{last}");
    assert!(refused(&last.to_string()), "it names the holder: {last}");
    // Others go on meanwhile.
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_rebooted("node-2").await;
    node.execute(&["systemctl", "stop", "holder"]).unwrap();
    stage.until_rebooted("node-1").await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

/// The bus's own policy forbids the call: the error is an answer, and the slot goes to somebody else.
pub(crate) async fn forbidden_by_policy() {
    let stage = Stage::set(1).await;
    let node = stage.node("node-1");
    let rule = "/etc/dbus-1/system.d/no-reboot.conf";
    let policy = "<busconfig><policy context=\"mandatory\"><deny send_destination=\"org.freedesktop.login1\" send_interface=\"org.freedesktop.login1.Manager\" send_member=\"RebootWithFlags\"/></policy></busconfig>";
    let write = format!("echo '{policy}' > {rule}");
    let reload =
        ["busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig"];
    node.execute(&["sh", "-c", &write]).unwrap();
    node.execute(&reload).unwrap();
    node.announce_update(UPDATE).await.unwrap();
    let seen = stage
        .until_node("node-1", "to give back", |node| last_reboot(node)["outcome"] == "gave-back" && !node.cordoned)
        .await;
    assert_eq!(last_reboot(&seen)["reason"], "RebootRefused", "{}", last_reboot(&seen));
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_rebooted("node-2").await;
    node.execute(&["rm", rule]).unwrap();
    node.execute(&reload).unwrap();
    stage.until_rebooted("node-1").await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

/// `update_engine` goes and comes back, and so does the bus itself, before the announcement, in the drain, and after it.
pub(crate) async fn bus_and_engine_restart() {
    let stage = Stage::set(1).await;
    let engine = |name: &str| stage.cluster.node(name).unwrap().engine();
    engine("node-1").stop().await;
    engine("node-1").resume().await.unwrap();
    stage.anchor("node-1").await;
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    stage.until_at_anchor("node-1").await;
    engine("node-1").stop().await;
    engine("node-1").resume().await.unwrap();
    restart_bus(&stage, "node-1").await;
    stage.weigh_anchor("node-1").await;
    stage.until_rebooted("node-1").await;

    restart_bus(&stage, "node-2").await;
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_rebooted("node-2").await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

async fn restart_bus(stage: &Stage, node: &str) {
    let node = stage.node(node);
    assert_eq!(node.kill("dbus-daemon").unwrap(), 1, "there is one system bus");
    // Its socket is systemd's, and the first connection starts it again. logind and others follow by themselves.
    node.engine().stop().await;
    node.engine().resume().await.unwrap();
}

/// kubelet reports every 10 s, as it does by default, and starts late: after a fast reboot the Node says Ready for a
/// while, in the old kubelet's words. The referee allows no uncordon in that time.
pub(crate) async fn late_kubelet() {
    let kubelet = KubeletSettings { status_seconds: 10, ..KubeletSettings::default() };
    let options = RealOptions { kubelet: Some(kubelet), grace: Duration::from_secs(50), ..RealOptions::default() };
    let stage = Stage::with(&options, 1).await;
    let late = RealReboots { kubelet: Duration::from_secs(30), ..RealReboots::default() };
    for node in ["node-1", "node-2"] {
        stage.node(node).set_reboots(late);
        stage.node(node).announce_update(UPDATE).await.unwrap();
    }
    for node in ["node-1", "node-2"] {
        stage.until_rebooted(node).await;
    }
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

/// kubelet's delay lock holds the reboot while it ends the pods that a drain leaves. One of them takes its time. Nothing
/// is given back meanwhile, and nobody is called twice.
pub(crate) async fn graceful_shutdown() {
    let kubelet = KubeletSettings { shutdown_grace_seconds: 30, ..KubeletSettings::default() };
    let stage = Stage::with(&RealOptions { kubelet: Some(kubelet), ..RealOptions::default() }, 1).await;
    stubborn_daemons(&stage).await;
    stage.node("node-1").announce_update(UPDATE).await.unwrap();
    stage.until_node("node-1", "to reboot", |node| phase_of(node).as_deref() == Some("rebooting")).await;
    let locks = stage.node("node-1").execute(&["systemd-inhibit", "--list", "--no-legend"]).unwrap();
    assert!(locks.contains("kubelet"), "kubelet holds its lock: {locks}");
    stage.until_rebooted("node-1").await;
    let verdict = stage.ends(&Expect::rebooted_once(["node-1"])).await;
    assert_eq!(grants(&verdict), ["node-1"]);
    let gave_back = verdict.timeline.iter().find(|moment| moment.what.contains("gave-back"));
    assert_eq!(gave_back, None);
}

/// Pods of a `DaemonSet` that ignore SIGTERM for 10 s.
async fn stubborn_daemons(stage: &Stage) {
    let container = json!({
        "name": "main", "image": POD_IMAGE, "command": ["/busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    });
    let set = json!({
        "metadata": {"name": "stubborn"},
        "spec": {
            "selector": {"matchLabels": {"app": "stubborn"}},
            "template": {
                "metadata": {"labels": {"app": "stubborn"}},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [container]},
            },
        },
    });
    let sets: Api<DaemonSet> = Api::default_namespaced(stage.client());
    sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();
    let nodes = stage.cluster.nodes().len();
    daemon_set_ready(&stage.client(), "default", "stubborn", nodes).await.unwrap();
}
