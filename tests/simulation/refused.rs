//! The real loops where the API server refuses some of what they write: they say nothing that is not so, and do not
//! hurry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use reboot_core::ids::BootId;
use reboot_tests::{
    memory::{Call, Fate, MemoryApi, Weather},
    simulation::cluster::node_info,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::alone::{agent, annotate, annotation, asking, controller, granted, slots, written};

/// For how long writes are refused, and so long after that everything is in order.
const REFUSED: Duration = Duration::from_mins(2);
const HEALED: Duration = Duration::from_mins(1);

/// The most tries in [`REFUSED`]: pauses of 0.5 s, doubling to 30 s, with one more try at each end.
const TRIES: usize = 12;

/// The API server refuses these writes while it is told to.
#[derive(Clone)]
struct Refusing {
    /// The verb and the resource.
    what: (&'static str, &'static str),
    now: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Refusing {
    /// An API server that can refuse this, with node-1, of which a reboot is asked; `answered`: with its agent's request.
    fn over(verb: &'static str, resource: &'static str, answered: bool) -> (Self, MemoryApi) {
        let refusing = Self { what: (verb, resource), now: Arc::default(), count: Arc::default() };
        let api = MemoryApi::new(Timestamp::now, refusing.clone());
        api.create("kubelet", &asking("node-1", answered)).unwrap();
        (refusing, api)
    }

    /// Refuses for [`REFUSED`], and waits until all has healed. Something must be tried in that time, and not often.
    async fn for_a_while(&self) {
        self.now.store(true, Relaxed);
        sleep(REFUSED).await;
        self.now.store(false, Relaxed);
        sleep(HEALED).await;
        let refused = self.count.load(Relaxed);
        assert!((2..TRIES).contains(&refused), "refused {refused} times");
    }
}

impl Weather for Refusing {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        async move {
            if !self.now.load(Relaxed) || self.what != (call.verb, call.resource.as_str()) {
                return Fate::Arrives;
            }
            self.count.fetch_add(1, Relaxed);
            Fate::Fails(500)
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_cycle_counts_once_however_often_its_slot_could_not_be_freed() {
    let (refusing, api) = Refusing::over("update", "configmaps", true);
    let mut changes = api.changes();
    let story = async {
        let id = granted(&mut changes).await;
        // All that an agent writes in the end, and what kubelet says of the new boot.
        let last = json!({"id": id, "outcome": "rebooted", "reason": "Rebooted", "at": Timestamp::now(), "seconds": 7});
        let gone = ["reboot", "reboot-needed", "reboot-request"].map(|key| (key, Value::Null));
        let report = gone.into_iter().chain([("last-reboot", json!(last.to_string()))]);
        annotate(&api, "agent", "node-1", &report.collect::<Vec<_>>());
        let other: BootId = "9a4d1c0e-5b1f-4d54-8a4b-3f1f0c7e2d11".parse().unwrap();
        let booted = json!({"status": {"nodeInfo": node_info(other)}});
        api.patch("kubelet", "nodes/status", "", "node-1", &booted).unwrap();
        refusing.for_a_while().await;
    };
    let metrics = controller(&api, &[], story).await;
    assert_eq!(slots(&api), json!([]));
    let counted = r#"reboot_controller_cycles_total{reason="Rebooted"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_withdrawn_once_however_often_its_slot_could_not_be_freed() {
    let (refusing, api) = Refusing::over("update", "configmaps", true);
    let mut changes = api.changes();
    let story = async {
        let id = granted(&mut changes).await;
        annotate(&api, "kubectl", "node-1", &[("reboot-paused", json!("not now"))]);
        refusing.for_a_while().await;
        let mut fences = Vec::new();
        while let Ok(change) = changes.try_recv() {
            fences.extend(written(&change, "reboot-fence").filter(|fence| *fence != id));
        }
        fences.dedup();
        assert_eq!(fences.len(), 1, "{fences:?}");
    };
    controller(&api, &[], story).await;
    assert_eq!(slots(&api), json!([]));
    let events = api.list("events", "");
    let told: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert_eq!(told.iter().filter(|reason| **reason == "GrantWithdrawn").count(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_changes_all_the_time_does_not_hurry_an_agent_whose_writes_fail() {
    let (refusing, api) = Refusing::over("patch", "nodes", false);
    let heartbeats = async {
        for beat in 0_u32.. {
            sleep(Duration::from_millis(700)).await;
            let status = json!({"status": {"phase": beat.to_string()}});
            api.patch("kubelet", "nodes/status", "", "node-1", &status).unwrap();
        }
    };
    let story = async {
        tokio::select! {
            () = heartbeats => {}
            () = refusing.for_a_while() => {}
        }
    };
    agent(&api, story).await;
    let node = api.get("nodes", "", "node-1").unwrap();
    assert!(annotation(&node, "reboot-request").is_some(), "{node:#}");
}
