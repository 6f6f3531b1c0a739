//! The protocol under every order of events: the real decisions of both sides against a world in which crashes,
//! late writes, stale views and people come at any moment, each as often as the configuration says. No state is left out.
//!
//! [`world`] is what is true, [`agent`] and [`controller`] are the two loops around the functions of the crate, one call
//! to the outside at a time, [`people`] is what others do, and [`search`] has the events and the search. [`print`] decides
//! which states are one. [`ends`] plays a state to its end, and [`mutation`] breaks the protocol on purpose.
//!
//! `make model` searches larger worlds (`all.rs`); here are those that take seconds.
#![allow(clippy::unwrap_used)]

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

use configurations::SMALL;
use mutation::Mutation;
use search::{Found, search};

#[track_caller]
fn check_holds(name: &str, found: &Found) {
    assert!(found.counterexample.is_none() && found.is_whole, "{name}: {found}");
    assert!(found.states > 1_000, "{name}: {found}");
}

#[track_caller]
fn check_found(mutation: Mutation) {
    let found = search(mutation.world(), None);
    assert!(found.counterexample.is_some(), "{mutation:?} breaks no promise: {found}");
}

#[test]
fn every_promise_holds_in_every_state_and_every_cycle_ends() {
    for configuration in &SMALL {
        check_holds(configuration.name, &search(configuration.world(), None));
    }
}

#[test]
fn every_way_to_break_the_protocol_is_found() {
    for mutation in Mutation::ALL {
        check_found(*mutation);
    }
}
