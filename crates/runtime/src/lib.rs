//! What both processes of the reboot operator share: arguments, logs, the API client and its calls, probes and
//! metrics, Events, shutdown, and the supervision of a process's tasks.
//!
//! Nothing in here decides anything about reboots. A current-thread tokio runtime is assumed.

pub mod args;
pub mod call;
pub mod client;
pub mod clock;
pub mod events;
pub mod log;
pub mod probes;
pub mod shutdown;
pub mod supervise;
mod throttle;
pub mod watches;
