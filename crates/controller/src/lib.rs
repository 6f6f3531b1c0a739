//! Placeholder.
#[path = "../../core/src/lease.rs"]
pub mod lease;
pub mod elect;
pub use reboot_core::{Now, ids};
