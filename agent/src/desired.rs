//! What this node must run, as the controllers said last, and the rule by which a newer word is
//! taken: never back in generation, never two contents for one generation, never unverified.
//!
//! A `Desired` message goes in beside the set that is held; the new set or the reason to refuse it
//! comes out. Nothing here touches a disk or a network.

use std::collections::{BTreeMap, BTreeSet};

use hive_proto::desired::{EncodedAssignment, desired_hash};
use hive_proto::v1;
use hive_proto::v1::desired_entry::Kind;

use crate::ids::{Digest, SlotId};

/// Far beyond what one machine runs; what is bounded is the memory that a broken controller can
/// make an agent spend.
pub const MAX_ASSIGNMENTS: usize = 1024;

/// A whole desired set. Generation 0 is that of a node which was never told anything.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredSet {
    pub generation: u64,
    pub hash: Digest,
    /// In order of (namespace, name).
    pub assignments: Vec<EncodedAssignment>,
}

/// Why an offered set was not taken. The set that is held stays in force.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "generation {offered} is older than {held}, which is held. A controller that lags does this \
         for a moment; if the swarm was restored from a backup, remove the agent's ledger.redb"
    )]
    Stale { held: u64, offered: u64 },
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
        if offered.generation < self.generation {
            return Err(Refused::Stale {
                held: self.generation,
                offered: offered.generation,
            });
        }
        let hash = Digest::from_slice(&offered.hash).ok_or(Refused::Hash)?;
        if offered.generation == self.generation {
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
