//! The testbed keeps its own promises: what the end-to-end tests stand on is tested here, without the operator.
//!
//! Needs the control plane's programs (`make control-plane`) and dbus-daemon, nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod control_plane;
mod judging;
