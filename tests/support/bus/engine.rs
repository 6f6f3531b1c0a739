//! A fake `update_engine`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::Serialize;
use zbus::{DynamicType, Message};

use super::Bus;
use super::service::{Behaviour, Reply, Service, member};

const NAME: &str = "com.coreos.update1";
const PATH: &str = "/com/coreos/update1";
const INTERFACE: &str = "com.coreos.update1.Manager";

/// Owns `com.coreos.update1`, and says of updates what it is told to say.
#[derive(Debug)]
pub struct FakeEngine {
    service: Service,
    status: Arc<Status>,
}

/// How the fake answers a question for its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Sense,
    /// With an answer of another type.
    Nonsense,
    /// Not at all.
    Silence,
}

#[derive(Debug)]
struct Status(Mutex<State>);

#[derive(Debug)]
struct State {
    operation: String,
    new_version: String,
    manner: Manner,
}

impl FakeEngine {
    /// The operation of an engine that has nothing to do.
    pub const IDLE: &str = "UPDATE_STATUS_IDLE";
    /// The operation of an engine that waits for a reboot.
    pub const NEED_REBOOT: &str = "UPDATE_STATUS_UPDATED_NEED_REBOOT";

    /// An idle engine on `bus`, already running.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another engine.
    pub async fn start(bus: &Bus) -> Result<Self> {
        let engine = Self::at(bus.address());
        engine.resume().await?;
        Ok(engine)
    }

    /// An idle engine for the bus at this address, not yet running: `resume` starts it.
    pub fn at(address: String) -> Self {
        let state = State { operation: Self::IDLE.to_owned(), new_version: String::new(), manner: Manner::Sense };
        let status = Arc::new(Status(Mutex::new(state)));
        Self { service: Service::new(address, NAME, status.clone()), status }
    }

    /// Changes the status and announces it, as the real one does.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn set(&self, operation: &str, new_version: &str) -> Result<()> {
        self.set_silently(operation, new_version);
        self.announce().await
    }

    /// Changes the status without a word.
    pub fn set_silently(&self, operation: &str, new_version: &str) {
        self.status.lock().set(operation, new_version);
    }

    /// Sets how it answers from now on. Its signals go on as before.
    pub fn answer(&self, manner: Manner) {
        self.status.lock().manner = manner;
    }

    /// Forgets the update, as the method `ResetStatus` makes it: silently.
    pub fn reset(&self) {
        self.set_silently(Self::IDLE, "");
    }

    /// Broadcasts the status as it is.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn announce(&self) -> Result<()> {
        let body = self.status.lock().body();
        self.broadcast(&body).await
    }

    /// Broadcasts a status signal with any content.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn broadcast<B: Serialize + DynamicType>(&self, body: &B) -> Result<()> {
        self.service.emit(PATH, INTERFACE, "StatusUpdate", body).await
    }

    /// Gives up the name, as a service that was stopped or has crashed.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// Runs again, with the status that it had; also over a bus that was restarted. Announces itself, as the real one.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another engine.
    pub async fn resume(&self) -> Result<()> {
        self.service.start().await?;
        self.announce().await
    }
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, operation: &str, new_version: &str) {
        operation.clone_into(&mut self.operation);
        new_version.clone_into(&mut self.new_version);
    }

    /// Time of the last check, progress, operation, new version, and its size.
    fn body(&self) -> (i64, f64, String, String, i64) {
        (0, 0.0, self.operation.clone(), self.new_version.clone(), 0)
    }
}

impl Behaviour for Status {
    fn answer(&self, call: &Message) -> Reply {
        let mut state = self.lock();
        match (member(call).as_str(), state.manner) {
            ("GetStatus", Manner::Sense) => Reply::value(call, &state.body()),
            ("GetStatus", Manner::Nonsense) => Reply::value(call, &("what", 7_u32)),
            ("GetStatus", Manner::Silence) => Reply::Silence,
            ("ResetStatus", _) => {
                state.set(FakeEngine::IDLE, "");
                Reply::value(call, &())
            }
            _ => Reply::unknown_method(call),
        }
    }
}
