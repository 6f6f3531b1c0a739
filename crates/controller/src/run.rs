//! The wiring of the process: nothing is decided here.

use std::fs;

use anyhow::{Context as _, Result};
use reboot_core::lease::Terms;
use reboot_runtime::events::Events;
use reboot_runtime::probes::{Listener, Probes};
use reboot_runtime::shutdown::{Shutdown, Signals};
use reboot_runtime::supervise::Tasks;
use reboot_runtime::{client, log};
use tokio::sync::oneshot;
use tracing::info;

use crate::apply::Executor;
use crate::args::Args;
use crate::elect::Candidate;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::reconcile::Reconciler;
use crate::slots::Slots;
use crate::tell::Teller;

/// Runs the controller until a signal or the first error ends it.
pub async fn run(args: Args) -> Result<()> {
    log::init(&args.log)?;
    let signals = Signals::listen()?;
    info!(?args, "reboot-controller {}", env!("CARGO_PKG_VERSION"));
    let user_agent = concat!("reboot-controller/", env!("CARGO_PKG_VERSION"));
    let client = client::connect(&args.client, user_agent).await?;
    let listener = Listener::bind(args.probes.listen).await?;

    let shutdown = Shutdown::new();
    let mut tasks = Tasks::new(shutdown.clone());
    let mut probes = Probes::default();
    let identity = identity()?;
    let (events, write_events) = Events::new(client.clone(), "reboot-controller", &identity);
    let (candidate, leadership) = Candidate::new(client.clone(), &args.namespace, &identity, Terms::STANDARD);
    let (nodes, watch_nodes) = Nodes::new(client.clone(), probes.readiness.handle("the list of Nodes"));
    let (stopped, work_has_stopped) = oneshot::channel();

    let reconciler = Reconciler {
        executor: Executor {
            nodes,
            slots: Slots::new(client, &args.namespace),
            policy: args.policy(),
            teller: Teller::new(events),
            identity,
            fences: 0,
        },
        home: args.node_name.clone(),
        leadership,
        metrics: Metrics::register(&mut probes.registry),
        liveness: probes.liveness.clone(),
        stopped,
    };
    tasks.spawn_service("probes", listener.serve(probes, shutdown.clone()));
    tasks.spawn_service("nodes", watch_nodes);
    tasks.spawn("events", write_events);
    tasks.spawn("election", candidate.run(shutdown.clone(), work_has_stopped));
    tasks.spawn("reconcile", reconciler.run(shutdown));
    tasks.run(signals).await.context("running the controller")
}

/// A name that no other process has: the pod's, which is its host name, and something random.
fn identity() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let (host, uuid) = (read("/proc/sys/kernel/hostname")?, read("/proc/sys/kernel/random/uuid")?);
    Ok(format!("{}_{}", host.trim(), uuid.trim().get(..8).unwrap_or(uuid.trim())))
}
