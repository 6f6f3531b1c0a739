//! The real controller, overtaken while it carries out a plan.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::Parser as _;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use reboot_runtime::{clock::Clock, probes::Probes, shutdown::Shutdown};
use reboot_tests::{
    memory::{Call, Fate, MemoryApi, Weather},
    simulation::cluster::node_info,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";

/// When the controller grants node-1 a reboot, kubelet and a person are faster: the one on node-1, the other on node-2.
#[derive(Clone, Default)]
struct Faster(Arc<OnceLock<MemoryApi>>);

impl Weather for Faster {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        async move {
            let is_patch = call.verb == "patch" && call.name == "node-1";
            // Before it is granted, a Node is fenced by the rebuild of the ledger, which has never been there.
            let is_time = |api: &&MemoryApi| {
                annotation(api, "node-1", "reboot-fence").is_some()
                    && annotation(api, "node-2", "reboot-paused").is_none()
            };
            if let Some(api) = self.0.get().filter(|_| is_patch).filter(is_time) {
                let heartbeat = json!({"status": {"phase": "Running"}});
                api.patch("kubelet", "nodes/status", "", "node-1", &heartbeat).unwrap();
                let pause = json!({"metadata": {"annotations": {"reboot-operator.io/reboot-paused": "not now"}}});
                api.patch("kubectl", "nodes", "", "node-2", &pause).unwrap();
                // Long enough for the watches to tell.
                sleep(Duration::from_secs(1)).await;
            }
            Fate::Arrives
        }
        .boxed()
    }
}

fn annotation(api: &MemoryApi, node: &str, key: &str) -> Option<String> {
    let node = api.get("nodes", "", node)?;
    node["metadata"]["annotations"][format!("reboot-operator.io/{key}")].as_str().map(str::to_owned)
}

fn asking(name: &str) -> Value {
    let request = json!({"protocol": 1, "bootID": BOOT, "since": "2026-01-01T11:00:00Z", "sources": ["person"]});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {
            "reboot-operator.io/reboot-needed": "why", "reboot-operator.io/reboot-request": request.to_string(),
        }},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": node_info(BOOT.parse().unwrap())},
    })
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_comes_before_the_grant_of_the_same_plan_is_kept() {
    let faster = Faster::default();
    let api = MemoryApi::new(Timestamp::now, faster.clone());
    for name in ["node-1", "node-2"] {
        api.create("kubelet", &asking(name)).unwrap();
    }
    drop(faster.0.set(api.clone()));
    let mut changes = api.changes();
    let args = ["reboot-controller", "--namespace", "default", "--max-unavailable", "2"];
    let args = reboot_controller::args::Args::parse_from(args);
    let (shutdown, mut probes, clock) = (Shutdown::new(), Probes::default(), Clock::system());
    let identity = "controller-1".to_owned();
    let parts =
        reboot_controller::run::assemble(api.client("controller"), &args, identity, clock, &shutdown, &mut probes);
    let controller = async { tokio::join!(parts.nodes, parts.events, parts.election, parts.reconcile) };
    // It runs until it is stopped.
    assert!(timeout(Duration::from_secs(20), controller).await.is_err());
    let mut granted = BTreeSet::new();
    while let Ok(change) = changes.try_recv() {
        let permission =
            change.after.as_ref().map(|node| &node["metadata"]["annotations"]["reboot-operator.io/reboot"]);
        if permission.is_some_and(|permission| !permission.is_null()) {
            granted.insert(change.key.name.clone());
        }
    }
    assert_eq!(granted, BTreeSet::from(["node-1".to_owned()]));
}
