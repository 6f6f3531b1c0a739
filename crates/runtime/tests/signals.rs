//! What signals do to a process; alone in its test binary, because a signal reaches every test of a process.
#![allow(clippy::unwrap_used)]

use std::{
    future::pending,
    process::{self, Command},
    time::Duration,
};

use reboot_runtime::{
    shutdown::{Shutdown, Signals},
    supervise::Tasks,
};
use tokio::join;

fn send(signal: &str) {
    let sent = Command::new("kill").args([signal, &process::id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn the_first_signal_asks_and_the_second_one_ends_at_once_with_an_error() {
    let shutdown = Shutdown::new();
    let signals = Signals::listen().unwrap();
    let mut tasks = Tasks::new(shutdown.clone(), Duration::from_secs(10));
    tasks.spawn("stubborn", pending());
    send("-TERM");
    let (outcome, ()) = join!(tasks.run(signals), async {
        shutdown.requested().await;
        send("-INT");
    });
    assert_eq!(outcome.unwrap_err().to_string(), "ended at once by a second signal, SIGINT");
}
