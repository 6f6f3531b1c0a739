//! What the agent knows of its host, over a real dbus-daemon: `update_engine` and logind, well and unwell.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine;
mod logind;

use reboot_agent::bus::Bus as Address;
use reboot_tests::bus::Bus;
use reboot_tests::scratch::Scratch;

fn scratch() -> Scratch {
    Scratch::new("reboot-host").unwrap()
}

/// How the agent gets to a bus of the tests.
fn address(bus: &Bus) -> Address {
    Address::new(Some(bus.address()))
}
