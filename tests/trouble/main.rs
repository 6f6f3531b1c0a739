//! The operator in trouble.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod company;
mod flags;
mod ledger;
mod outages;
mod people;
mod refusals;
mod site;
mod values;
mod world;
