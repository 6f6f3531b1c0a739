//! The simulated machines reboot when their logind is asked to.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use reboot_tests::{
    call::until,
    nodes::FIRST_OS_VERSION,
    scratch::Scratch,
    sim::{Machine, Reboots, SimCluster, SimOptions},
};
use zbus::{Connection, connection::Builder};

const LIMIT: Duration = Duration::from_secs(30);

async fn bus_of(machine: &Machine) -> Connection {
    Builder::address(machine.bus_address()).build().await.unwrap()
}

async fn ask_for_reboot(machine: &Machine) {
    let bus = bus_of(machine).await;
    let (logind, path) = ("org.freedesktop.login1", "/org/freedesktop/login1");
    let manager = Some("org.freedesktop.login1.Manager");
    bus.call_method(Some(logind), path, manager, "RebootWithFlags", &1_u64).await.unwrap();
}

/// Waits until kubelet reports another boot ID than this one; returns the Node.
async fn rebooted(cluster: &SimCluster, node: &str, from: &str) -> Node {
    let other = |node: Option<&Node>| {
        let info = node.and_then(|node| node.status.as_ref()?.node_info.as_ref());
        info.is_some_and(|info| info.boot_id != from)
    };
    until(LIMIT, "the node reboots", Api::all(cluster.client()), node, other).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_machine_reboots_into_the_update_when_logind_is_asked() {
    let dir = Scratch::new("sim").unwrap();
    let cluster = SimCluster::start(dir.path(), SimOptions { nodes: 2, ..SimOptions::default() }).await.unwrap();
    let machine = cluster.machine("node-1").unwrap();
    let first = machine.node().boot_id();
    cluster.announce_update("4100.0.0").await.unwrap();
    ask_for_reboot(machine).await;
    let node = rebooted(&cluster, "node-1", &first).await;
    assert_eq!(node.status.unwrap().node_info.unwrap().boot_id, machine.node().boot_id());
    assert_eq!(machine.node().os_version(), "4100.0.0");
    // The bus is another one at the old address, and logind can be asked again; this time there is no update.
    machine.set_reboots(Reboots { comes_back: false, ..Reboots::default() });
    let second = machine.node().boot_id();
    ask_for_reboot(machine).await;
    let not_ready = |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "False")
    };
    until(LIMIT, "the node goes down", Api::all(cluster.client()), "node-1", not_ready).await.unwrap();
    assert!(!machine.is_up());
    machine.bring_back().await.unwrap();
    rebooted(&cluster, "node-1", &second).await;
    assert_eq!(machine.node().os_version(), "4100.0.0");

    let other = cluster.machine("node-2").unwrap();
    assert_eq!(other.node().os_version(), FIRST_OS_VERSION);
    assert_eq!(cluster.failures(), [""; 0]);
}
