//! The end of the process: asked for by a signal or by a task that failed, and awaited by everyone.

use anyhow::{Context as _, Result};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Whether the process is asked to end. All clones share one state, which changes once.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Sender<bool>,
}

impl Shutdown {
    /// A process that nobody has asked to end.
    pub fn new() -> Self {
        Self { requested: watch::Sender::new(false) }
    }

    /// Asks the process to end.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether the process has been asked to end.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Waits until the process is asked to end.
    pub async fn requested(&self) {
        // The error means that the sender is gone, and `self` holds one.
        let _ = self.requested.subscribe().wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// SIGTERM and SIGINT, from the moment of [`Signals::listen`] on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals from their default action; call it before anything that needs an orderly end.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and names it. Safe to drop and call again: no signal is lost.
    pub async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_request_reaches_every_clone_early_and_late() {
        let (shutdown, other) = (Shutdown::new(), Shutdown::new());
        let clone = shutdown.clone();
        assert!(clone.requested().now_or_never().is_none());
        shutdown.request();
        clone.requested().await;
        shutdown.clone().requested().await;
        assert!(clone.is_requested());
        assert!(!other.is_requested());
    }
}
