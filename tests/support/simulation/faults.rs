//! How often what goes wrong. Each simulation has its own mixture: what all suffer from at once hides what few do.

use super::random::Random;

/// Once in so many times, each; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A process crashes within so many polls of its tasks.
    pub crash: usize,
    /// A process is frozen for a while at one of so many wake-ups.
    pub frozen: usize,
    /// A request is lost, late, or answered with an error.
    pub request: usize,
    /// The answer to a request that was served is lost or late.
    pub answer: usize,
    /// A watch breaks, falls silent, or is told that it is too old.
    pub watch: usize,
    /// What the agent wants of its host fails.
    pub host: usize,
    /// How many seconds pass between one thing that happens to a machine, a process or the network and the next.
    pub events: usize,
    /// How many seconds pass between one act of a person and the next.
    pub people: usize,
}

impl Faults {
    /// A mixture.
    pub fn drawn(random: &Random) -> Self {
        let rate = |rates: &[usize]| if random.once_in(3) { 0 } else { *random.pick(rates) };
        Self {
            crash: rate(&[100, 1000, 10_000]),
            frozen: rate(&[100, 300, 1000]),
            request: rate(&[10, 40, 200]),
            answer: rate(&[10, 40, 200]),
            watch: rate(&[10, 40, 200]),
            host: rate(&[4, 10, 40]),
            events: rate(&[10, 30, 90]),
            people: rate(&[10, 30, 90]),
        }
    }
}
