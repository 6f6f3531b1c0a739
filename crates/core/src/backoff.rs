//! How long to wait before the next try: doubling, and spread so that not all come at once.

use std::time::Duration;

/// How long a loop waits after so many failed calls in a row: 0.5 s, doubling to 30 s.
pub fn after_failures(failures: u32) -> Duration {
    doubling(SOON, failures, LATE)
}

/// The same where the call was answered by a server that asks for a pause: at least as long as that.
pub fn after_answer(failures: u32, asked_for: Option<Duration>) -> Duration {
    after_failures(failures).max(asked_for.unwrap_or_default())
}

/// The shortest pause of a loop before it looks again at what it cannot watch.
pub const SOON: Duration = Duration::from_millis(500);
/// The longest one.
pub const LATE: Duration = Duration::from_secs(30);

/// The longest time for which a node puts its next reboot off.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(24);

/// `first`, doubled with every try after the first, up to `longest`.
pub(crate) fn doubling(first: Duration, tries: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// Lengthens a pause by up to a quarter, the same for the same seed, words and tries, so that many who were refused at
/// the same moment do not return at the same moment. Never shortens it: a server may have asked for it.
pub fn spread(pause: Duration, seed: u64, words: &str, tries: u32) -> Duration {
    // FNV-1a over the words, then the finaliser of SplitMix64, as far as the upper bits go.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let mut mixed = words.bytes().chain(tries.to_le_bytes()).fold(seed ^ 0xCBF2_9CE4_8422_2325, hash);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let quarter = pause / 4;
    let part = u32::try_from(mixed >> 48).unwrap_or_default();
    pause.saturating_add(quarter.saturating_mul(part) / 0x1_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_waits_half_a_second_after_the_first_failure_and_half_a_minute_at_most() {
        let pauses = [0, 1, 2, 3, 6, 7, u32::MAX].map(|failures| after_failures(failures).as_millis());
        assert_eq!(pauses, [500, 500, 1000, 2000, 16_000, 30_000, 30_000]);
        let asked_for = [None, Some(Duration::from_secs(1)), Some(Duration::from_mins(1))];
        let pauses = asked_for.map(|pause| after_answer(3, pause).as_millis());
        assert_eq!(pauses, [2000, 2000, 60_000]);
    }

    #[test]
    fn a_pause_grows_by_less_than_a_quarter_and_differs_by_seed_words_and_tries() {
        let pause = Duration::from_secs(16);
        let spreads: Vec<Duration> = (0..200).map(|seed| spread(pause, seed, "default/web-0", 1)).collect();
        assert!(spreads.iter().all(|longer| (pause..pause + pause / 4).contains(longer)));
        let mean = spreads.iter().sum::<Duration>() / 200;
        assert!((Duration::from_millis(17_700)..Duration::from_millis(18_300)).contains(&mean), "{mean:?}");
        assert_ne!(spread(pause, 1, "a", 1), spread(pause, 1, "b", 1));
        assert_ne!(spread(pause, 1, "a", 1), spread(pause, 1, "a", 2));
        assert_eq!(spread(pause, 1, "a", 1), spread(pause, 1, "a", 1));
        assert_eq!(spread(Duration::ZERO, 1, "a", 1), Duration::ZERO);
    }

    #[test]
    fn the_mixing_is_that_of_fnv_1a_and_splitmix64() {
        // A pause in which a nanosecond is one of the 65,536 parts of its quarter.
        let pause = Duration::from_nanos(4 * 0x1_0000);
        let parts = |seed, words, tries| spread(pause, seed, words, tries).as_nanos() - pause.as_nanos();
        assert_eq!(parts(0, "", 0), 44_198);
        assert_eq!(parts(7, "default/web-0", 1), 49_420);
        assert_eq!(parts(u64::MAX, "default/web-1", 2), 13_182);
    }
}
