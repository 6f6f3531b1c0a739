//! The real controller where the API server refuses what it writes to some Nodes, as a policy does, and where a machine never
//! comes back: what concerns one node keeps no other waiting, and people hear of it.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use reboot_tests::memory::{Call, Fair, Fate, MemoryApi, Weather};
use serde_json::json;
use tokio::time::sleep;

use crate::alone::{annotate, annotation, asking, controller, granted, slots};

/// Long enough for anything that is not kept from happening.
const LONG: Duration = Duration::from_mins(1);

/// The most tries in [`LONG`] on one Node: pauses of 0.5 s, doubling to 30 s.
const TRIES: usize = 10;

/// Writes to these Nodes are answered with a code while that is on.
#[derive(Clone)]
struct Protected {
    nodes: fn(&str) -> bool,
    code: u16,
    on: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Protected {
    fn over(nodes: fn(&str) -> bool, code: u16) -> (Self, MemoryApi) {
        let protected = Self { nodes, code, on: Arc::new(AtomicBool::new(true)), count: Arc::default() };
        (protected.clone(), MemoryApi::new(Timestamp::now, protected))
    }
}

impl Weather for Protected {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        async move {
            let is_write = call.verb == "patch" && call.resource == "nodes" && (self.nodes)(&call.name);
            if !is_write || !self.on.load(Relaxed) {
                return Fate::Arrives;
            }
            self.count.fetch_add(1, Relaxed);
            Fate::Fails(self.code)
        }
        .boxed()
    }
}

/// node-1 takes no writes, and one write of the ledger fails.
#[derive(Clone)]
struct Unlucky {
    writes: Arc<AtomicUsize>,
    fails: usize,
}

impl Weather for Unlucky {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        async move {
            match (call.verb, call.resource.as_str()) {
                ("patch", "nodes") if call.name == "node-1" => Fate::Fails(403),
                ("update", "configmaps") if self.writes.fetch_add(1, Relaxed) + 1 == self.fails => Fate::Fails(500),
                _ => Fate::Arrives,
            }
        }
        .boxed()
    }
}

/// Nodes of which a reboot is asked. Where the controller has begun, its ledger is there already.
fn ask(api: &MemoryApi, names: impl IntoIterator<Item = impl AsRef<str>>) {
    for name in names {
        api.create("kubelet", &asking(name.as_ref(), true)).unwrap();
    }
}

/// node-10, node-11, and so on: as many as can be in the order of their numbers.
fn numbered(numbers: Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("node-{number}"))
}

fn has(api: &MemoryApi, node: &str, key: &str) -> bool {
    annotation(&api.get("nodes", "", node).unwrap(), key).is_some()
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.trim().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_refused_gives_its_slot_to_the_next_node() {
    let (protected, api) = Protected::over(|node| node == "node-1", 403);
    let story = async {
        sleep(Duration::from_secs(2)).await;
        ask(&api, ["node-1", "node-2"]);
        sleep(Duration::from_secs(2)).await;
        assert!(has(&api, "node-2", "reboot"));
        sleep(LONG).await;
    };
    let metrics = controller(&api, &[], story).await;
    assert_eq!(slots(&api)[0]["node"], json!("node-2"), "{}", slots(&api));
    assert!((1..TRIES).contains(&protected.count.load(Relaxed)), "{} tries", protected.count.load(Relaxed));
    let told = r#"reboot_controller_nodes_waiting{reason="WriteRefused"} 1"#;
    assert!(metrics.lines().any(|line| line == told), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn many_nodes_that_refuse_grants_come_after_one_that_does_not() {
    let (_, api) = Protected::over(|node| node < "node-30", 403);
    let story = async {
        sleep(Duration::from_secs(2)).await;
        ask(&api, numbered(10..22).chain(numbered(30..31)));
        // Where many refuse, the controller's pauses grow: it may be its rights.
        sleep(LONG * 5).await;
    };
    controller(&api, &[], story).await;
    assert!(has(&api, "node-30", "reboot"), "{}", slots(&api));
}

#[tokio::test(start_paused = true)]
async fn the_slot_of_a_refused_grant_is_free_even_where_the_ledger_could_not_be_written_at_first() {
    // What makes the ledger whole, what takes the slot, and what frees it.
    let unlucky = Unlucky { writes: Arc::default(), fails: 3 };
    let api = MemoryApi::new(Timestamp::now, unlucky.clone());
    let story = async {
        sleep(Duration::from_secs(2)).await;
        ask(&api, ["node-1", "node-2"]);
        sleep(LONG).await;
    };
    controller(&api, &[], story).await;
    assert!(unlucky.writes.load(Relaxed) > unlucky.fails, "that write was made");
    assert!(has(&api, "node-2", "reboot"), "{}", slots(&api));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_fenced_keeps_a_slot_and_does_not_keep_the_ledger_lost() {
    let (protected, api) = Protected::over(|node| node == "node-1", 422);
    ask(&api, ["node-1", "node-2"]);
    let story = async {
        sleep(LONG).await;
        assert!(has(&api, "node-2", "reboot") && !has(&api, "node-1", "reboot"), "{}", slots(&api));
        let held: Vec<_> = slots(&api).as_array().unwrap().iter().map(|slot| slot["node"].clone()).collect();
        assert_eq!(held, ["node-1", "node-2"]);
        protected.on.store(false, Relaxed);
        sleep(LONG).await;
        assert!(has(&api, "node-1", "reboot"), "{}", slots(&api));
    };
    controller(&api, &["--max-unavailable", "2"], story).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_take_no_reason_do_not_keep_the_others_from_having_theirs() {
    let (_, api) = Protected::over(|node| node < "node-20", 403);
    let story = async {
        sleep(Duration::from_secs(2)).await;
        ask(&api, numbered(10..22));
        sleep(LONG).await;
    };
    controller(&api, &["--max-unavailable", "0"], story).await;
    assert!(["node-20", "node-21"].iter().all(|node| has(&api, node, "reboot-waiting")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_is_given_one_by_the_whole_plan() {
    let (protected, api) = Protected::over(|_| true, 429);
    let story = async {
        sleep(Duration::from_secs(2)).await;
        ask(&api, numbered(10..30));
        sleep(Duration::from_secs(10)).await;
        let count = protected.count.load(Relaxed);
        assert!((1..=6).contains(&count), "{count} writes to a server that said when to come again");
        protected.on.store(false, Relaxed);
        sleep(LONG).await;
    };
    controller(&api, &["--max-unavailable", "20"], story).await;
    assert!(numbered(10..30).all(|node| has(&api, &node, "reboot")));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_comes_back_grows_older_in_the_metrics_until_an_alert_sees_it() {
    let api = MemoryApi::new(Timestamp::now, Fair);
    ask(&api, ["node-1", "node-2"]);
    let mut changes = api.changes();
    let story = async {
        let id = granted(&mut changes).await;
        let progress =
            json!({"phase": "rebooting", "id": id, "since": Timestamp::now(), "spentSeconds": 1, "cordoned": true});
        annotate(&api, "agent", "node-1", &[("reboot-in-progress", json!(progress.to_string()))]);
        sleep(Duration::from_mins(35)).await;
    };
    let metrics = controller(&api, &[], story).await;
    let age = value(&metrics, "reboot_controller_oldest_slot_age_seconds");
    assert!((2000.0..2200.0).contains(&age), "{age}");
    assert!(value(&metrics, "reboot_controller_oldest_request_age_seconds") > age);
}
