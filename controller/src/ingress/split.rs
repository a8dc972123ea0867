//! Which copies of a function a request goes to: those that are wanted of it, or those that try a version.
//! Pure, but for the counters.
//!
//! A share is an offer: where no copy of it can be reached, the other one is asked.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Coprime to 100: in any hundred turns that follow each other each remainder comes once, and those below a
/// weight come spread.
const STRIDE: usize = 61;

/// Copies of which one is as good as another.
#[derive(Debug, Default, PartialEq)]
pub struct Share {
    /// Where they are ready, sorted.
    pub nodes: Vec<String>,
    /// What they are asked for by; unset of the copies that are wanted.
    pub revision: Option<HeaderValue>,
    pub turn: Turn,
}

/// Copies that try a version.
#[derive(Debug, PartialEq)]
pub struct Canary {
    /// Of one node at least.
    pub share: Share,
    /// How many of a hundred requests it gets.
    pub weight: u32,
    /// Requests with one of these it gets always.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub turn: Turn,
}

/// Counts up. Two of them are equal: how far they are makes no difference between tables.
#[derive(Debug, Default)]
pub struct Turn(AtomicUsize);

impl PartialEq for Turn {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Turn {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Goes on where another one is.
    pub fn follow(&self, other: &Self) {
        self.0
            .store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Canary {
    fn takes(&self, headers: &HeaderMap) -> bool {
        let asks = |(name, value): &(HeaderName, HeaderValue)| {
            headers.get_all(name).iter().any(|given| given == value)
        };
        self.headers.iter().any(asks) || is_in(self.weight, self.turn.next())
    }
}

fn is_in(weight: u32, turn: usize) -> bool {
    turn.wrapping_mul(STRIDE) % 100 < weight as usize
}

/// The nodes to ask for one request, in order.
#[derive(Debug)]
pub struct Ways<'a> {
    first: (&'a Share, usize),
    then: Option<(&'a Share, usize)>,
}

/// Where a request goes, and the revision that it asks for there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way<'a> {
    pub node: &'a str,
    pub revision: Option<&'a HeaderValue>,
}

impl<'a> Ways<'a> {
    pub fn choose(stable: &'a Share, canary: Option<&'a Canary>, headers: &HeaderMap) -> Self {
        let Some(canary) = canary else {
            return Self {
                first: (stable, stable.turn.next()),
                then: None,
            };
        };
        let tried = &canary.share;
        let (first, then) = match stable.nodes.is_empty() || canary.takes(headers) {
            true => (tried, stable),
            false => (stable, tried),
        };
        Self {
            first: (first, first.turn.next()),
            // No turn is lost by those that are asked only in need.
            then: Some((then, 0)),
        }
    }

    /// What is asked first.
    pub fn share(&self) -> &'a Share {
        self.first.0
    }

    pub fn len(&self) -> usize {
        let then = self.then.map_or(0, |(share, _)| share.nodes.len());
        self.first.0.nodes.len() + then
    }

    pub fn get(&self, attempt: usize) -> Option<Way<'a>> {
        let (first, turn) = self.first;
        if let Some(way) = first.way(turn, attempt) {
            return Some(way);
        }
        let (then, turn) = self.then?;
        then.way(turn, attempt - first.nodes.len())
    }

    pub fn nodes(&self) -> Cow<'a, [String]> {
        let first = &self.first.0.nodes;
        match self.then {
            None => Cow::Borrowed(first),
            Some((then, _)) => Cow::Owned([&first[..], &then.nodes].concat()),
        }
    }
}

