//! The same pods on the same node, drained by `kubectl drain` and by the operator, in turns on one cluster of real nodes.
//!
//! Both are timed from the moment at which the node is cordoned. kubectl has drained when its process ends, the operator
//! when it passes its own point of no return: everything is gone, and logind is next. No reboot follows, because a lock
//! on shutdowns holds the node: logind refuses, and the operator gives the node back as it would to a person.

use std::{
    future::ready,
    pin::pin,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{Stream, TryStreamExt as _, future::try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use reboot_tests::{
    call::{until, within},
    real::{Install, RealCluster, RealOptions, namespaces},
    referee::history::{NodeSeen, PREFIX, PodSeen},
    scene::phase_of,
    scratch::Scratch,
    sim::kubectl_within,
    workload::{Workload, pods_on},
};
use serde_json::json;

use crate::{real::cordon, table::Row};

/// The node that is drained.
const NODE: &str = "node-1";
const LIMIT: Duration = Duration::from_mins(5);
/// In the words of the audit log.
const AGENT: &str = "system:serviceaccount:reboot-operator:reboot-agent";
const KUBECTL: &str = "kubectl";

/// What is on the node.
struct Content {
    name: &'static str,
    deployments: usize,
    /// So many pods of each are on the node that is drained…
    here: i32,
    /// …and so many on others.
    elsewhere: i32,
    budgets: bool,
    goal: &'static str,
}

const CONTENTS: [Content; 3] = [
    Content {
        name: "6 pods of a Deployment of 20 whose PDB lets one go at a time",
        deployments: 1,
        here: 6,
        elsewhere: 14,
        budgets: true,
        goal: "at most 0.35 of kubectl's time, 0.5 of its requests",
    },
    Content {
        name: "60 pods of 20 Deployments with a PDB each",
        deployments: 20,
        here: 3,
        elsewhere: 0,
        budgets: true,
        goal: "no slower than kubectl, at most 0.5 of its requests",
    },
    Content {
        name: "60 pods of 20 Deployments without PDBs",
        deployments: 20,
        here: 3,
        elsewhere: 0,
        budgets: false,
        goal: "no slower than kubectl, at most 0.5 of its requests",
    },
];

/// Who drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Kubectl,
    Operator,
}

/// What drains took, over all rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    time: Duration,
    requests: usize,
    /// The most replicas that were not available at a time.
    unavailable: usize,
}

