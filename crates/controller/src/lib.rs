//! The controller of the fleet: it grants reboots to the nodes that ask, within a quota of unavailable nodes.
//!
//! What to do is decided by [`reboot_core::plan`]; everything here is what it decides on, and the carrying out:
//! [`reconcile`] is the loop, [`nodes`] knows the Nodes, [`slots`] keeps the ledger, [`apply`] carries actions out, and
//! [`elect`] keeps two controllers from doing the same work.

pub mod apply;
pub mod args;
pub mod elect;
pub mod metrics;
pub mod nodes;
pub mod reconcile;
pub mod run;
pub mod slots;
pub mod tell;