impl Share {
    fn way(&self, turn: usize, attempt: usize) -> Option<Way<'_>> {
        if attempt >= self.nodes.len() {
            return None;
        }
        Some(Way {
            node: &self.nodes[turn.wrapping_add(attempt) % self.nodes.len()],
            revision: self.revision.as_ref(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn share(nodes: &[&str], revision: Option<&'static str>) -> Share {
        Share {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            revision: revision.map(HeaderValue::from_static),
            turn: Turn::default(),
        }
    }

    fn canary(nodes: &[&str], weight: u32) -> Canary {
        Canary {
            share: share(nodes, Some("f-2")),
            weight,
            headers: vec![(
                HeaderName::from_static("x-canary"),
                HeaderValue::from_static("always"),
            )],
            turn: Turn::default(),
        }
    }

    fn asked(ways: &Ways<'_>) -> Vec<(String, bool)> {
        (0..)
            .map_while(|attempt| ways.get(attempt))
            .map(|way| (way.node.to_owned(), way.revision.is_some()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_weight_is_exact_over_any_hundred_turns(weight in 0u32..=100, begin in 0usize..1_000_000) {
            let taken = (begin..begin + 100).filter(|turn| is_in(weight, *turn)).count();
            prop_assert_eq!(taken, weight as usize);
        }

        /// Whatever the shares are: all nodes are asked, each once, those of the chosen share first.
        #[test]
        fn every_copy_is_a_way(stable in 0usize..5, tried in 1usize..4, weight in 0u32..=99, turns in 0usize..30) {
            let names = |prefix: &str, count: usize| -> Vec<String> {
                (0..count).map(|n| format!("{prefix}{n}")).collect()
            };
            let (stable_names, tried_names) = (names("s", stable), names("c", tried));
            let stable = share(&stable_names.iter().map(String::as_str).collect::<Vec<_>>(), None);
            let canary = canary(&tried_names.iter().map(String::as_str).collect::<Vec<_>>(), weight);
            for _ in 0..turns {
                Ways::choose(&stable, Some(&canary), &HeaderMap::new());
            }
            let ways = Ways::choose(&stable, Some(&canary), &HeaderMap::new());
            let asked = asked(&ways);
            prop_assert_eq!(asked.len(), ways.len());
            let is_tried = asked[0].1;
            let first = if is_tried { tried } else { stable.nodes.len() };
            prop_assert!(asked[..first].iter().all(|(_, it)| *it == is_tried));
            let mut nodes: Vec<_> = asked.iter().map(|(node, _)| node.clone()).collect();
            nodes.sort();
            let mut all = [tried_names, stable_names].concat();
            all.sort();
            prop_assert_eq!(nodes, all);
            prop_assert!(asked.iter().all(|(node, tried)| node.starts_with('c') == *tried));
        }
    }

    #[test]
    fn each_share_takes_its_nodes_in_turn() {
        let (stable, canary) = (share(&["a", "b"], None), canary(&["c", "d"], 50));
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..200 {
            let ways = Ways::choose(&stable, Some(&canary), &HeaderMap::new());
            *counts.entry(ways.get(0).unwrap().node).or_insert(0) += 1;
        }
        let each = ["a", "b", "c", "d"].map(|node| (node, 50));
        assert_eq!(counts, each.into());
    }

    #[test]
    fn a_header_asks_for_the_version_that_is_tried() {
        let (stable, canary) = (share(&["a"], None), canary(&["a", "b"], 0));
        let mut headers = HeaderMap::new();
        let first = |headers: &HeaderMap| {
            let ways = Ways::choose(&stable, Some(&canary), headers);
            ways.get(0).unwrap().revision.is_some()
        };
        assert!(!first(&headers));
        headers.append("x-canary", HeaderValue::from_static("never"));
        assert!(!first(&headers));
        headers.append("x-canary", HeaderValue::from_static("always"));
        assert!(first(&headers));
    }

    #[test]
    fn without_other_copies_those_that_try_a_version_answer() {
        let (stable, canary) = (share(&[], None), canary(&["a"], 0));
        let ways = Ways::choose(&stable, Some(&canary), &HeaderMap::new());
        assert_eq!(asked(&ways), [("a".to_owned(), true)]);
        let ways = Ways::choose(&stable, None, &HeaderMap::new());
        assert_eq!((ways.len(), ways.get(0)), (0, None));
    }
}
