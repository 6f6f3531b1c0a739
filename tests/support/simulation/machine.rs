//! A machine: it boots, its kubelet speaks up, the agent's pod is started again and again, and it goes down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reboot_agent::update_engine::{EngineState, Operation};
use reboot_core::drain::PodView;
use reboot_core::ids::BootId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::world::World;
use crate::bus::FakeEngine;

/// A machine that is also a node.
pub struct Machine {
    /// The name of both.
    pub name: String,
    index: usize,
    state: Mutex<State>,
    power: watch::Sender<Power>,
    /// update_engine's signal. A silent change does not wake whoever listens.
    engine: watch::Sender<EngineState>,
    /// Somebody sees to it that kubelet stops for a while, or registers its Node anew.
    pub kubelet_disturbed: Notify,
    /// The agent's pod is deleted, so that it is asked to end.
    pub agent_deleted: Notify,
}

struct State {
    boots: u64,
    booted_at: Instant,
    version: u64,
    /// How far the clock of this machine is off, in seconds.
    clock: i64,
    /// What was on the node when its agent last listed the pods.
    listed: Vec<PodView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// logind has begun to shut down.
    GoingDown,
    Off,
    /// Off, and it stays so until somebody comes.
    Dead,
}

impl Machine {
    /// A machine that runs its first boot since long ago.
    pub fn new(index: usize) -> Self {
        let state = State { boots: 1, booted_at: Instant::now(), version: 1, clock: 0, listed: Vec::new() };
        Self {
            name: format!("n{index}"),
            index,
            state: Mutex::new(state),
            power: watch::Sender::new(Power::On),
            engine: watch::Sender::new(status(FakeEngine::IDLE, "")),
            kubelet_disturbed: Notify::new(),
            agent_deleted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running boot, or the last one.
    pub fn boot(&self) -> BootId {
        let text = format!("{:08x}-0000-0000-0000-{:012x}", self.index + 1, self.state().boots);
        text.parse().expect("a boot ID")
    }

    /// Time since the boot. The first one was an hour before the simulation.
    pub fn uptime(&self) -> Duration {
        let state = self.state();
        let before = if state.boots == 1 { Duration::from_hours(1) } else { Duration::ZERO };
        before + state.booted_at.elapsed()
    }

    /// For how long it has been up in the simulation.
    pub fn up_for(&self) -> Duration {
        self.state().booted_at.elapsed()
    }

    /// The version of the operating system that runs.
    pub fn version(&self) -> String {
        self.state().version.to_string()
    }

    /// What its update_engine would answer.
    pub fn engine(&self) -> EngineState {
        self.engine.borrow().clone()
    }

    /// What its update_engine broadcasts.
    pub fn engine_signals(&self) -> watch::Receiver<EngineState> {
        self.engine.subscribe()
    }

    /// update_engine has installed an update, or has thought better of it (which it does without a signal).
    pub fn set_engine(&self, needs_reboot: bool) {
        let state = if needs_reboot { status(FakeEngine::NEED_REBOOT, "2") } else { status(FakeEngine::IDLE, "") };
        self.engine.send_if_modified(|engine| {
            *engine = state;
            needs_reboot
        });
    }

    /// The seconds by which its clock is off.
    pub fn clock(&self) -> i64 {
        self.state().clock
    }

    /// Sets its clock.
    pub fn step_clock(&self, seconds: i64) {
        self.state().clock += seconds;
    }

    /// Notes what the agent was shown when it listed the pods.
    pub fn pods_listed(&self, pods: Vec<PodView>) {
        self.state().listed = pods;
    }

    /// What the agent was shown when it last listed the pods.
    pub fn listed(&self) -> Vec<PodView> {
        self.state().listed.clone()
    }

    /// Whether logind has begun to shut down.
    pub fn is_going_down(&self) -> bool {
        *self.power.borrow() == Power::GoingDown
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        matches!(*self.power.borrow(), Power::On | Power::GoingDown)
    }

    /// logind begins to shut down.
    pub fn shut_down(&self) {
        self.turn(&[Power::On], Power::GoingDown);
    }

    /// The power fails; `for_good`: until somebody comes.
    pub fn power_fails(&self, for_good: bool) {
        self.turn(&[Power::On, Power::GoingDown], if for_good { Power::Dead } else { Power::Off });
    }

    /// Somebody comes to a machine that is dead.
    pub fn repair(&self) {
        self.turn(&[Power::Dead], Power::Off);
    }

    fn turn(&self, from: &[Power], to: Power) {
        self.power.send_if_modified(|power| {
            let turns = from.contains(power);
            if turns {
                *power = to;
            }
            turns
        });
    }

    async fn until(&self, states: &[Power]) {
        // The error means that the sender is gone, and `self` holds it.
        let _ = self.power.subscribe().wait_for(|power| states.contains(power)).await;
    }

    /// Waits until logind has begun to shut down.
    pub async fn going_down(&self) {
        self.until(&[Power::GoingDown]).await;
    }
}

fn status(word: &str, new_version: &str) -> EngineState {
    EngineState::Status { operation: Operation::from(word), new_version: new_version.to_owned() }
}

/// The life of a machine, boot after boot.
pub async fn live(world: Arc<World>, machine: Arc<Machine>) {
    loop {
        let running = async {
            tokio::join!(kubelet(&world, &machine), super::operator::agent(&world, &machine));
        };
        tokio::select! {
            biased;
            () = ends(&world, &machine) => {}
            () = running => {}
        }
        world.tell(|| format!("{} is off", machine.name));
        lie_low(&world, &machine).await;
        boot(&world, &machine);
    }
}

/// Waits until the power is off, which logind sees to after a while.
async fn ends(world: &World, machine: &Machine) {
    machine.until(&[Power::GoingDown, Power::Off, Power::Dead]).await;
    if machine.is_going_down() {
        let late = timeout(world.random.seconds(90), machine.until(&[Power::Off, Power::Dead])).await;
        if late.is_err() {
            machine.turn(&[Power::GoingDown], Power::Off);
        }
    }
}

/// The time without power. After a while the control plane notices.
async fn lie_low(world: &World, machine: &Machine) {
    let (unnoticed, off) = (world.random.seconds(60), world.random.seconds(120));
    let power_returns = async {
        sleep(off).await;
        machine.until(&[Power::Off]).await;
    };
    let noticed = async {
        sleep(unnoticed).await;
        world.set_ready(machine, None, false);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = power_returns => {}
        () = noticed => {}
    }
}

fn boot(world: &World, machine: &Machine) {
    let installed = machine.engine().needs_reboot();
    let takes = !world.fault("update that does not take", |faults| faults.host);
    {
        let mut state = machine.state();
        state.boots += 1;
        state.booted_at = Instant::now();
        state.version += u64::from(installed && takes);
        state.listed.clear();
    }
    machine.engine.send_replace(status(FakeEngine::IDLE, ""));
    machine.turn(&[Power::Off], Power::On);
    world.booted(machine);
}

/// kubelet, which tells the boot and whether the node is Ready.
async fn kubelet(world: &World, machine: &Machine) {
    sleep(world.random.time(Duration::from_mins(1))).await;
    loop {
        let boot = machine.boot();
        if world.random.once_in(2) {
            world.set_ready(machine, Some(boot), false);
            sleep(world.random.seconds(20)).await;
        }
        world.set_ready(machine, Some(boot), true);
        machine.kubelet_disturbed.notified().await;
        if world.random.once_in(2) {
            world.set_ready(machine, None, false);
            sleep(world.random.seconds(300)).await;
        }
    }
}

impl World {
    /// kubelet or the control plane says how the node is; kubelet also registers a Node that is not there.
    fn set_ready(&self, machine: &Machine, boot: Option<BootId>, ready: bool) {
        self.report(machine, boot, ready);
    }
}
