//! The protocol under every order of events.

#[path = "../../src/simulation/api.rs"]
mod api;

mod agent;
mod controller;
mod mutation;
mod people;
mod print;
mod search;
mod state;
mod world;

use search::search;
use state::Faults;
use world::World;

#[test]
fn thin() {
    let found = search(World::new(1, 1, 1, Faults { acts: 1, crashes: 1, ..Faults::default() }));
    println!("{} {} {}", found.states, found.depth, found.seconds);
    if let Some(c) = found.counterexample {
        panic!("{c}");
    }
}
