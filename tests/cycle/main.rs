//! The reboot cycle, end to end: the operator's two programs as processes, on a real control plane and real buses.
//!
//! Every scenario ends with the referee's verdict: the quota, the PDBs, the cordons, the final state. Needs what the
//! testbed needs (`make control-plane`, dbus-daemon), kubectl, and the two programs (`cargo build --bins`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alone;
mod kills;
mod rights;
mod saboteurs;
mod stage;
mod two;
mod whole;
