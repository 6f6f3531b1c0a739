//! What the agent finds on a simulated machine: files, update_engine, logind.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use reboot_agent::logind::RebootReply;
use reboot_agent::machine::{Asked, Host};
use reboot_agent::update_engine::EngineState;
use reboot_core::ids::BootId;
use tokio::sync::watch;
use tokio::time::sleep;

use super::machine::Machine;
use super::world::World;

/// How long a service on the bus takes to answer, at most.
const ANSWER: Duration = Duration::from_millis(300);

/// The host of one boot of a machine.
pub struct SimulatedHost {
    world: Weak<World>,
    machine: Arc<Machine>,
    boot: BootId,
}

impl SimulatedHost {
    /// The host as it is under the running boot.
    pub fn new(world: &Arc<World>, machine: &Arc<Machine>) -> Self {
        Self { world: Arc::downgrade(world), machine: machine.clone(), boot: machine.boot() }
    }

    fn world(&self) -> Result<Arc<World>> {
        match self.world.upgrade() {
            Some(world) => Ok(world),
            None => bail!("the simulation is over"),
        }
    }
}

impl Host for SimulatedHost {
    fn boot_id(&self) -> Result<String> {
        if self.world()?.fault("boot ID not readable", |faults| faults.host) {
            bail!("on purpose");
        }
        Ok(self.boot.to_string())
    }

    fn uptime(&self) -> Result<Duration> {
        Ok(self.machine.uptime())
    }

    fn ask<'a>(&'a self, heard: &'a watch::Sender<EngineState>) -> BoxFuture<'a, Asked> {
        Box::pin(async {
            let Ok(world) = self.world() else { return (EngineState::default(), None) };
            sleep(world.random.time(ANSWER)).await;
            if world.fault("no answer on the bus", |faults| faults.host) {
                return (EngineState::Unknown("on purpose".to_owned()), None);
            }
            let engine = self.machine.engine();
            heard.send_if_modified(|heard| std::mem::replace(heard, engine.clone()) != engine);
            (engine, Some(self.machine.is_going_down()))
        })
    }

    fn reboot(&self) -> BoxFuture<'_, RebootReply> {
        Box::pin(async {
            let Ok(world) = self.world() else { return RebootReply::Unreachable("the simulation is over".to_owned()) };
            sleep(world.random.time(ANSWER)).await;
            if world.fault("logind not reached", |faults| faults.host) {
                return RebootReply::Unreachable("on purpose".to_owned());
            }
            world.logind_called(&self.machine);
            if world.fault("reboot refused", |faults| faults.host) {
                return RebootReply::Refused { name: "on.purpose".to_owned(), message: "a lock".to_owned() };
            }
            if world.fault("reboot that does not come", |faults| faults.host) {
                return RebootReply::Lost("on purpose".to_owned());
            }
            let reply = if self.machine.is_going_down() { RebootReply::InProgress } else { RebootReply::Accepted };
            self.machine.shut_down();
            sleep(world.random.time(ANSWER)).await;
            if world.fault("answer of logind lost", |faults| faults.host) {
                return RebootReply::Lost("on purpose".to_owned());
            }
            reply
        })
    }
}
