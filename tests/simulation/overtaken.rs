//! The real controller, overtaken while it carries out a plan.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use reboot_tests::memory::{Call, Fate, MemoryApi, Weather};
use serde_json::json;
use tokio::time::sleep;

use crate::alone::{annotate, annotation, asking, controller};

/// When the controller grants node-1 a reboot, kubelet and a person are faster: the one on node-1, the other on node-2.
#[derive(Clone, Default)]
struct Faster(Arc<OnceLock<MemoryApi>>);

impl Weather for Faster {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        async move {
            let is_patch = call.verb == "patch" && call.name == "node-1";
            // Before it is granted, a Node is fenced by the rebuild of the ledger, which has never been there.
            let is_time = |api: &&MemoryApi| has(api, "node-1", "reboot-fence") && !has(api, "node-2", "reboot-paused");
            if let Some(api) = self.0.get().filter(|_| is_patch).filter(is_time) {
                let heartbeat = json!({"status": {"phase": "Running"}});
                api.patch("kubelet", "nodes/status", "", "node-1", &heartbeat).unwrap();
                annotate(api, "kubectl", "node-2", &[("reboot-paused", json!("not now"))]);
                // Long enough for the watches to tell.
                sleep(Duration::from_secs(1)).await;
            }
            Fate::Arrives
        }
        .boxed()
    }
}

fn has(api: &MemoryApi, node: &str, key: &str) -> bool {
    api.get("nodes", "", node).is_some_and(|node| annotation(&node, key).is_some())
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_comes_before_the_grant_of_the_same_plan_is_kept() {
    let faster = Faster::default();
    let api = MemoryApi::new(Timestamp::now, faster.clone());
    for name in ["node-1", "node-2"] {
        api.create("kubelet", &asking(name, true)).unwrap();
    }
    drop(faster.0.set(api.clone()));
    let mut changes = api.changes();
    controller(&api, &["--max-unavailable", "2"], sleep(Duration::from_secs(20))).await;
    let mut granted = BTreeSet::new();
    while let Ok(change) = changes.try_recv() {
        if change.after.as_deref().is_some_and(|node| annotation(node, "reboot").is_some()) {
            granted.insert(change.key.name.clone());
        }
    }
    assert_eq!(granted, BTreeSet::from(["node-1".to_owned()]));
}
