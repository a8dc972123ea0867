//! Whose data stays: a pure rule.

use std::collections::{BTreeMap, BTreeSet};

/// A function may leave a node and come back: a drained machine, a rollback, a cable that was out over
/// a weekend. Seconds.
pub const KEPT: u64 = 7 * 24 * 60 * 60;

/// That a function is wanted is written down so often, not more: flash wears. Seconds.
const NOTED: u64 = 24 * 60 * 60;

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is wanted still: write that down.
    Note(String),
    Remove(String),
}

/// What to do about the functions that keep something here, each with when it was last noted as wanted.
pub fn plan(held: &BTreeMap<String, u64>, wanted: &BTreeSet<String>, now: u64) -> Vec<Step> {
    let step = |(function, noted): (&String, &u64)| {
        // A clock that was put back makes nothing old.
        let age = now.saturating_sub(*noted);
        match wanted.contains(function) {
            true if age >= NOTED => Some(Step::Note(function.clone())),
            false if age >= KEPT + NOTED => Some(Step::Remove(function.clone())),
            _ => None,
        }
    };
    held.iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_noted_and_what_is_not_goes_late() {
        let now = 100 * KEPT;
        let cases = [
            (true, 0, None),
            (true, NOTED - 1, None),
            (true, NOTED, Some(Step::Note("f".to_owned()))),
            // Away for longer than data is kept, and wanted again.
            (true, 50 * KEPT, Some(Step::Note("f".to_owned()))),
            (false, 0, None),
            (false, KEPT, None),
            (false, KEPT + NOTED, Some(Step::Remove("f".to_owned()))),
        ];
        for (is_wanted, age, expected) in cases {
            let held = BTreeMap::from([("f".to_owned(), now - age)]);
            let wanted = BTreeSet::from_iter(is_wanted.then(|| "f".to_owned()));
            let steps = plan(&held, &wanted, now);
            assert_eq!(steps, Vec::from_iter(expected), "{is_wanted} {age}");
        }
        let ahead = BTreeMap::from([("f".to_owned(), now + KEPT)]);
        assert_eq!(plan(&ahead, &BTreeSet::new(), now), []);
    }
}
