//! The drain on a real API server with its controllers: how it waits for `PodDisruptionBudget`s, what it does about every
//! answer to an eviction, and how many requests it needs.
//!
//! Claims that leave each other alone share a control plane: each has a node and a namespace of its own, and all are put
//! to the test at the same time. An answer that depends on the moment is made certain by a proxy that holds evictions
//! until the test has changed what they are about.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod fleet;
mod limits;
mod outage;
mod pods;
mod site;
mod stage;
mod stops;
mod turns;
