//! Which artifacts are on nodes' disks. Each controller hears it of the nodes whose session it has, and tells the
//! leader with its presence; the scheduler prefers nodes that need not fetch what a copy runs.
//!
//! Soft state: nothing of it is written anywhere. Where nothing is known nothing is preferred.

use std::sync::{Arc, Mutex, MutexGuard};

use hive_proto::holdings::{AT_MOST, prefix_of_hex};
use hive_proto::v1::NodeHoldings;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// Nodes in one report, of 4 KiB each at most: a message may have four times as much. What is beyond is told
/// with the next, a moment later.
pub const MAX_NODES: usize = 256;

/// The artifacts of one node, in order.
pub type Artifacts = Arc<[u64]>;

/// What nodes hold, and from whom it was heard: a session, a controller. Cloning shares all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Holdings<S>(OrdMap<String, (S, Artifacts)>);

impl<S> Default for Holdings<S> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

/// As a node may have told it: in order, each once, and no more than a node tells.
pub fn bounded(mut artifacts: Vec<u64>) -> Artifacts {
    artifacts.truncate(AT_MOST);
    artifacts.sort_unstable();
    artifacts.dedup();
    artifacts.into()
}

pub fn contains(artifacts: &[u64], sha256: &str) -> bool {
    prefix_of_hex(sha256).is_some_and(|prefix| artifacts.binary_search(&prefix).is_ok())
}

impl<S: Clone + PartialEq> Holdings<S> {
    pub fn of(&self, node: &str) -> Option<&Artifacts> {
        self.0.get(node).map(|(_, artifacts)| artifacts)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last word about a node counts, whoever has it.
    pub fn hear(&mut self, from: S, node: &str, artifacts: Artifacts) {
        self.0.insert(node.to_owned(), (from, artifacts));
    }

    /// Unless somebody else has told of the node since.
    pub fn forget(&mut self, from: &S, node: &str) {
        if self.0.get(node).is_some_and(|(teller, _)| teller == from) {
            self.0.remove(node);
        }
    }

    fn forget_all(&mut self, from: &S) {
        let told = self.0.iter().filter(|(_, (teller, _))| teller == from);
        let nodes: Vec<String> = told.map(|(node, _)| node.clone()).collect();
        for node in nodes {
            self.0.remove(&node);
        }
    }

    /// What to tell somebody who knows this much so that they know `now`: of [`MAX_NODES`] nodes at most. Also what
    /// they know then.
    pub fn until(&self, now: &Self) -> (Vec<NodeHoldings>, Self) {
        let mut told = Vec::new();
        let mut known = self.clone();
        for item in self.0.diff(&now.0) {
            if told.len() == MAX_NODES {
                return (told, known);
            }
            let (node, artifacts) = match item {
                DiffItem::Add(node, held)
                | DiffItem::Update {
                    new: (node, held), ..
                } => {
                    known.0.insert(node.clone(), held.clone());
                    (node, held.1.to_vec())
                }
                DiffItem::Remove(node, _) => {
                    known.0.remove(node);
                    (node, Vec::new())
                }
            };
            told.push(NodeHoldings {
                node: node.clone(),
                artifacts,
            });
        }
        // The same tree: the next difference is found without looking at it.
        (told, now.clone())
    }
}

/// What the leader heard of all controllers. A clone is the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Holdings<u64>>>);

impl Heard {
    /// Takes a part of a controller's report; `anew` if there is none that it builds upon.
    pub fn heard(&self, controller: u64, told: Vec<NodeHoldings>, anew: bool) {
        let mut holdings = self.lock();
        if anew {
            holdings.forget_all(&controller);
        }
        for NodeHoldings { node, artifacts } in told.into_iter().take(MAX_NODES) {
            match artifacts.is_empty() {
                true => holdings.forget(&controller, &node),
                false => holdings.hear(controller, &node, bounded(artifacts)),
            }
        }
    }

    pub fn now(&self) -> Holdings<u64> {
        self.lock().clone()
    }

    /// Forgets everything: what was heard in an earlier term as leader says nothing now.
    pub fn clear(&self) {
        *self.lock() = Holdings::default();
    }

    fn lock(&self) -> MutexGuard<'_, Holdings<u64>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(node: &str, artifacts: &[u64]) -> NodeHoldings {
        NodeHoldings {
            node: node.to_owned(),
            artifacts: artifacts.to_vec(),
        }
    }

    #[test]
    fn what_a_node_tells_is_put_in_order_and_cut() {
        assert_eq!(*bounded(vec![3, 1, 3]), [1, 3]);
        assert_eq!(bounded((0..10_000).collect()).len(), AT_MOST);
        let digest = format!("{:016x}{}", 3, "0".repeat(48));
        assert!(contains(&[1, 3], &digest) && !contains(&[1, 2], &digest));
        assert!(!contains(&[0], "") && !contains(&[0], "no digest, but long"));
    }

    #[test]
    fn whoever_told_last_of_a_node_is_believed_and_only_they_take_it_back() {
        let heard = Heard::default();
        heard.heard(1, vec![told("a", &[1]), told("b", &[1])], true);
        // The node went to another controller, of which the first hears later.
        heard.heard(2, vec![told("a", &[2])], true);
        heard.heard(1, vec![told("a", &[])], false);
        assert_eq!(heard.now().of("a").map(|it| &**it), Some(&[2][..]));
        // One that begins anew says all that it knows.
        heard.heard(1, Vec::new(), true);
        assert_eq!(heard.now().of("b"), None);
        assert!(heard.now().of("a").is_some());
        heard.clear();
        assert!(heard.now().is_empty());
    }

    #[test]
    fn what_a_report_has_no_room_for_is_in_the_next() {
        let (heard, mut now) = (Heard::default(), Holdings::default());
        for index in 0..=MAX_NODES {
            now.hear((), &index.to_string(), bounded(vec![1]));
        }
        let (first, known) = Holdings::default().until(&now);
        assert_eq!(first.len(), MAX_NODES);
        let (second, known) = known.until(&now);
        assert_eq!(second.len(), 1);
        assert_eq!(known.until(&now).0, []);
        heard.heard(1, first, true);
        heard.heard(1, second, false);
        assert_eq!(heard.now().0.len(), MAX_NODES + 1);
    }

    proptest! {
        /// However nodes come, go and change: who is told each difference knows what is.
        #[test]
        fn the_leader_holds_what_the_session_heard(
            rounds in prop::collection::vec(prop::collection::btree_map("[a-d]", prop::collection::vec(1u64..4, 1..3), 0..4), 1..8),
        ) {
            let (heard, mut known) = (Heard::default(), Holdings::default());
            for (round, nodes) in rounds.into_iter().enumerate() {
                let mut now = Holdings::default();
                for (node, artifacts) in nodes {
                    now.hear((), &node, bounded(artifacts));
                }
                let (told, next) = known.until(&now);
                heard.heard(1, told, round == 0);
                known = next;
                let expected: Vec<_> = now.0.iter().map(|(node, (_, held))| (node.clone(), held.clone())).collect();
                let found = heard.now();
                let found: Vec<_> = found.0.iter().map(|(node, (_, held))| (node.clone(), held.clone())).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
