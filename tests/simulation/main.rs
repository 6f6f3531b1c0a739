//! The real loops against everything that can go wrong, by seed.

use std::time::Instant;

use reboot_tests::simulation::{Played, play, play_in, random::Random, setup::Setup};

/// How much of the story of a failed seed is shown.
const LINES: usize = 200;

#[track_caller]
fn check(seed: u64) -> Played {
    let played = play(seed, false);
    if let Err(why) = &played.outcome {
        let story = play(seed, true).story;
        let last = &story[story.len().saturating_sub(LINES)..];
        panic!("{}\n{why}\nall of it: make simulate SEED={seed}", last.join("\n"));
    }
    played
}

#[test]
fn every_promise_holds_and_every_node_that_asks_is_rebooted() {
    for seed in 0..200 {
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
fn a_fleet_of_a_hundred_nodes_is_rebooted() {
    let (random, begin) = (Random::new(0), Instant::now());
    let played = play_in(Setup::fleet(100, 10), random, false);
    let took = begin.elapsed();
    assert_eq!((played.outcome, played.figures.rebooted), (Ok(()), 100));
    println!("100 nodes in {took:.2?}: {}", played.figures);
}
