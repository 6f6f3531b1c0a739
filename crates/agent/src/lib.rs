//! The agent of one node: it asks for the reboots that update_engine wants, and once permitted cordons, drains and
//! reboots its node, and uncordons it after the boot.
//!
//! What to do is decided by [`reboot_core::step`]; everything here is what it decides on, and the carrying out.
//! `reconcile` is the loop. [`machine`] is what it knows of its host: from [`update_engine`] and [`logind`] over the host's
//! [`bus`], and from files (`host`). `own_node`, `pods` and `volumes` are what the API server shows, by watches
//! (`watched`); `evictions` are those under way. [`args`] and `drain_args` are the flags, [`metrics`] what is counted, and
//! [`run`] puts all of it together.

pub mod args;
pub mod bus;
mod drain_args;
mod evictions;
mod host;
pub mod logind;
pub mod machine;
pub mod metrics;
mod own_node;
mod pods;
mod reconcile;
pub mod run;
pub mod update_engine;
mod volumes;
mod watched;
