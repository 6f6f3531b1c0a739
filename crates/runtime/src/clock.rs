//! The two times that a process lives by. Whoever decides takes them as arguments; this is where they come from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

/// The time since this clock was made, which never steps, and the time of day, which may.
#[derive(Clone)]
pub struct Clock {
    start: Instant,
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Clock {
    /// The clocks of the machine.
    pub fn system() -> Self {
        Self::with_wall(Timestamp::now)
    }

    /// The time of day by this function, for a machine that is simulated. The other time is tokio's, which a test can
    /// pause.
    pub fn with_wall(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { start: Instant::now(), wall: Arc::new(wall) }
    }

    /// Time since the clock was made.
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    /// The time of day.
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// Waits until [`Clock::mono`] is this; for ever where the clock does not reach that far.
    pub async fn reaches(&self, mono: Duration) {
        match self.start.checked_add(mono) {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for so long; for ever where there is no such time.
pub async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => sleep(delay).await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?}, {})", self.mono(), self.wall())
    }
}
