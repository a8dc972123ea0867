//! With which controller the next session is held, and how long to wait when none would have it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// After all failed. An election takes a second or two.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A swarm that is back after hours is found in half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The index of the endpoint to try: the last one if it may be, else the one that follows it, so that
/// agents that lose a controller don't all go to the first in the list. `None`: all failed.
pub fn choose(live: &[&str], last: Option<&str>, failed: &BTreeSet<String>) -> Option<usize> {
    let usable = |index: &usize| !failed.contains(live[*index]);
    let start = match last {
        Some(last) => live
            .iter()
            .position(|endpoint| *endpoint >= last)
            .unwrap_or(0),
        None if live.is_empty() => 0,
        None => random() as usize % live.len(),
    };
    (start..live.len()).chain(0..start).find(usable)
}

/// Grows with the rounds that failed, and is cut by up to a half at random: agents that were left
/// together don't come back together.
pub fn wait_after(rounds: u32) -> Duration {
    let wait = FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(rounds))
        .min(LONGEST_WAIT);
    let share = (random() % 1024) as f64 / 2048.0;
    wait.mul_f64(1.0 - share)
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn stays_where_it_was_and_else_goes_to_the_next() {
        let live = ["a", "b", "c"];
        for (last, gone, expected) in [
            ("b", &[][..], Some(1)),
            ("b", &["b"], Some(2)),
            ("b", &["b", "c"], Some(0)),
            ("b", &["a", "b", "c"], None),
            ("bb", &[], Some(2)),
            ("z", &[], Some(0)),
        ] {
            assert_eq!(choose(&live, Some(last), &failed(gone)), expected, "{last}");
        }
        assert_eq!(choose(&[], None, &failed(&[])), None);
        assert_eq!(choose(&[], Some("a"), &failed(&[])), None);
    }

    #[test]
    fn the_first_choice_is_spread() {
        let live = ["a", "b", "c"];
        let chosen: BTreeSet<_> = (0..200)
            .map(|_| choose(&live, None, &failed(&[])))
            .collect();
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn waits_grow_to_half_a_minute() {
        for (rounds, most) in [(0, 500), (1, 1000), (4, 8000), (40, 30_000)] {
            let (wait, most) = (wait_after(rounds), Duration::from_millis(most));
            assert!(wait <= most && wait >= most / 2, "{rounds}: {wait:?}");
        }
    }
}
