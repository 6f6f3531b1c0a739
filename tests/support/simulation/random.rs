//! A small seeded generator, so that a seed is a story that can be told again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where all chance of a simulation comes from. Clones draw from the same row of numbers.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<u64>>);

impl Random {
    /// The row of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// Any number: `SplitMix64`, <https://doi.org/10.1145/2660193.2660195>.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    /// True once in `times`; never where that is 0.
    pub fn once_in(&self, times: usize) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A time below `end`, in milliseconds; short ones are as likely as long ones.
    pub fn time(&self, end: Duration) -> Duration {
        let most = usize::try_from(end.as_millis()).unwrap_or(usize::MAX);
        let magnitude = most.checked_shr(u32::try_from(self.below(12)).unwrap_or(0)).unwrap_or(0);
        Duration::from_millis(self.below(magnitude.max(1)) as u64)
    }

    /// A time below so many seconds, each as likely as any other.
    pub fn seconds(&self, end: usize) -> Duration {
        Duration::from_millis(self.below(end.saturating_mul(1000)) as u64)
    }
}
