//! Which tunnels have a connector where not all can. Pure: the same on every controller that applied the same state.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::Key;

/// At most `most` of the tunnels, each with when it was made, in text that sorts. The oldest of each namespace come
/// first, then the second of each, and so on: whoever makes many keeps no other namespace from having one.
pub fn share<'a>(
    wanting: impl IntoIterator<Item = (&'a Key, &'a str)>,
    most: usize,
) -> BTreeSet<Key> {
    let wanting = wanting.into_iter();
    let mut by_age: Vec<_> = wanting.map(|(key, created)| (created, key)).collect();
    by_age.sort();
    let mut rounds: BTreeMap<&str, usize> = BTreeMap::new();
    let turns = by_age.into_iter().map(|(created, key)| {
        let round = rounds.entry(&*key.namespace).or_default();
        *round += 1;
        (*round, created, key)
    });
    let mut turns: Vec<_> = turns.collect();
    turns.sort();
    let first = turns.into_iter().take(most);
    first.map(|(_, _, key)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use hive_manifests::Resource;

    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key::new(Resource::Tunnel, namespace, name)
    }

    /// Tunnels as `namespace name created`, how many may have a connector, and which do.
    type Case = (&'static [&'static str], usize, &'static [&'static str]);

    #[test]
    fn namespaces_take_turns_and_the_oldest_of_each_comes_first() {
        let cases: &[Case] = &[
            (&["a x 1", "a y 2", "b x 3"], 3, &["a x", "a y", "b x"]),
            (&["a x 1", "a y 2", "b x 3"], 9, &["a x", "a y", "b x"]),
            (&["a x 1", "a y 2", "b x 3"], 0, &[]),
            // One that came late has its share.
            (&["a x 1", "a y 2", "a z 3", "b x 4"], 2, &["a x", "b x"]),
            (
                &["a x 1", "a y 2", "a z 3", "b x 4"],
                3,
                &["a x", "a y", "b x"],
            ),
            // What is left over goes to the oldest.
            (
                &["a x 1", "b x 2", "b y 3", "a y 4"],
                3,
                &["a x", "b x", "b y"],
            ),
            (&["c x 3", "b x 1", "a x 2"], 2, &["a x", "b x"]),
            // It is not the names that decide, unless there is nothing else.
            (&["a x 2", "a y 1"], 1, &["a y"]),
            (&["a y 1", "a x 1"], 1, &["a x"]),
            (&["b x 1", "a x 1"], 1, &["a x"]),
        ];
        for (wanting, most, expected) in cases {
            let wanted = wanting.iter().map(|text| {
                let words: Vec<&str> = text.split(' ').collect();
                (key(words[0], words[1]), words[2])
            });
            let wanted: Vec<(Key, &str)> = wanted.collect();
            let found = share(wanted.iter().map(|(key, created)| (key, *created)), *most);
            let found = found.iter();
            let found = found.map(|key| format!("{} {}", key.namespace, key.name));
            let found: Vec<String> = found.collect();
            assert_eq!(found, *expected, "{most} of {wanting:?}");
        }
    }

    /// However old they are.
    #[test]
    fn no_namespace_has_two_more_than_one_that_wants_more() {
        for shape in 0..5_usize.pow(3) {
            let wanted = [shape % 5, shape / 5 % 5, shape / 25];
            let tunnels: Vec<_> = ["a", "b", "c"]
                .iter()
                .zip(wanted)
                .flat_map(|(namespace, count)| {
                    (0..count).map(move |number| key(namespace, &number.to_string()))
                })
                .collect();
            for most in 0..=tunnels.len() {
                // Those of a are the oldest.
                let all = tunnels.iter().map(|key| (key, &*key.namespace));
                let chosen = share(all, most);
                assert_eq!(chosen.len(), most);
                let had = ["a", "b", "c"].map(|namespace| {
                    let own = chosen.iter().filter(|key| key.namespace == namespace);
                    own.count()
                });
                for (one, other) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                    let is_fair = had[one] == wanted[one] || had[other] <= had[one] + 1;
                    assert!(is_fair, "{had:?} of {wanted:?}");
                }
            }
        }
    }
}
