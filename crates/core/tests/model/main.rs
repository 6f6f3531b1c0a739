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
    let args = std::env::var("CONF").unwrap();
    let n: Vec<u8> = args.split(',').map(|x| x.parse().unwrap()).collect();
    let f = Faults { crashes: n[3], acts: n[4], stale: n[5], late: n[6], hours: n[7], pods: n[8], refusals: n[9] };
    let found = search(World::new(n[0].into(), n[1].into(), n[2].into(), f));
    println!("RESULT {} {} {:.1}", found.states, found.depth, found.seconds);
    if let Some(c) = found.counterexample {
        panic!("{c}");
    }
}