/// Runs this program again in namespaces of its own and reads the rows that it prints; none where real nodes cannot be
/// had.
pub(crate) fn measure(rounds: u32) -> Result<Vec<Row>> {
    let missing = namespaces::missing();
    if !missing.is_empty() {
        eprintln!("not measured: drains of a real node, which take {}", missing.join("; "));
        return Ok(Vec::new());
    }
    eprintln!("draining a real node, by kubectl and by the operator in turns");
    let (mut command, _place) = namespaces::rerun(&["--only=drain", &format!("--drain-rounds={rounds}")])?;
    let output = command.stderr(Stdio::inherit()).output().context("running in namespaces")?;
    ensure!(output.status.success(), "measuring drains failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("reading the figures")
}

/// Measures, inside the namespaces, and prints the rows as JSON.
pub(crate) async fn measure_inside(rounds: u32) -> Result<()> {
    let scratch = Scratch::new("drain")?;
    let cluster = RealCluster::start(scratch.path(), &RealOptions::default()).await?;
    // So that the controller is on another node, and no part of what is drained.
    cordon(&cluster.client(), NODE, true).await?;
    cluster.install(&Install::with_quota(1)).await?;
    cordon(&cluster.client(), NODE, false).await?;
    let lock = "systemd-run --quiet --unit=holder systemd-inhibit --what=shutdown --mode=block --who=bench --why=bench sleep infinity";
    cluster.node(NODE)?.execute(&lock.split(' ').collect::<Vec<_>>())?;
    let mut rows = Vec::new();
    for content in &CONTENTS {
        let (mut kubectl, mut operator) = (Taken::default(), Taken::default());
        for round in 0..rounds {
            let first = if round % 2 == 0 { Who::Kubectl } else { Who::Operator };
            let second = if first == Who::Kubectl { Who::Operator } else { Who::Kubectl };
            for who in [first, second] {
                let taken = if who == Who::Kubectl { &mut kubectl } else { &mut operator };
                taken.add(drain(&cluster, content, who).await?);
            }
        }
        rows.extend(compare(content, &kubectl, &operator, rounds));
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

impl Taken {
    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.requests += other.requests;
        self.unavailable = self.unavailable.max(other.unavailable);
    }

    fn words(&self, rounds: u32) -> String {
        let seconds = self.time.as_secs_f64() / f64::from(rounds);
        let requests = self.requests / usize::try_from(rounds).unwrap_or(1);
        format!("{seconds:.1} s, {requests} requests, {} unavailable", self.unavailable)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
fn compare(content: &Content, kubectl: &Taken, operator: &Taken, rounds: u32) -> [Row; 2] {
    let time = operator.time.as_secs_f64() / kubectl.time.as_secs_f64();
    let requests = operator.requests as f64 / kubectl.requests as f64;
    let ours = format!("{}: {time:.2} of the time, {requests:.2} of the requests", operator.words(rounds));
    [
        (format!("kubectl drains {}", content.name), kubectl.words(rounds), String::new()),
        ("the operator drains the same".into(), ours, content.goal.into()),
    ]
}

/// Puts the pods on the node, has them drained, and takes them away again.
async fn drain(cluster: &RealCluster, content: &Content, who: Who) -> Result<Taken> {
    place(cluster, content).await?;
    let client = cluster.client();
    let began = Timestamp::now();
    let drained = async {
        match who {
            Who::Kubectl => by_kubectl(cluster).await,
            Who::Operator => by_operator(&client).await,
        }
    };
    let (time, unavailable) = counting_unavailable(&client, content.pods(), drained).await?;
    let left = pods_on(&client, NODE).await?;
    let left = left.iter().map(PodSeen::from).filter(|pod| pod.evictable && pod.namespace == "default").count();
    ensure!(left == 0, "{who:?} left {left} pods on {NODE}");
    let user = if who == Who::Kubectl { KUBECTL } else { AGENT };
    let audit = cluster.control_plane().audit()?;
    let requests = audit.iter().filter(|request| request.user == user && request.at >= began).count();
    let taken = Taken { time, requests, unavailable };
    eprintln!("{who:?}, {}: {}", content.name, taken.words(1));
    clear(&client).await?;
    Ok(taken)
}

async fn by_kubectl(cluster: &RealCluster) -> Result<Duration> {
    let kubeconfig = cluster.control_plane().kubeconfig_of(KUBECTL)?;
    let arguments = ["drain", NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--force"];
    let drained = async {
        kubectl_within(LIMIT, &kubeconfig, &arguments).await?;
        Ok(Instant::now())
    };
    let client = cluster.client();
    let cordoned = until_node(&client, "to be cordoned", |node| node.cordoned);
    let (began, ended) = tokio::try_join!(cordoned, drained)?;
    cordon(&client, NODE, false).await?;
    Ok(ended.duration_since(began))
}

/// Forced, so that nothing depends on how the earlier cycles ended.
async fn by_operator(client: &Client) -> Result<Duration> {
    let nodes: Api<Node> = Api::all(client.clone());
    let force = Patch::Merge(json!({"metadata": {"annotations": {(format!("{PREFIX}reboot")): "now"}}}));
    within(LIMIT, "forcing a reboot", nodes.patch(NODE, &PatchParams::default(), &force)).await?;
    let began = until_node(client, "to be cordoned", |node| node.cordoned).await?;
    let rebooting = |node: &NodeSeen| phase_of(node).as_deref() == Some("rebooting");
    let ended = until_node(client, "to be drained", rebooting).await?;
    until_node(client, "to be given back", |node| !node.cordoned && phase_of(node).is_none()).await?;
    Ok(ended.duration_since(began))
}

async fn until_node(client: &Client, what: &str, holds: impl Fn(&NodeSeen) -> bool) -> Result<Instant> {
    let holds = |node: Option<&Node>| node.is_some_and(|node| holds(&NodeSeen::from(node)));
    until(LIMIT, format!("waiting for {NODE} {what}"), Api::all(client.clone()), NODE, holds).await?;
    Ok(Instant::now())
}

/// Deploys the pods where they belong, by leaving the scheduler no choice.
async fn place(cluster: &RealCluster, content: &Content) -> Result<()> {
    let (client, names) = (cluster.client(), cluster.names());
    let others = |cordoned| names.iter().filter(|name| *name != NODE).map(move |name| (name, cordoned));
    try_join_all(others(true).map(|(name, cordoned)| cordon(&client, name, cordoned))).await?;
    let workloads = content.workloads(content.here);
    try_join_all(workloads.iter().map(|workload| workload.deploy(&client))).await?;
    try_join_all(others(false).map(|(name, cordoned)| cordon(&client, name, cordoned))).await?;
    if content.elsewhere > 0 {
        cordon(&client, NODE, true).await?;
        let workloads = content.workloads(content.here + content.elsewhere);
        try_join_all(workloads.iter().map(|workload| workload.scale(&client))).await?;
        cordon(&client, NODE, false).await?;
    }
    Ok(())
}

/// Takes all pods and PDBs away.
async fn clear(client: &Client) -> Result<()> {
    let (parameters, all) = (DeleteParams::background(), ListParams::default());
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    within(LIMIT, "deleting the Deployments", deployments.delete_collection(&parameters, &all)).await?;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(client.clone());
    within(LIMIT, "deleting the PDBs", budgets.delete_collection(&parameters, &all)).await?;
    let (pods, changes) = pods(client);
    let mut gone = pin!(changes.try_filter(|()| ready(pods.state().is_empty())));
    within(LIMIT, "waiting for the pods to be gone", gone.try_next()).await.map(drop)
}

/// Runs what drains, and counts meanwhile how many of so many pods are not available, at most.
async fn counting_unavailable<T>(
    client: &Client,
    wanted: usize,
    drained: impl Future<Output = Result<T>>,
) -> Result<(T, usize)> {
    let (pods, changes) = pods(client);
    let mut most = 0;
    let watch = changes.try_for_each(|()| {
        let available = pods.state().iter().filter(|pod| PodSeen::from(&***pod).available).count();
        most = most.max(wanted.saturating_sub(available));
        ready(Ok(()))
    });
    let done = tokio::select! {
        done = drained => done?,
        ended = watch => bail!("the watch of the pods ended: {ended:?}"),
    };
    Ok((done, most))
}

/// The pods of the namespace `default`, and a stream that tells when they have changed.
fn pods(client: &Client) -> (Store<Pod>, impl Stream<Item = watcher::Result<()>>) {
    let (pods, writer) = reflector::store();
    let events = watcher(Api::<Pod>::default_namespaced(client.clone()), watcher::Config::default());
    let changes = events.default_backoff().reflect(writer).try_filter_map(|event| {
        let complete = matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_));
        ready(Ok(complete.then_some(())))
    });
    (pods, changes)
}

impl Content {
    fn pods(&self) -> usize {
        self.deployments * usize::try_from(self.here + self.elsewhere).unwrap_or_default()
    }

    fn workloads(&self, replicas: i32) -> Vec<Workload> {
        let workload = |number| Workload::new(&format!("web-{number}"), replicas);
        let all = (1..=self.deployments).map(workload);
        all.map(|workload| if self.budgets { workload } else { workload.without_pdb() }).collect()
    }
}
