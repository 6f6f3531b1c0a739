//! `make model`: every configuration, the large ones included, and every way to break the protocol, with figures.
//!
//! A benchmark for cargo, so that it is optimised and not part of `cargo test`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../../src/simulation/api.rs"]
mod api;

mod agent;
mod configurations;
mod controller;
mod ends;
mod mutation;
mod people;
mod print;
mod rebuild;
mod search;
mod state;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use configurations::{Configuration, SMALL};
use mutation::Mutation;
use search::search;
use state::Faults;
use world::World;

const NONE: Faults = Faults { crashes: 0, acts: 0, stale: 0, late: 0, hours: 0, pods: 0, refusals: 0 };

const LARGE: [Configuration; 2] = [
    Configuration {
        name: "two nodes, two crashes and an act",
        controllers: 2,
        nodes: 2,
        quota: 1,
        faults: Faults { crashes: 2, acts: 1, ..NONE },
        ends: false,
    },
    Configuration {
        name: "three nodes, quota 2, a crash",
        controllers: 2,
        nodes: 3,
        quota: 2,
        faults: Faults { crashes: 1, ..NONE },
        ends: false,
    },
];

/// No search may take longer.
const LONGEST: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let mut violations = 0;
    for configuration in SMALL.iter().chain(&LARGE).filter(|configuration| is_wanted(configuration.name)) {
        let found = search(configuration.world(), Some(LONGEST));
        violations += usize::from(found.counterexample.is_some());
        println!("{}: {found}", configuration.name);
    }
    let mutations = Mutation::ALL.iter().filter(|mutation| is_wanted(&format!("{mutation:?}")));
    let found: Vec<bool> = mutations.map(|mutation| is_found(*mutation)).collect();
    let all = found.iter().all(|found| *found);
    println!("mutations found: {} of {}", found.iter().filter(|found| **found).count(), found.len());
    if violations == 0 && all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a promise breaks in its world, and none does there without it.
fn is_found(mutation: Mutation) -> bool {
    let found = search(mutation.world(), Some(LONGEST));
    let promise = found.counterexample.as_deref().and_then(|counterexample| counterexample.lines().next());
    let without = search(World { mutation: None, ..mutation.world() }, Some(LONGEST));
    println!("{mutation:?}: {} ({} states)", promise.unwrap_or("NOT FOUND"), found.states);
    if !without.is_whole {
        println!("  and without it: {without}");
    }
    promise.is_some() && without.is_whole
}
