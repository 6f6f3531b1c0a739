//! The wiring of the process: nothing is decided here.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use reboot_core::lease::Terms;
use reboot_runtime::clock::Clock;
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

/// How long the process has to end once it is asked to: two calls to a slow API server, and the Lease's release after
/// them. What takes longer is cut off, and settled by the next leader. The pod has 30 s.
pub const GRACE: Duration = Duration::from_secs(25);

/// Runs the controller until a signal or the first error ends it.
pub async fn run(args: Args) -> Result<()> {
    log::init(&args.log)?;
    let signals = Signals::listen()?;
    info!(?args, "reboot-controller {}", env!("CARGO_PKG_VERSION"));
    let user_agent = concat!("reboot-controller/", env!("CARGO_PKG_VERSION"));
    let client = client::connect(&args.client, user_agent).await?;
    let listener = Listener::bind(args.probes.listen).await?;

    let shutdown = Shutdown::new();
    let mut tasks = Tasks::new(shutdown.clone(), GRACE);
    let mut probes = Probes::default();
    let parts = assemble(client, &args, identity()?, Clock::system(), &shutdown, &mut probes);
    tasks.spawn_service("probes", listener.serve(probes, shutdown));
    tasks.spawn_service("nodes", parts.nodes);
    tasks.spawn("events", parts.events);
    tasks.spawn("election", parts.election);
    tasks.spawn("reconcile", parts.reconcile);
    tasks.run(signals).await.context("running the controller")
}

/// The tasks of a controller but for what belongs to its process.
pub struct Parts {
    /// Keeps the Nodes up to date.
    pub nodes: BoxFuture<'static, Result<()>>,
    /// Writes Events; ends after `reconcile`.
    pub events: BoxFuture<'static, Result<()>>,
    /// Takes part in the election until the process is to end and `reconcile` has ended.
    pub election: BoxFuture<'static, Result<()>>,
    /// The loop.
    pub reconcile: BoxFuture<'static, Result<()>>,
}

/// Puts a controller together. `identity` must be unique to the process.
pub fn assemble(
    client: Client,
    args: &Args,
    identity: String,
    clock: Clock,
    shutdown: &Shutdown,
    probes: &mut Probes,
) -> Parts {
    let (events, write_events) = Events::new(client.clone(), "reboot-controller", &identity);
    let (candidate, leadership) =
        Candidate::new(client.clone(), &args.namespace, &identity, Terms::STANDARD, clock.clone());
    let (nodes, watch_nodes) = Nodes::new(client.clone(), probes.readiness.handle("the list of Nodes"));
    let (stopped, work_has_stopped) = oneshot::channel();

    let reconciler = Reconciler {
        executor: Executor {
            nodes,
            slots: Slots::new(client, &args.namespace),
            policy: args.policy(),
            teller: Teller::new(events),
            metrics: Metrics::register(&mut probes.registry),
            identity,
            fences: 0,
            liveness: probes.liveness.clone(),
            rebuild: None,
            withdrawn: Vec::new(),
        },
        clock,
        home: args.node_name.clone(),
        leadership,
        _stopped: stopped,
    };
    Parts {
        nodes: watch_nodes.boxed(),
        events: write_events.boxed(),
        election: candidate.run(shutdown.clone(), work_has_stopped).boxed(),
        reconcile: reconciler.run(shutdown.clone()).boxed(),
    }
}

/// A name that no other process has: the pod's, which is its host name, and something random.
fn identity() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let (host, uuid) = (read("/proc/sys/kernel/hostname")?, read("/proc/sys/kernel/random/uuid")?);
    Ok(format!("{}_{}", host.trim(), uuid.trim().get(..8).unwrap_or(uuid.trim())))
}
