//! What this node must run, as the controllers said last, and the rule by which a newer word is
//! taken: never back in epoch or generation, never two contents for one generation, never unverified.
//!
//! A `Desired` message goes in beside the set that is held; the new set or the reason to refuse it
//! comes out. Nothing here touches a disk or a network.

use std::collections::{BTreeMap, BTreeSet};

use hive_proto::desired::{EncodedAssignment, MAX_ASSIGNMENTS, desired_hash};
use hive_proto::v1;
use hive_proto::v1::desired_entry::Kind;

use crate::ids::{Digest, SlotId};

/// A whole desired set. Generation 0 is that of a node which was never told anything.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredSet {
    /// Of the swarm: higher since it began anew from a backup, whatever the generation is. 0 from
    /// controllers that do not know epochs.
    pub epoch: u64,
    pub generation: u64,
    pub hash: Digest,
    /// In order of (namespace, name).
    pub assignments: Vec<EncodedAssignment>,
}

/// Why an offered set was not taken. The set that is held stays in force.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "generation {offered} is older than {held}, which is held: a controller that lags does this \
         for a moment"
    )]
    Stale { held: u64, offered: u64 },
    #[error(
        "it is of the swarm's epoch {offered}, and this node has heard of epoch {held}: the controller \
         was left behind when the swarm was recovered or restored, and should be stopped"
    )]
    LeftBehind { held: u64, offered: u64 },
    #[error("two different sets are both called generation {generation}: the held one stays")]
    Forked { generation: u64 },
    #[error("it names an assignment by hash {0} that is not held")]
    NotHeld(String),
    #[error("its contents do not have the hash that it names")]
    Hash,
    #[error("it has {0} assignments, and {MAX_ASSIGNMENTS} is the most")]
    TooMany(usize),
    #[error("it has two assignments called {0}")]
    Duplicate(SlotId),
    #[error("one of its entries is empty")]
    EmptyEntry,
    #[error("one of its entries is no assignment")]
    Malformed(#[source] prost::DecodeError),
}

impl DesiredSet {
    /// What a new node starts from.
    pub fn none() -> Self {
        Self {
            epoch: 0,
            generation: 0,
            hash: Digest(desired_hash([])),
            assignments: Vec::new(),
        }
    }

    /// The hashes of the assignments, for a controller to name instead of sending them.
    pub fn held(&self) -> BTreeMap<Digest, EncodedAssignment> {
        self.assignments
            .iter()
            .map(|assignment| (Digest(assignment.hash()), assignment.clone()))
            .collect()
    }

    /// What follows from `offered`: `None` if it is the set that is held.
    pub fn succeed(&self, offered: v1::Desired) -> Result<Option<Self>, Refused> {
        if offered.epoch < self.epoch {
            return Err(Refused::LeftBehind {
                held: self.epoch,
                offered: offered.epoch,
            });
        }
        let same_epoch = offered.epoch == self.epoch;
        if same_epoch && offered.generation < self.generation {
            return Err(Refused::Stale {
                held: self.generation,
                offered: offered.generation,
            });
        }
        let hash = Digest::from_slice(&offered.hash).ok_or(Refused::Hash)?;
        if same_epoch && offered.generation == self.generation {
            return if hash == self.hash {
                Ok(None)
            } else {
                Err(Refused::Forked {
                    generation: self.generation,
                })
            };
        }
        let held = self.held();
        let next = Self::resolve(offered, hash, |hash| held.get(&hash).cloned())?;
        Ok(Some(next))
    }

    /// Reads back what [`DesiredSet::encode`] made.
    pub fn decode(message: v1::Desired) -> Result<Self, Refused> {
        let hash = Digest::from_slice(&message.hash).ok_or(Refused::Hash)?;
        Self::resolve(message, hash, |_| None)
    }

    /// The set as a message that needs no other to be understood.
    pub fn encode(&self) -> v1::Desired {
        v1::Desired {
            epoch: self.epoch,
            generation: self.generation,
            hash: self.hash.0.to_vec(),
            entries: self
                .assignments
                .iter()
                .map(|assignment| v1::DesiredEntry {
                    kind: Some(Kind::Assignment(assignment.encoded().clone())),
                })
                .collect(),
        }
    }

