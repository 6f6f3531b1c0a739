//! A large fleet: how soon a request is granted, and what the controller's memory holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use reboot_tests::call::until;
use reboot_tests::control_plane::{ControlPlane, Controllers, Options};
use reboot_tests::process::Process;
use reboot_tests::sim::program;
use serde_json::json;

use crate::mebibytes;
use crate::table::Table;

const LIMIT: Duration = Duration::from_mins(1);
const PREFIX: &str = "reboot-operator.io";
const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";

pub(crate) async fn measure(dir: &Path, nodes: usize, grants: usize, table: &mut Table) -> Result<()> {
    std::fs::create_dir_all(dir).context("making a folder")?;
    let options = Options { controllers: Controllers::None, ..Options::default() };
    let control_plane = ControlPlane::start(&dir.join("cp"), options).await?;
    let client = control_plane.client();
    eprintln!("making {nodes} Nodes with 50 images each");
    let all = stream::iter(0..nodes).map(Ok::<_, anyhow::Error>);
    all.try_for_each_concurrent(16, |number| create(client.clone(), number)).await?;
    let controller = start(&control_plane, dir).await?;
    let mut latencies = Vec::new();
    for number in 0..grants.min(nodes) {
        latencies.push(grant(&client, &name(number)).await?);
    }
    latencies.sort_unstable();
    let at =
        |percent: usize| latencies.get(latencies.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    let figure = |percent| format!("{:.1} ms", at(percent).as_secs_f64() * 1e3);
    table.add(format!("request to grant, {nodes} Nodes, p50 of {grants}"), figure(50), "");
    table.add(format!("request to grant, {nodes} Nodes, p99 of {grants}"), figure(99), "under 50 ms");
    table.add(
        format!("memory of the controller with {nodes} Nodes (RSS)"),
        mebibytes(controller.rss()?),
        "under 40 MiB",
    );
    Ok(())
}

fn name(number: usize) -> String {
    format!("node-{number:05}")
}

/// A Node of the size that kubelet makes it: 50 images with two names each, conditions, capacity.
async fn create(client: Client, number: usize) -> Result<()> {
    let image = |image: usize| {
        let name = format!("registry.example.com/team-{}/service-{image}", image % 7);
        let digest = format!("{:064x}", number * 1000 + image);
        json!({ "names": [format!("{name}@sha256:{digest}"), format!("{name}:v1.{image}.0")], "sizeBytes": 91_234_567 })
    };
    let condition = |kind: &str, status: &str| {
        json!({ "type": kind, "status": status, "reason": "KubeletReports", "message": "kubelet reports this condition",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let node = serde_json::from_value(json!({
        "metadata": { "name": name(number), "labels": {
            "kubernetes.io/hostname": name(number), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3), "node-role.kubernetes.io/worker": "" } },
        "status": {
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                           condition("PIDPressure", "False"), condition("Ready", "True")],
            "capacity": { "cpu": "16", "memory": "65536Mi", "pods": "110" },
            "images": (0..50).map(image).collect::<Vec<_>>(),
            "nodeInfo": { "bootID": BOOT, "architecture": "amd64", "containerRuntimeVersion": "containerd://2.1.5",
                          "kernelVersion": "6.12.58-flatcar", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3",
                          "machineID": BOOT, "operatingSystem": "linux", "osImage": "Flatcar", "systemUUID": BOOT } },
    }))?;
    let nodes: Api<Node> = Api::all(client);
    nodes.create(&PostParams::default(), &node).await.context("creating a Node").map(drop)
}

async fn start(control_plane: &ControlPlane, dir: &Path) -> Result<Process> {
    let namespace = serde_json::from_value(json!({ "metadata": { "name": "reboot-operator" } }))?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(control_plane.client());
    namespaces.create(&PostParams::default(), &namespace).await.context("creating the namespace")?;
    let mut command = std::process::Command::new(program("reboot-controller", "REBOOT_CONTROLLER_BIN")?);
    command.arg("--kubeconfig").arg(control_plane.kubeconfig()).args(["--listen", "127.0.0.1:0"]);
    let controller = Process::spawn("controller", command, &dir.join("controller.log"))?;
    let complete = |map: Option<&k8s_openapi::api::core::v1::ConfigMap>| map.is_some_and(|map| map.data.is_some());
    let maps = Api::namespaced(control_plane.client(), "reboot-operator");
    until(LIMIT, "the controller completes its ledger", maps, "reboot-slots", complete).await?;
    Ok(controller)
}

/// Plays the agent of one node: asks, waits for the grant, and gives it back. From the end of the write that asks to
/// the moment at which a watch shows the grant.
async fn grant(client: &Client, name: &str) -> Result<Duration> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut events = Box::pin(watcher(nodes.clone(), Config::default().fields(&format!("metadata.name={name}"))));
    loop {
        if let Event::InitDone = events.try_next().await.context("watching the Node")?.context("the watch ended")? {
            break;
        }
    }
    let since = jiff::Timestamp::now();
    let request = json!({ "protocol": 1, "bootID": BOOT, "since": since, "sources": ["person"] });
    annotate(&nodes, name, &[("reboot-needed", Some("bench")), ("reboot-request", Some(&request.to_string()))]).await?;
    let asked = Instant::now();
    let id = loop {
        let event = events.try_next().await.context("watching the Node")?.context("the watch ended")?;
        let Event::Apply(node) = event else { continue };
        if let Some(id) = node.metadata.annotations.and_then(|mut all| all.remove(&format!("{PREFIX}/reboot"))) {
            break id;
        }
    };
    let latency = asked.elapsed();
    let last =
        json!({ "id": id, "outcome": "gave-back", "reason": "NotNeeded", "at": since, "seconds": 0 }).to_string();
    let ended = [("reboot-needed", None), ("reboot-request", None), ("reboot", None), ("last-reboot", Some(&*last))];
    annotate(&nodes, name, &ended).await?;
    let free = |map: Option<&k8s_openapi::api::core::v1::ConfigMap>| {
        map.and_then(|map| map.data.as_ref()?.get("ledger")).is_some_and(|text| text.contains("\"slots\":[]"))
    };
    let maps = Api::namespaced(client.clone(), "reboot-operator");
    until(LIMIT, "the slot is freed", maps, "reboot-slots", free).await?;
    Ok(latency)
}

async fn annotate(nodes: &Api<Node>, name: &str, values: &[(&str, Option<&str>)]) -> Result<()> {
    let values: BTreeMap<_, _> = values.iter().map(|(key, value)| (format!("{PREFIX}/{key}"), value)).collect();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": values } }));
    nodes.patch(name, &PatchParams::default(), &patch).await.context("annotating a Node").map(drop)
}
