//! The agent of one node: it asks for the reboots that update_engine wants, and once permitted cordons, drains and
//! reboots its node, and uncordons it after the boot.
//!
//! What to do is decided by [`reboot_core::step`]; everything here is what it decides on, and the carrying out:
//! [`reconcile`] is the loop, [`own_node`], [`pods`] and [`evictions`] talk to the API server, [`update_engine`] and [`logind`] to the
//! host's bus, [`host`] reads the host's files.

pub mod args;
pub mod bus;
pub mod drain_args;
mod evictions;
pub mod host;
pub mod logind;
pub mod machine;
pub mod metrics;
pub mod own_node;
pub mod pods;
pub mod reconcile;
pub mod run;
pub mod update_engine;
pub mod volumes;
pub mod watched;
