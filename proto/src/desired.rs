//! How desired state travels and is named: by SHA-256 of the bytes that the controller sent.
//!
//! An assignment is encoded once, where it is made. Whoever passes it on, keeps it or compares it
//! uses those bytes: an older release decodes less of them, and still comes to the same hash.

use std::sync::Arc;

use bytes::Bytes;
use prost::{DecodeError, Message};
use sha2::{Digest, Sha256};

use crate::v1::Assignment;

/// What the CA's signature of an artifact's description covers besides it, so that no signature
/// made for another end passes for one.
pub const ARTIFACT_CONTEXT: &str = "hive.artifact.v1";

/// Assignments of one node, at most; it refuses a set of more. What is bounded is the memory that a broken
/// controller can make an agent spend.
pub const MAX_ASSIGNMENTS: usize = 1024;

/// An assignment with its encoding and the hash of that. Cloning shares all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedAssignment {
    encoded: Bytes,
    hash: [u8; 32],
    assignment: Arc<Assignment>,
}

impl EncodedAssignment {
    pub fn new(assignment: Assignment) -> Self {
        let encoded = assignment.encode_to_vec();
        Self {
            hash: Sha256::digest(&encoded).into(),
            encoded: encoded.into(),
            assignment: Arc::new(assignment),
        }
    }

    /// # Errors
    /// When the bytes are no assignment.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        Ok(Self {
            assignment: Arc::new(Assignment::decode(encoded.clone())?),
            hash: Sha256::digest(&encoded).into(),
            encoded,
        })
    }

    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// As a `DesiredEntry` refers to it.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What this release understands of it.
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }
}

/// SHA-256 of a whole set: of its assignments' hashes, sorted. The order of assignments does not
/// count, and hashing hashes keeps it cheap for a set of which most is known already.
pub fn desired_hash<'a>(set: impl IntoIterator<Item = &'a EncodedAssignment>) -> [u8; 32] {
    hash_of_hashes(set.into_iter().map(EncodedAssignment::hash))
}

/// The same of a set of which only the hashes are known.
pub fn hash_of_hashes(hashes: impl IntoIterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hashes: Vec<[u8; 32]> = hashes.into_iter().collect();
    hashes.sort_unstable();
    let mut hasher = Sha256::new();
    for hash in hashes {
        hasher.update(hash);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn assignment(namespace: &str, name: &str, env: &[(&str, &str)]) -> EncodedAssignment {
        EncodedAssignment::new(Assignment {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            env: env
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Default::default()
        })
    }

    proptest! {
        #[test]
        fn order_does_not_count(names in prop::collection::btree_set("[ab]{1,3}", 0..6), seed: u64) {
            let ordered: Vec<_> = names.iter().map(|name| assignment("default", name, &[])).collect();
            let mut turned = ordered.clone();
            turned.rotate_left(seed as usize % ordered.len().max(1));
            turned.reverse();
            prop_assert_eq!(desired_hash(&ordered), desired_hash(&turned));
        }

        #[test]
        fn survives_the_wire(env in prop::collection::btree_map("[A-Z]{1,4}", ".{0,8}", 0..5)) {
            let sent = EncodedAssignment::new(Assignment { env, ..Default::default() });
            let received = EncodedAssignment::decode(sent.encoded().clone()).unwrap();
            prop_assert_eq!(sent, received);
        }
    }

    #[test]
    fn content_counts() {
        let a = assignment("default", "a", &[("X", "1"), ("Y", "2")]);
        let same = assignment("default", "a", &[("Y", "2"), ("X", "1")]);
        let other_value = assignment("default", "a", &[("X", "1"), ("Y", "3")]);
        let other_namespace = assignment("prod", "a", &[("X", "1"), ("Y", "2")]);
        assert_eq!(a.hash(), same.hash());
        assert_ne!(a.hash(), other_value.hash());
        assert_ne!(a.hash(), other_namespace.hash());
        assert_ne!(desired_hash([]), desired_hash([&a]));
        assert_ne!(desired_hash([&a]), desired_hash([&a, &a]));
    }

    #[test]
    fn fields_of_a_later_release_are_kept_and_hashed() {
        let mut later = Assignment {
            name: "a".into(),
            ..Default::default()
        }
        .encode_to_vec();
        // Field 200, a varint.
        later.extend([0xc0, 0x0c, 0x07]);
        let received = EncodedAssignment::decode(later.clone().into()).unwrap();
        assert_eq!(received.assignment().name, "a");
        assert_eq!(received.encoded(), &later);
        assert_eq!(received.hash(), <[u8; 32]>::from(Sha256::digest(&later)));
    }

    /// Both ends may be of different releases: the hash is part of the protocol.
    #[test]
    fn the_hash_is_the_one_of_the_first_release() {
        assert_eq!(
            desired_hash([]),
            <[u8; 32]>::from(Sha256::digest(b"")),
            "an empty set"
        );
        let hash: [u8; 32] = Sha256::digest(b"\x0a\x01n\x12\x01a").into();
        let one = assignment("n", "a", &[]);
        assert_eq!(one.hash(), hash);
        assert_eq!(desired_hash([&one]), <[u8; 32]>::from(Sha256::digest(hash)));
    }
}
