//! One whole cycle on a simulated machine: its writes, and how soon after the drain logind is called.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::watcher::{Config, Event, watcher};
use reboot_tests::call::until;
use reboot_tests::control_plane::audit::Request;
use reboot_tests::sim::{Machine, SimCluster, SimOptions};
use reboot_tests::workload::Workload;

use crate::table::Table;

const LIMIT: Duration = Duration::from_mins(1);
const LAST_REBOOT: &str = "reboot-operator.io/last-reboot";
const DRAINS: usize = 5;
const PODS: i32 = 3;

pub(crate) async fn measure(dir: &Path, table: &mut Table) -> Result<()> {
    std::fs::create_dir_all(dir).context("making a folder")?;
    let mut cluster = SimCluster::start(dir, SimOptions { nodes: 1, ..SimOptions::default() }).await?;
    cluster.install(Path::new("manifests")).await?;
    let _controller = cluster.spawn_controller("controller", &[])?;
    cluster.start_agents(&[])?;
    let machine = cluster.machine("node-1")?;
    // The first cycle also creates the ledger and the lease.
    reboot(&cluster, machine, "4100.0.0").await?;
    ledger_is_empty(&cluster).await?;
    let before = cluster.control_plane().audit()?.len();
    reboot(&cluster, machine, "4101.0.0").await?;
    ledger_is_empty(&cluster).await?;
    let audit = cluster.control_plane().audit()?;
    let writes: Vec<&Request> = audit.iter().skip(before).filter(|request| is_counted(request)).collect();
    for Request { at, user, verb, resource, code, .. } in &writes {
        eprintln!("  {at} {user} {verb} {resource} {code}");
    }
    table.add("writes of Node and ledger for one reboot", writes.len().to_string(), "at most 9");
    // The pods of an evicted Deployment stay pending while the only node is cordoned, and come back with it.
    let workload = Workload::new("web", PODS).without_pdb();
    workload.deploy(&cluster.client()).await?;
    let mut latencies = Vec::new();
    for round in 0..DRAINS {
        latencies.push(drain(&cluster, machine, &format!("42{round:02}.0.0")).await?);
        let all_ready = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.and_then(|status| status.ready_replicas) == Some(PODS)
        };
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
        until(LIMIT, "the pods are back", deployments, "web", all_ready).await?;
    }
    latencies.sort_unstable();
    let median = latencies.get(DRAINS / 2).copied().unwrap_or_default();
    let all: Vec<_> = latencies.iter().map(|latency| latency.as_millis().to_string()).collect();
    table.add(
        format!("end of drain to logind's Reboot, median of {DRAINS}"),
        format!("{} ms ({})", median.as_millis(), all.join(", ")),
        "under 50 ms",
    );
    Ok(())
}

fn is_counted(request: &Request) -> bool {
    let ours = request.user.contains(":reboot-operator:reboot-");
    let written = matches!(request.verb.as_str(), "patch" | "update" | "create");
    let taken = (200..300).contains(&request.code);
    ours && written && taken && matches!(request.resource.as_str(), "nodes" | "configmaps")
}

async fn reboot(cluster: &SimCluster, machine: &Machine, version: &str) -> Result<()> {
    machine.announce_update(version).await?;
    let nodes: Api<Node> = Api::all(cluster.client());
    until(LIMIT, "the cycle ends", nodes, machine.node().name(), ended(version)).await.map(drop)
}

fn ended(version: &str) -> impl Fn(Option<&Node>) -> bool {
    let wanted = format!("\"osAfter\":\"{version}\"");
    move |node| {
        let annotations = node.and_then(|node| node.metadata.annotations.as_ref());
        annotations.and_then(|all| all.get(LAST_REBOOT)).is_some_and(|last| last.contains(&wanted))
    }
}

async fn ledger_is_empty(cluster: &SimCluster) -> Result<()> {
    let empty = |map: Option<&k8s_openapi::api::core::v1::ConfigMap>| {
        let data = map.and_then(|map| map.data.as_ref()?.get("ledger"));
        data.is_some_and(|text| text.contains("\"slots\":[]"))
    };
    let maps = Api::namespaced(cluster.client(), "reboot-operator");
    until(LIMIT, "the slot is freed", maps, "reboot-slots", empty).await.map(drop)
}

/// From the moment at which a watch shows the last evicted pod gone to the call that reaches logind.
async fn drain(cluster: &SimCluster, machine: &Machine, version: &str) -> Result<Duration> {
    let calls = machine.logind().requests();
    machine.announce_update(version).await?;
    let on_node = Config::default().fields("spec.nodeName=node-1").labels("app=web");
    let mut events = Box::pin(watcher(Api::<Pod>::all(cluster.client()), on_node));
    let mut left = std::collections::BTreeSet::new();
    let gone = loop {
        match events.try_next().await.context("watching the pods")?.context("the watch ended")? {
            Event::Delete(pod) => {
                left.remove(&pod.metadata.uid);
                if left.is_empty() {
                    break Instant::now();
                }
            }
            Event::InitApply(pod) | Event::Apply(pod) => drop(left.insert(pod.metadata.uid)),
            Event::Init | Event::InitDone => {}
        }
    };
    while machine.logind().requests() == calls {
        // Fine enough for the figure; the fake logind has no other way to tell a third party.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let latency = gone.elapsed();
    let nodes: Api<Node> = Api::all(cluster.client());
    until(LIMIT, "the cycle ends", nodes, machine.node().name(), ended(version)).await?;
    Ok(latency)
}
