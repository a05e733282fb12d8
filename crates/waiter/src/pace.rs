//! How long to pause before asking again. Waiters come in thousands and start together, so every
//! pause that a fault causes is spread by chance.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use migrations_protocol::HOLD_SECONDS;

/// Shortest and longest pause after a fault (contract §8).
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

/// Pause after an answer that was new: several changes may follow each other.
const AFTER_CHANGE: Duration = Duration::from_millis(100);

/// An answer is held as long as nothing changes. One that comes earlier and says what we know is a
/// server that is about to end.
const HELD: Duration = Duration::from_secs(HOLD_SECONDS / 2);

/// The pause after an answer that took `took`, where `known` was the version of the one before.
pub(crate) fn after_answer(known: Option<&str>, version: &str, took: Duration, random: u64) -> Duration {
    match known {
        Some(known) if known != version => AFTER_CHANGE,
        Some(_) if took < HELD => between(SHORTEST, LONGEST, random),
        None | Some(_) => Duration::ZERO,
    }
}

/// The pause after `faults` in a row, the last of which took `took` to show. Counted from when that
/// attempt began, or servers that say nothing would be asked seldom.
pub(crate) fn after_fault(faults: u32, took: Duration, random: u64) -> Duration {
    let most = SHORTEST.saturating_mul(2_u32.saturating_pow(faults)).min(LONGEST);
    between(SHORTEST, most, random).saturating_sub(took).max(SHORTEST)
}

fn between(least: Duration, most: Duration, random: u64) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX);
    least + Duration::from_millis(random % (span + 1))
}

/// A number by chance: the standard library seeds its maps with one, and there is no other use for
/// chance here.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::first_answer(None, "1", 0, 0..=0)]
    #[case::held_and_unchanged(Some("1"), "1", 25_000, 0..=0)]
    #[case::changed(Some("1"), "2", 3, 100..=100)]
    #[case::unchanged_at_once(Some("1"), "1", 3, 500..=5000)]
    fn after_an_answer(
        #[case] known: Option<&str>,
        #[case] version: &str,
        #[case] took: u64,
        #[case] expected: std::ops::RangeInclusive<u128>,
    ) {
        for random in [0, 1, 4_499, 4_500, u64::MAX] {
            let pause = after_answer(known, version, Duration::from_millis(took), random).as_millis();
            assert!(expected.contains(&pause), "{pause}");
        }
    }

    #[rstest]
    #[case::first(1, 1000)]
    #[case::second(2, 2000)]
    #[case::fifth(5, 5000)]
    #[case::many(u32::MAX, 5000)]
    fn after_faults(#[case] faults: u32, #[case] most: u64) {
        assert_eq!(after_fault(faults, Duration::ZERO, 0), SHORTEST);
        assert_eq!(after_fault(faults, Duration::ZERO, most - 500), Duration::from_millis(most));
        assert_eq!(after_fault(faults, Duration::ZERO, most - 499), SHORTEST);
    }

    #[rstest]
    #[case::at_once(0, 5000)]
    #[case::after_a_while(2000, 3000)]
    #[case::after_longer_than_any_pause(6000, 500)]
    fn time_that_a_fault_took_is_no_pause_on_top(#[case] took: u64, #[case] pause: u128) {
        assert_eq!(after_fault(9, Duration::from_millis(took), 4500).as_millis(), pause);
    }

    #[test]
    fn chance_differs() {
        assert_ne!(random(), random());
    }
}
