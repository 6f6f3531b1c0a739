//! The operator in trouble.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod people;
mod site;
mod world;
