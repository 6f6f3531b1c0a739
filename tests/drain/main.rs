//! The drain on a real API server with its controllers: how it waits for `PodDisruptionBudget`s, what it does about every
//! answer to an eviction, and how many requests it needs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fleet;
mod stage;
