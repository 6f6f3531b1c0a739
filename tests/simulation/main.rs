//! The real loops against everything that can go wrong, by seed.

#![allow(clippy::unwrap_used)]

mod alone;
mod left_alone;
mod overtaken;
mod refused;

use reboot_tests::simulation::{play, play_in, random::Random, setup::Setup};

/// How much of the story of a failed seed is shown.
const LINES: usize = 200;

#[track_caller]
fn check(seed: u64) {
    let played = play(seed, false);
    if let Err(why) = &played.outcome {
        let story = play(seed, true).story;
        let last = &story[story.len().saturating_sub(LINES)..];
        panic!("{}\n{why}\nall of it: make simulate SEED={seed}", last.join("\n"));
    }
}

#[test]
fn every_promise_holds_and_every_node_that_asks_is_rebooted() {
    for seed in 0..100 {
        check(seed);
    }
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 0..5 {
        let (first, second) = (play(seed, true).story, play(seed, true).story);
        let difference = first.iter().zip(&second).position(|(one, other)| one != other);
        let around = difference.map(|line| (&first[line.saturating_sub(5)..=line], &second[line]));
        assert_eq!((around, first.len()), (None, second.len()), "seed {seed}");
    }
}

#[test]
fn a_fleet_without_faults_is_rebooted_node_by_node() {
    let played = play_in(Setup::fleet(20, 3), Random::new(0), false);
    assert_eq!((played.outcome, played.figures.rebooted), (Ok(()), 20));
}
