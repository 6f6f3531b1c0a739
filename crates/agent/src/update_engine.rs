//! What the node's `update_engine` says: does an installed update wait for a reboot?
//!
//! `update_engine` broadcasts its status whenever it changes, with one exception: `ResetStatus`, which takes "needs a
//! reboot" back, is silent. So the signals are followed at all times, and before a reboot the service is asked again.

use std::convert::Infallible;
use std::pin::pin;

use anyhow::{Context as _, Result};
use futures::future::{FusedFuture as _, FutureExt as _};
use futures::stream::StreamExt as _;
use reboot_core::backoff;
use reboot_core::values::printable;
use tokio::sync::watch;
use tokio::time::Instant;
use zbus::{Message, Proxy};

use crate::bus::{self, Bus};

const SERVICE: &str = "com.coreos.update1";
const PATH: &str = "/com/coreos/update1";
const INTERFACE: &str = "com.coreos.update1.Manager";

/// What is known of the node's `update_engine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Nothing, and why: not asked yet, the bus cannot be reached, no permission, no sense in the answer.
    Unknown(String),
    /// It does not run: stopped, masked, or not installed.
    Absent,
    /// Its status, by its own word.
    Status {
        /// What it is doing.
        operation: Operation,
        /// The version that it has installed or is installing, `0.0.0` where it has forgotten which, else empty.
        new_version: String,
    },
}

impl EngineState {
    /// Whether an update is installed and takes effect with the next boot.
    pub fn needs_reboot(&self) -> bool {
        matches!(self, Self::Status { operation: Operation::UpdatedNeedReboot, .. })
    }

    /// Reads the status, which the signal and the reply carry alike:
    /// the time of the last check, progress, operation, new version, and its size.
    ///
    /// # Errors
    /// A message of another shape.
    pub fn read(message: &Message) -> zbus::Result<Self> {
        let (_, _, operation, new_version, _): (i64, f64, String, String, i64) = message.body().deserialize()?;
        Ok(Self::Status { operation: operation.as_str().into(), new_version: printable(&new_version) })
    }
}

impl Default for EngineState {
    fn default() -> Self {
        Self::Unknown("not asked yet".to_owned())
    }
}

/// What `update_engine` is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An update is installed and waits for a reboot.
    UpdatedNeedReboot,
    /// Anything else, in its own word, such as `UPDATE_STATUS_IDLE`.
    Other(String),
}

/// The word for [`Operation::UpdatedNeedReboot`] in `update_engine`'s `UpdateStatusToString`.
const UPDATED_NEED_REBOOT: &str = "UPDATE_STATUS_UPDATED_NEED_REBOOT";

impl From<&str> for Operation {
    fn from(word: &str) -> Self {
        if word == UPDATED_NEED_REBOOT { Self::UpdatedNeedReboot } else { Self::Other(printable(word)) }
    }
}

/// The `update_engine` of a node.
#[derive(Clone, Debug)]
pub struct UpdateEngine {
    bus: Bus,
}

impl UpdateEngine {
    /// The one on `bus`.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Asks for the status as of now, over a connection of its own. An answer that does not come is `Unknown`.
    pub async fn ask(&self) -> EngineState {
        let answer = async { self.status(&self.connect().await?).await };
        answer.await.unwrap_or_else(|error| EngineState::Unknown(printable(&format!("{error:#}"))))
    }

    /// Asks as [`UpdateEngine::ask`], and shows the answer in `state` as well: what has changed silently would otherwise
    /// stand there until the next signal, and be acted on again and again.
    pub async fn ask_into(&self, state: &watch::Sender<EngineState>) -> EngineState {
        let before = state.borrow().clone();
        let answer = self.ask().await;
        // What was heard meanwhile is newer than the answer may be.
        if !matches!(answer, EngineState::Unknown(_)) && *state.borrow() == before {
            publish(state, answer.clone());
        }
        answer
    }

    /// Keeps `state` up to date for as long as it is polled. Receivers are woken by changes only.
    ///
    /// Whatever goes wrong (the bus dies, the service hangs, a message makes no sense) is shown as
    /// [`EngineState::Unknown`] and mended in one way: connect anew after a while, and ask.
    pub async fn watch(&self, state: &watch::Sender<EngineState>) -> Infallible {
        let mut failures = 0_u32;
        loop {
            let started = Instant::now();
            let error = match self.follow(state).await {
                Ok(never) => match never {},
                Err(error) => printable(&format!("{error:#}")),
            };
            if started.elapsed() > backoff::LATE {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            let wait = backoff::after_failures(failures);
            tracing::warn!(error, retry_in = ?wait, "update_engine's status is unknown");
            publish(state, EngineState::Unknown(error));
            tokio::time::sleep(wait).await;
        }
    }

    /// Follows one connection until it fails.
    ///
    /// Every stream is polled at all times, also while an answer is awaited: a full queue would stall the connection.
    async fn follow(&self, state: &watch::Sender<EngineState>) -> Result<Infallible> {
        let engine = self.connect().await?;
        // These come before the first question, so that no change falls between its answer and the first signal.
        // The library lets through only what the owner of the service's name has sent.
        let signals = self.bus.within(engine.receive_signal("StatusUpdate")).await;
        let mut signals = signals.context("subscribing to update_engine's status")?;
        let owners = self.bus.within(engine.receive_owner_changed()).await;
        let mut owners = owners.context("subscribing to the owner of update_engine's name")?;
        let mut answer = pin!(self.status(&engine).fuse());
        loop {
            tokio::select! {
                // In this order an answer is never older than a signal that was taken before it.
                biased;
                signal = signals.next() => {
                    let signal = signal.context("the connection to the bus is closed")?;
                    publish(state, EngineState::read(&signal).context("reading update_engine's signal")?);
                    if !answer.is_terminated() {
                        // The answer on its way may be older than the signal.
                        answer.set(self.status(&engine).fuse());
                    }
                }
                owner = owners.next() => {
                    owner.context("the connection to the bus is closed")?;
                    answer.set(self.status(&engine).fuse());
                }
                status = &mut answer => publish(state, status?),
            }
        }
    }

    async fn connect(&self) -> Result<Proxy<'static>> {
        let connection = self.bus.connect().await.context("connecting to the bus")?;
        bus::object(&connection, SERVICE, PATH, INTERFACE).await.context("addressing update_engine")
    }

    async fn status(&self, engine: &Proxy<'_>) -> Result<EngineState> {
        match self.bus.within(engine.call_method("GetStatus", &())).await {
            Ok(reply) => EngineState::read(&reply).context("reading update_engine's status"),
            Err(error) if bus::nobody_there(&error) => Ok(EngineState::Absent),
            Err(error) => Err(error).context("asking update_engine for its status"),
        }
    }
}

fn publish(state: &watch::Sender<EngineState>, new: EngineState) {
    state.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            tracing::debug!(state = ?new, "update_engine");
            *old = new;
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_alone_means_that_an_update_waits_for_a_reboot() {
        assert_eq!(Operation::from("UPDATE_STATUS_UPDATED_NEED_REBOOT"), Operation::UpdatedNeedReboot);
        for word in ["", "unknown status", "UPDATE_STATUS_UPDATED_NEED_REBOOT ", "update_status_updated_need_reboot"] {
            assert_eq!(Operation::from(word), Operation::Other(word.to_owned()));
        }
    }
}
