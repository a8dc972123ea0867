//! Whose order begins next where not all can. Pure.
//!
//! Namespaces take turns: whoever declares many tunnels, or makes one anew whenever it was refused, keeps no other
//! namespace from places, nor from leave to order.

use std::collections::HashMap;

/// Orders that are open, also those that wait: with their names and keys, each takes some KiB of one object.
const MAX_OPEN: usize = 32;

/// The orders that are open. Those of which nothing comes stay for a day, so no namespace has all places.
#[derive(Debug, Default)]
pub struct Open {
    all: usize,
    by_namespace: HashMap<String, usize>,
}

impl Open {
    pub fn add(&mut self, namespace: &str) {
        self.all += 1;
        *self.by_namespace.entry(namespace.to_owned()).or_default() += 1;
    }

    /// Whether a namespace may open another one: while it has fewer than are free. So the first has half of the places, the
    /// next one half of what that leaves, and so on.
    pub fn has_room(&self, namespace: &str) -> bool {
        let own = self.by_namespace.get(namespace).copied();
        own.unwrap_or_default() < MAX_OPEN.saturating_sub(self.all)
    }
}

/// What a leader knows of turns in its term.
#[derive(Debug, Default)]
pub struct Turns {
    /// Which turn a namespace had last: as many as there are namespaces.
    last: HashMap<String, u64>,
    next: u64,
}

impl Turns {
    /// Those that wait, each of a `namespace`, in the order in which they are to begin. Of one namespace they stay as they
    /// are. `busy` are those that began, by namespace.
    pub fn order<T>(
        &self,
        busy: &HashMap<String, usize>,
        waiting: Vec<T>,
        namespace: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        let mut rounds = busy.clone();
        let turns = waiting.into_iter().map(|one| {
            let of = namespace(&one);
            let round = rounds.entry(of.to_owned()).or_default();
            *round += 1;
            let turn = (*round, self.last.get(of).copied());
            (turn, one)
        });
        let mut turns: Vec<_> = turns.collect();
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, one)| one).collect()
    }

    /// One of a namespace begins.
    pub fn had(&mut self, namespace: &str) {
        self.last.insert(namespace.to_owned(), self.next);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The namespaces of those that began, those that wait, and the order in which they are to begin.
    type Case = (
        &'static [&'static str],
        &'static [&'static str],
        [&'static str; 3],
    );

    #[test]
    fn no_namespace_has_all_places_for_open_orders() {
        let mut open = Open::default();
        let fill = |open: &mut Open, namespace: &str| {
            let before = open.all;
            while open.has_room(namespace) {
                open.add(namespace);
            }
            open.all - before
        };
        let filled = ["a", "b", "c", "d", "e", "f", "g"].map(|it| fill(&mut open, it));
        assert_eq!(filled, [16, 8, 4, 2, 1, 1, 0]);
        assert_eq!(open.all, MAX_OPEN);
    }

    /// Of each the first letter is its namespace.
    fn order(turns: &Turns, busy: &[&str], waiting: &[&'static str]) -> Vec<&'static str> {
        let mut began: HashMap<String, usize> = HashMap::new();
        for namespace in busy {
            *began.entry((*namespace).to_owned()).or_default() += 1;
        }
        turns.order(&began, waiting.to_vec(), |one| &one[..1])
    }

    #[test]
    fn who_waits_with_many_has_one_turn_after_every_other_namespace() {
        let turns = Turns::default();
        let cases: [Case; 5] = [
            (&[], &["a1", "a2", "a3"], ["a1", "a2", "a3"]),
            (&[], &["a1", "a2", "b1"], ["a1", "b1", "a2"]),
            (&[], &["b1", "a1", "a2"], ["b1", "a1", "a2"]),
            (&["a"], &["a1", "b1", "b2"], ["b1", "a1", "b2"]),
            (&["a", "a"], &["a1", "b1", "b2"], ["b1", "b2", "a1"]),
        ];
        for (busy, waiting, expected) in cases {
            let found = order(&turns, busy, waiting);
            assert_eq!(found, expected, "{busy:?} {waiting:?}");
        }
    }

    #[test]
    fn who_was_served_comes_after_who_was_not() {
        let mut turns = Turns::default();
        for (had, expected) in [
            ("a", ["b1", "c1", "a1"]),
            ("b", ["c1", "a1", "b1"]),
            ("a", ["c1", "b1", "a1"]),
        ] {
            turns.had(had);
            assert_eq!(order(&turns, &[], &["a1", "b1", "c1"]), expected);
        }
    }
}
