//! One process of the operator, alone over an API server in memory, in virtual time.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use clap::Parser as _;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use prometheus_client::{encoding::text::encode, registry::Registry};
use reboot_agent::{
    logind::RebootReply,
    machine::{Asked, Host, Machine},
    update_engine::EngineState,
};
use reboot_runtime::{clock::Clock, events::Events, probes::Probes, shutdown::Shutdown};
use reboot_tests::{
    memory::{Change, MemoryApi},
    simulation::cluster::node_info,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc::UnboundedReceiver, watch},
    time::Instant,
};

/// The boot that [`asking`] shows.
pub(crate) const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";

/// Runs a controller for as long as this takes; returns its metrics in the end.
pub(crate) async fn controller(api: &MemoryApi, args: &[&str], done: impl Future<Output = ()>) -> String {
    let args = ["reboot-controller", "--namespace", "default"].iter().chain(args);
    let args = reboot_controller::args::Args::parse_from(args);
    let (shutdown, mut probes, clock) = (Shutdown::new(), Probes::default(), clock());
    let identity = "controller-1".to_owned();
    let parts =
        reboot_controller::run::assemble(api.client("controller"), &args, identity, clock, &shutdown, &mut probes);
    let process = async { tokio::join!(parts.nodes, parts.events, parts.election, parts.reconcile) };
    outlives(process, done).await;
    metrics(&probes.registry)
}

/// Runs the agent of node-1, which finds nothing on its machine but a boot ID, for as long as this takes.
pub(crate) async fn agent(api: &MemoryApi, done: impl Future<Output = ()>) {
    let args = reboot_agent::args::Args::parse_from(["reboot-agent", "--node-name", "node-1"]);
    let (client, shutdown) = (api.client("agent"), Shutdown::new());
    let machine = Machine::new(Box::new(Bare), None, watch::Sender::new(EngineState::default()));
    let (events, write_events) = Events::new(client.clone(), "reboot-agent", "node-1");
    let reconciler = reboot_agent::run::assemble(client, &args, machine, events, clock(), 0, &mut Probes::default());
    outlives(async { tokio::join!(reconciler.run(shutdown), write_events) }.boxed(), done).await;
}

/// Now, and from there on in virtual time.
fn clock() -> Clock {
    let (wall, start) = (Timestamp::now(), Instant::now());
    Clock::with_wall(move || wall.checked_add(start.elapsed()).unwrap())
}

/// A process must not end by itself.
async fn outlives<T: std::fmt::Debug>(process: impl Future<Output = T>, done: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        ended = process => panic!("{ended:?}"),
        () = done => {}
    }
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

/// A node of which a reboot is asked; `answered`: with its agent's request.
pub(crate) fn asking(name: &str, answered: bool) -> Value {
    let mut annotations = json!({"reboot-operator.io/reboot-needed": "why"});
    if answered {
        let request = json!({"protocol": 1, "bootID": BOOT, "since": "2026-01-01T11:00:00Z", "sources": ["person"]});
        annotations["reboot-operator.io/reboot-request"] = json!(request.to_string());
    }
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": node_info(BOOT.parse().unwrap())},
    })
}

/// An annotation of a Node, named without the prefix.
pub(crate) fn annotation(node: &Value, key: &str) -> Option<String> {
    node["metadata"]["annotations"][format!("reboot-operator.io/{key}")].as_str().map(str::to_owned)
}

/// Sets annotations of a Node, named without the prefix; null removes one.
pub(crate) fn annotate(api: &MemoryApi, user: &str, node: &str, values: &[(&str, Value)]) {
    let keyed = values.iter().map(|(key, value)| (format!("reboot-operator.io/{key}"), value.clone()));
    let annotations: serde_json::Map<String, Value> = keyed.collect();
    api.patch(user, "nodes", "", node, &json!({"metadata": {"annotations": annotations}})).unwrap();
}

/// Waits until the Node has a grant; returns its id.
pub(crate) async fn granted(changes: &mut UnboundedReceiver<Arc<Change>>) -> String {
    loop {
        if let Some(id) = written(&changes.recv().await.unwrap(), "reboot") {
            return id;
        }
    }
}

/// The annotation that a Node has after this change.
pub(crate) fn written(change: &Change, key: &str) -> Option<String> {
    annotation(change.after.as_deref().filter(|_| change.key.resource == "nodes")?, key)
}

/// The slots of the ledger.
pub(crate) fn slots(api: &MemoryApi) -> Value {
    let map = api.get("configmaps", "default", "reboot-slots").unwrap();
    serde_json::from_str::<Value>(map["data"]["ledger"].as_str().unwrap()).unwrap()["slots"].take()
}

/// A machine that has been up for long, without update_engine and without logind.
struct Bare;

impl Host for Bare {
    fn boot_id(&self) -> Result<String> {
        Ok(BOOT.to_owned())
    }

    fn uptime(&self) -> Result<Duration> {
        Ok(Duration::from_hours(1))
    }

    fn ask<'a>(&'a self, _: &'a watch::Sender<EngineState>) -> BoxFuture<'a, Asked> {
        Box::pin(std::future::ready((EngineState::default(), None)))
    }

    fn reboot(&self) -> BoxFuture<'_, RebootReply> {
        Box::pin(std::future::ready(RebootReply::Unreachable("there is no logind".to_owned())))
    }
}
