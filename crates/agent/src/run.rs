//! The wiring of the process: nothing is decided here.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use reboot_core::step::NoteReason;
use reboot_runtime::clock::Clock;
use reboot_runtime::events::{EventNote, Events, node_reference};
use reboot_runtime::probes::{Listener, Probes};
use reboot_runtime::shutdown::{Shutdown, Signals};
use reboot_runtime::supervise::Tasks;
use reboot_runtime::{client, log};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::args::Args;
use crate::bus::Bus;
use crate::host;
use crate::logind::{CanReboot, Logind};
use crate::machine::{Machine, RealHost};
use crate::metrics::Metrics;
use crate::own_node::OwnNode;
use crate::pods::Pods;
use crate::reconcile::Reconciler;
use crate::update_engine::{EngineState, UpdateEngine};

/// How long the process has to end once it is asked to: the evictions under way, and the Events. The pod has 15 s.
pub const GRACE: Duration = Duration::from_secs(10);

/// Runs the agent until a signal or the first error ends it.
pub async fn run(args: Args) -> Result<()> {
    log::init(&args.log)?;
    let mut signals = Signals::listen()?;
    info!(?args, "reboot-agent {}", env!("CARGO_PKG_VERSION"));
    let user_agent = concat!("reboot-agent/", env!("CARGO_PKG_VERSION"));
    let client = client::connect(&args.client, user_agent).await?;
    let listener = Listener::bind(args.probes.listen).await?;

    let shutdown = Shutdown::new();
    let mut tasks = Tasks::new(shutdown.clone(), GRACE);
    let mut probes = Probes::default();
    let (events, write_events) = Events::new(client.clone(), "reboot-agent", &args.node_name);

    let bus = Bus::new(args.bus_address.clone());
    let engine = UpdateEngine::new(bus.clone());
    let heard = watch::Sender::new(EngineState::default());
    let logind = Logind::new(bus);
    let host = RealHost { boot_id_file: args.boot_id_file.clone(), engine: engine.clone(), logind: logind.clone() };
    let mut machine = Machine::new(Box::new(host), host::os_version(&args.os_release_file), heard.clone());
    let other_manager = tokio::select! {
        biased;
        // A bus that does not answer holds the test up for longer than a pod has to end.
        signal = signals.next() => {
            info!(signal, "ending");
            return Ok(());
        }
        other = self_test(&logind, &events, &args.node_name) => other,
    };
    machine.set_other_manager(other_manager);

    // Its keys come from the operating system's random numbers, anew in every process.
    let seed = RandomState::new().build_hasher().finish();
    let reconciler = assemble(client, &args, machine, events, Clock::system(), seed, &mut probes);
    tasks.spawn_service("probes", listener.serve(probes, shutdown.clone()));
    tasks.spawn_service("update_engine", async move { match engine.watch(&heard).await {} });
    tasks.spawn("events", write_events);
    tasks.spawn("reconcile", reconciler.run(shutdown));
    tasks.run(signals).await.context("running the agent")
}

/// Puts the loop together: all of the agent but what belongs to its process.
pub fn assemble(
    client: Client,
    args: &Args,
    machine: Machine,
    events: Events,
    clock: Clock,
    seed: u64,
    probes: &mut Probes,
) -> Reconciler {
    Reconciler {
        node: OwnNode::new(client.clone(), &args.node_name),
        pods: Pods::new(client, &args.node_name),
        machine,
        policy: args.policy(),
        clock,
        seed,
        events,
        metrics: Metrics::register(&mut probes.registry),
        liveness: probes.liveness.clone(),
        ready: probes.readiness.handle("the agent's Node"),
    }
}

/// Finds out at the start what would otherwise be found out after a drain. Returns another active reboot manager.
async fn self_test(logind: &Logind, events: &Events, node: &str) -> Option<String> {
    let warn_people = |reason: NoteReason, note: String| {
        warn!(reason = reason.code(), "{note}");
        // The UID is not known yet. kubelet's own Events name a Node by its name in place of the UID, and `kubectl
        // describe node` looks for these as well.
        let object = node_reference(node, node);
        events.publish(EventNote { object, warning: true, reason: reason.code(), action: "SelfTest", note });
    };
    match logind.can_reboot().await {
        Ok(CanReboot::Yes) => info!("logind would reboot this machine for us"),
        Ok(CanReboot::Inhibited(word)) => warn!("logind would not reboot this machine at present: {word}"),
        Ok(CanReboot::No(word)) => {
            warn_people(NoteReason::CannotReboot, format!("logind says {word:?} to a reboot by the agent"));
        }
        Err(error) => warn_people(NoteReason::CannotReboot, format!("logind cannot be asked: {error:#}")),
    }
    let other = logind.active_reboot_manager().await;
    if let Some(other) = &other {
        warn_people(
            NoteReason::OtherRebootManager,
            format!("{other} is active and reboots this node by its own rules; switch it off"),
        );
    }
    other
}
