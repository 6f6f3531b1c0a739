//! The controller of the fleet: it grants reboots to the nodes that ask, within a quota of unavailable nodes.
//!
//! What to do is decided by [`reboot_core::plan`]; everything here is what it decides on, and the carrying out:
//! `reconcile` is the loop, `nodes` knows the Nodes, `slots` keeps the ledger and `rebuild` makes a lost one good, `apply`
//! carries actions out, `tell` tells people, and `elect` keeps two controllers from doing the same work.

pub mod args;
pub mod metrics;
pub mod run;

mod apply;
mod elect;
mod nodes;
mod rebuild;
mod reconcile;
mod slots;
mod tell;
