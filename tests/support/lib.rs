//! What the tests stand on: a real control plane with simulated nodes, private system buses with a fake
//! `update_engine` and logind, and a referee that judges what the operator does without knowing it.

pub mod boot;
pub mod bus;
pub mod call;
pub mod claims;
pub mod control_plane;
pub mod memory;
pub mod nodes;
pub mod process;
pub mod proxy;
pub mod real;
pub mod referee;
pub mod scene;
pub mod scratch;
pub mod sim;
pub mod simulation;
pub mod workload;
