//! A fleet of nodes that really reboot: how long an update of all takes beside the shortest time that is possible.
//!
//! Five nodes, twenty pods of one Deployment whose PDB lets one go at a time, one node out at a time. The lower bound is
//! measured first, on the same cluster: a script that knows everything, waits for nothing, and asks again every 20 ms.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use reboot_tests::{
    call::{until, within},
    control_plane::audit::{Request, tally},
    real::{Install, RealCluster, RealNode, RealOptions, namespaces},
    referee::history::{NodeSeen, PodSeen},
    scratch::Scratch,
    workload::{Workload, evict, pods_on},
};
use serde_json::json;

use crate::{mebibytes, table::Row};

const PODS: i32 = 20;
const UPDATE: &str = "4100.0.0";
const LIMIT: Duration = Duration::from_mins(10);
/// So often the script asks again.
const AGAIN: Duration = Duration::from_millis(20);
/// In the words of the audit log.
const ACCOUNTS: &str = "system:serviceaccount:reboot-operator:";

/// Runs this program again in namespaces of its own and reads the rows that it prints; none where real nodes cannot be
/// had.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let missing = namespaces::missing();
    if !missing.is_empty() {
        eprintln!("not measured: an update of real nodes, which takes {}", missing.join("; "));
        return Ok(Vec::new());
    }
    eprintln!("updating five real nodes, first by a script, then by the operator");
    let (mut command, _place) = namespaces::rerun(&["--only=real"])?;
    let output = command.stderr(Stdio::inherit()).output().context("running in namespaces")?;
    ensure!(output.status.success(), "measuring on real nodes failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("reading the figures")
}

/// Measures, inside the namespaces, and prints the rows as JSON.
pub(crate) async fn measure_inside() -> Result<()> {
    let scratch = Scratch::new("real")?;
    let cluster = RealCluster::start(scratch.path(), &RealOptions::default()).await?;
    let web = Workload::new("web", PODS);
    web.deploy(&cluster.client()).await?;
    cluster.install(&Install::with_quota(1)).await?;

    let began = Instant::now();
    for node in cluster.nodes() {
        script(&cluster.client(), node).await?;
    }
    let bound = began.elapsed();
    eprintln!("the script needed {:.1} s", bound.as_secs_f64());
    web.undisrupted(&cluster.client()).await?;
    // The operator's pods were drained, too: it must be back before it is put to the test.
    cluster.until_installed().await?;

    let before = requests(&cluster)?.len();
    let began = Instant::now();
    cluster.announce_update(UPDATE).await?;
    let client = cluster.client();
    try_join_all(cluster.nodes().iter().map(|node| until_updated(&client, node.name()))).await?;
    let ours = began.elapsed();
    let made = requests(&cluster)?.split_off(before);
    for (kind, times) in tally(&made) {
        eprintln!("{times:5} x {kind}");
    }
    let mut memory = Vec::new();
    for node in cluster.nodes() {
        memory.push(node.memory_of("reboot-agent")?);
    }
    let ratio = ours.as_secs_f64() / bound.as_secs_f64();
    let rows: Vec<Row> = vec![
        (
            "update of 5 real nodes with 20 pods under a PDB, by a script that waits for nothing".into(),
            format!("{:.1} s", bound.as_secs_f64()),
            "the lower bound".into(),
        ),
        (
            "the same by the operator, from the announcement to the last node done".into(),
            format!("{:.1} s, {ratio:.2} of the bound", ours.as_secs_f64()),
            "at most 1.1 of the bound".into(),
        ),
        ("API requests of the operator in it".into(), made.len().to_string(), "at most 120".into()),
        (
            "memory of an agent in its pod (RSS), largest of 5".into(),
            mebibytes(memory.into_iter().max().unwrap_or_default()),
            "at most 8 MiB".into(),
        ),
    ];
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// Cordons, evicts and evicts again, reboots, waits until the node is Ready, uncordons.
async fn script(client: &Client, node: &RealNode) -> Result<()> {
    let name = node.name();
    let before = seen(client, name).await?.boot_id;
    cordon(client, name, true).await?;
    let pods = pods_on(client, name).await?;
    let pods = pods.iter().filter(|pod| PodSeen::from(*pod).evictable && pod.namespace().as_deref() == Some("default"));
    try_join_all(pods.map(|pod| remove(client, pod))).await?;
    // The connection may break before the answer is there.
    let _going_down = node.execute(&["systemctl", "--no-block", "reboot"]);
    let back = |node: Option<&Node>| node.map(NodeSeen::from).is_some_and(|node| node.ready && node.boot_id != before);
    let nodes = Api::all(client.clone());
    until(LIMIT, format!("waiting for {name} to be back"), nodes, name, back).await?;
    cordon(client, name, false).await
}

async fn remove(client: &Client, pod: &Pod) -> Result<()> {
    let name = pod.name_any();
    let evicted = async {
        // 429: the PDB allows none now. 404: gone.
        while let Err(error) = evict(client, &name).await {
            match error {
                kube::Error::Api(status) if status.code == 404 => break,
                kube::Error::Api(status) if status.code == 429 => tokio::time::sleep(AGAIN).await,
                other => return Err(other),
            }
        }
        Ok(())
    };
    within(LIMIT, format!("evicting {name}"), evicted).await?;
    let (pods, uid) = (Api::<Pod>::default_namespaced(client.clone()), pod.uid());
    let gone = |pod: Option<&Pod>| pod.is_none_or(|pod| pod.uid() != uid);
    until(LIMIT, format!("waiting for {name} to be gone"), pods, &name, gone).await.map(drop)
}

pub(crate) async fn cordon(client: &Client, node: &str, cordoned: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    let parameters = PatchParams::default();
    within(LIMIT, format!("cordoning {node}"), nodes.patch(node, &parameters, &patch)).await.map(drop)
}

async fn seen(client: &Client, node: &str) -> Result<NodeSeen> {
    let nodes: Api<Node> = Api::all(client.clone());
    Ok(NodeSeen::from(&within(LIMIT, format!("reading {node}"), nodes.get(node)).await?))
}

async fn until_updated(client: &Client, name: &str) -> Result<()> {
    let done = |node: Option<&Node>| {
        node.map(NodeSeen::from).is_some_and(|node| {
            let last = node.notes.get("last-reboot").is_some_and(|last| last.contains(UPDATE));
            last && node.ready && !node.cordoned && !node.notes.contains_key("reboot-in-progress")
        })
    };
    until(LIMIT, format!("waiting for the update of {name}"), Api::all(client.clone()), name, done).await.map(drop)
}

/// What the operator has asked of the API server so far.
fn requests(cluster: &RealCluster) -> Result<Vec<Request>> {
    let mut requests = cluster.control_plane().audit()?;
    requests.retain(|request| request.user.starts_with(ACCOUNTS));
    Ok(requests)
}