    fn resolve(
        message: v1::Desired,
        hash: Digest,
        held: impl Fn(Digest) -> Option<EncodedAssignment>,
    ) -> Result<Self, Refused> {
        if message.entries.len() > MAX_ASSIGNMENTS {
            return Err(Refused::TooMany(message.entries.len()));
        }
        let mut assignments = message
            .entries
            .into_iter()
            .map(|entry| match entry.kind {
                Some(Kind::Assignment(encoded)) => {
                    EncodedAssignment::decode(encoded).map_err(Refused::Malformed)
                }
                Some(Kind::Hash(bytes)) => Digest::from_slice(&bytes)
                    .and_then(&held)
                    .ok_or_else(|| Refused::NotHeld(hex::encode(&bytes))),
                None => Err(Refused::EmptyEntry),
            })
            .collect::<Result<Vec<_>, _>>()?;
        assignments.sort_by_cached_key(|encoded| SlotId::of(encoded.assignment()));
        let mut slots = BTreeSet::new();
        for assignment in &assignments {
            let slot = SlotId::of(assignment.assignment());
            if !slots.insert(slot.clone()) {
                return Err(Refused::Duplicate(slot));
            }
        }
        if Digest(desired_hash(&assignments)) != hash {
            return Err(Refused::Hash);
        }
        Ok(Self {
            epoch: message.epoch,
            generation: message.generation,
            hash,
            assignments,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn assignment(name: &str, generation: u64) -> v1::Assignment {
        v1::Assignment {
            namespace: "default".into(),
            name: name.into(),
            function: "hello".into(),
            function_generation: generation,
            ..Default::default()
        }
    }

    fn offer(generation: u64, assignments: &[v1::Assignment]) -> v1::Desired {
        let encoded: Vec<_> = assignments
            .iter()
            .map(|assignment| EncodedAssignment::new(assignment.clone()))
            .collect();
        v1::Desired {
            epoch: 0,
            generation,
            hash: desired_hash(&encoded).to_vec(),
            entries: encoded
                .iter()
                .map(|assignment| v1::DesiredEntry {
                    kind: Some(Kind::Assignment(assignment.encoded().clone())),
                })
                .collect(),
        }
    }

    fn by_hash(mut offer: v1::Desired, index: usize) -> v1::Desired {
        let Some(Kind::Assignment(assignment)) = offer.entries[index].kind.take() else {
            panic!("entry {index} is not an assignment");
        };
        let hash = EncodedAssignment::decode(assignment)
            .unwrap()
            .hash()
            .to_vec();
        offer.entries[index].kind = Some(Kind::Hash(hash));
        offer
    }

    #[test]
    fn newer_sets_are_taken_and_hashes_stand_for_what_is_held() {
        let (a, b) = (assignment("a", 1), assignment("b", 1));
        let first = DesiredSet::none()
            .succeed(offer(3, std::slice::from_ref(&a)))
            .unwrap()
            .unwrap();
        let second = first
            .succeed(by_hash(offer(4, &[a.clone(), b.clone()]), 0))
            .unwrap()
            .unwrap();
        let names: Vec<_> = second
            .assignments
            .iter()
            .map(|a| a.assignment().name.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(second.generation, 4);
        assert_eq!(DesiredSet::decode(second.encode()).unwrap(), second);
        assert_eq!(second.succeed(offer(4, &[a, b])).unwrap(), None);
    }

    #[test]
    fn a_swarm_that_began_anew_is_believed_and_the_one_before_is_not() {
        let (a, b) = (assignment("a", 1), assignment("b", 1));
        let held = DesiredSet::none()
            .succeed(offer(500, std::slice::from_ref(&a)))
            .unwrap()
            .unwrap();
        // Restored from a backup: behind in generation, ahead in epoch.
        let mut restored = offer(20, std::slice::from_ref(&b));
        restored.epoch = 1;
        let next = held.succeed(restored.clone()).unwrap().unwrap();
        assert_eq!((next.epoch, next.generation), (1, 20));
        assert_eq!(DesiredSet::decode(next.encode()).unwrap(), next);
        assert_eq!(next.succeed(restored).unwrap(), None);
        let refused = next.succeed(offer(600, std::slice::from_ref(&a)));
        assert_eq!(
            refused.unwrap_err(),
            Refused::LeftBehind {
                held: 1,
                offered: 0
            }
        );
        let mut stale = offer(19, &[a]);
        stale.epoch = 1;
        assert!(matches!(next.succeed(stale), Err(Refused::Stale { .. })));
    }

    #[test]
    fn stale_forked_and_false_sets_are_refused() {
        let a = assignment("a", 1);
        let held = DesiredSet::none()
            .succeed(offer(5, std::slice::from_ref(&a)))
            .unwrap()
            .unwrap();
        let refused = |offer| held.succeed(offer).unwrap_err();

        assert_eq!(
            refused(offer(4, &[])),
            Refused::Stale {
                held: 5,
                offered: 4
            }
        );
        assert_eq!(refused(offer(5, &[])), Refused::Forked { generation: 5 });
        let mut lying = offer(6, std::slice::from_ref(&a));
        lying.hash = vec![7; 32];
        assert_eq!(refused(lying), Refused::Hash);
        let other = by_hash(offer(6, &[assignment("z", 1)]), 0);
        assert!(matches!(refused(other), Refused::NotHeld(_)));
        assert_eq!(
            refused(offer(6, &[a.clone(), a])),
            Refused::Duplicate(SlotId::new("default", "a"))
        );
        let mut rubbish = offer(6, &[]);
        rubbish.entries.push(v1::DesiredEntry {
            kind: Some(Kind::Assignment(vec![0xff].into())),
        });
        assert!(matches!(refused(rubbish), Refused::Malformed(_)));
        let empty = v1::DesiredEntry { kind: None };
        let mut hollow = offer(6, &[]);
        hollow.entries.push(empty);
        assert_eq!(refused(hollow), Refused::EmptyEntry);
    }
}
