//! The operator's processes: put together as their binaries do it, ended and crashed, and started again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use reboot_agent::machine::Machine as AgentsMachine;
use reboot_agent::run::GRACE;
use reboot_agent::update_engine::EngineState;
use reboot_runtime::clock::Clock;
use reboot_runtime::events::Events;
use reboot_runtime::probes::Probes;
use reboot_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::host::SimulatedHost;
use super::machine::Machine;
use super::process::{Ending, Process};
use super::world::World;

/// How long a pod takes to be started again, at most.
const RESTART: Duration = Duration::from_secs(20);

/// One replica of the controller.
#[derive(Default)]
pub struct Controller {
    /// How far its clock is off, in seconds.
    pub clock: AtomicI64,
    /// Its pod is deleted, so that it is asked to end.
    pub deleted: Notify,
}

/// The agent's pod on a machine that is up.
pub async fn agent(world: &Arc<World>, machine: &Arc<Machine>) {
    loop {
        sleep(world.random.time(RESTART)).await;
        let shutdown = Shutdown::new();
        let process = agents_process(world, machine, &shutdown);
        let asked = async {
            tokio::select! {
                biased;
                () = machine.agent_deleted.notified() => {}
                () = machine.going_down() => sleep(world.random.seconds(20)).await,
            }
        };
        world.tell(|| format!("the agent of {} starts", machine.name));
        let ending = run(world, process, &shutdown, asked).await;
        world.tell(|| format!("the agent of {} is no more: {ending}", machine.name));
        if machine.is_going_down() {
            // Nobody starts pods any more.
            return;
        }
    }
}

/// The pod of a replica of the controller.
pub async fn controller(world: Arc<World>, index: usize) {
    for incarnation in 0.. {
        let shutdown = Shutdown::new();
        let process = controllers_process(&world, index, incarnation, &shutdown);
        world.tell(|| format!("controller {index} starts"));
        let asked = world.controllers[index].deleted.notified();
        let ending = run(&world, process, &shutdown, asked).await;
        world.tell(|| format!("controller {index} is no more: {ending}"));
        sleep(world.random.time(RESTART)).await;
    }
}

/// Runs a process until it ends, or for a while longer than it is asked to.
async fn run(world: &World, process: Process, shutdown: &Shutdown, asked: impl Future<Output = ()>) -> String {
    let mut process = pin!(process);
    tokio::select! {
        biased;
        ending = &mut process => return told(world, ending),
        () = asked => {}
    }
    shutdown.request();
    timeout(GRACE, process).await.map_or_else(|_| "killed".to_owned(), |ending| told(world, ending))
}

fn told(world: &World, ending: Ending) -> String {
    match ending {
        Ending::Crashed => {
            world.happened("crash");
            "crashed".to_owned()
        }
        Ending::Ended(Ok(())) => "ended".to_owned(),
        Ending::Ended(Err(error)) => format!("failed: {error:#}"),
    }
}

fn agents_process(world: &Arc<World>, machine: &Arc<Machine>, shutdown: &Shutdown) -> Process {
    let name = &machine.name;
    let args = reboot_agent::args::Args { node_name: name.clone(), ..world.setup.agent.clone() };
    let heard = watch::Sender::new(EngineState::default());
    let host = Box::new(SimulatedHost::new(world, machine));
    let sees = AgentsMachine::new(host, Some(machine.version()), heard.clone());
    let (day, at) = (world.day(), machine.clone());
    let clock = Clock::with_wall(move || day.now(at.clock()));
    let client = world.client(&format!("agent:{name}"));
    let seed = world.random.next();
    let (events, write_events) = Events::new(client.clone(), "reboot-agent", name);
    let reconciler = reboot_agent::run::assemble(client, &args, sees, events, clock, seed, &mut Probes::default());
    let tasks = vec![reconciler.run(shutdown.clone()).boxed(), write_events.boxed()];
    let services = vec![hear(world.clone(), machine.clone(), heard).boxed()];
    Process::new(tasks, services, shutdown.clone(), world)
}

fn controllers_process(world: &Arc<World>, index: usize, incarnation: usize, shutdown: &Shutdown) -> Process {
    let mut args = world.setup.controller.clone();
    // It runs on one of the nodes, whichever that is.
    args.node_name = Some(world.random.pick(&world.machines).name.clone());
    let (day, of) = (world.day(), world.clone());
    let clock = Clock::with_wall(move || day.now(of.controllers[index].clock.load(Ordering::Relaxed)));
    let client = world.client(&format!("controller:{index}"));
    let identity = format!("controller-{index}-{incarnation}");
    let parts = reboot_controller::run::assemble(client, &args, identity, clock, shutdown, &mut Probes::default());
    let tasks = vec![parts.reconcile, parts.election, parts.events];
    Process::new(tasks, vec![parts.nodes], shutdown.clone(), world)
}

/// Follows update_engine's signals, as the agent does over the bus.
async fn hear(world: Arc<World>, machine: Arc<Machine>, heard: watch::Sender<EngineState>) -> Result<()> {
    let mut signals = machine.engine_signals();
    loop {
        sleep(world.random.time(Duration::from_secs(2))).await;
        let away = world.fault("update_engine not heard", |faults| faults.host);
        let said = signals.borrow_and_update().clone();
        let state = if away { EngineState::Unknown("on purpose".to_owned()) } else { said };
        heard.send_if_modified(|heard| std::mem::replace(heard, state.clone()) != state);
        if away {
            sleep(world.random.seconds(30)).await;
        } else {
            signals.changed().await?;
        }
    }
}
