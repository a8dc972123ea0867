//! How desired state is named: by SHA-256 of what its protobuf encoding says.
//! A controller and an agent must come to the same hash for the same content, so the order of
//! assignments doesn't count and maps are encoded in the order of their keys.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1::Assignment;

/// What the CA's signature of an artifact's description covers besides it, so that no signature
/// made for another end passes for one.
pub const ARTIFACT_CONTEXT: &str = "hive.artifact.v1";

/// SHA-256 of one assignment, as a `DesiredEntry` refers to it.
pub fn assignment_hash(assignment: &Assignment) -> [u8; 32] {
    Sha256::digest(assignment.encode_to_vec()).into()
}

/// SHA-256 of a whole set: of its assignments' hashes in the order of (namespace, name).
/// Hashing hashes keeps it as cheap for a set of which most is known already.
pub fn desired_hash(assignments: &[Assignment]) -> [u8; 32] {
    let mut ordered: Vec<&Assignment> = assignments.iter().collect();
    ordered.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut hasher = Sha256::new();
    for assignment in ordered {
        hasher.update(assignment_hash(assignment));
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn assignment(namespace: &str, name: &str, env: &[(&str, &str)]) -> Assignment {
        Assignment {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            env: env
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Default::default()
        }
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
        fn survives_the_wire(namespace in "[a-z]{0,5}", name in "[a-z]{0,5}", env in prop::collection::btree_map("[A-Z]{1,4}", ".{0,8}", 0..5)) {
            let sent = Assignment { namespace, name, env, ..Default::default() };
            let received = Assignment::decode(&sent.encode_to_vec()[..]).unwrap();
            prop_assert_eq!(assignment_hash(&sent), assignment_hash(&received));
        }
    }

    #[test]
    fn content_counts() {
        let a = assignment("default", "a", &[("X", "1"), ("Y", "2")]);
        let same = assignment("default", "a", &[("Y", "2"), ("X", "1")]);
        let other_value = assignment("default", "a", &[("X", "1"), ("Y", "3")]);
        let other_namespace = assignment("prod", "a", &[("X", "1"), ("Y", "2")]);
        assert_eq!(assignment_hash(&a), assignment_hash(&same));
        assert_ne!(assignment_hash(&a), assignment_hash(&other_value));
        assert_ne!(assignment_hash(&a), assignment_hash(&other_namespace));
        assert_ne!(desired_hash(&[]), desired_hash(std::slice::from_ref(&a)));
        assert_ne!(
            desired_hash(std::slice::from_ref(&a)),
            desired_hash(&[a.clone(), a])
        );
    }

    /// Both ends may be of different releases: the hash is part of the protocol.
    #[test]
    fn the_hash_is_the_one_of_the_first_release() {
        assert_eq!(
            desired_hash(&[]),
            <[u8; 32]>::from(Sha256::digest(b"")),
            "an empty set"
        );
        let encoded = b"\x0a\x01n\x12\x01a";
        let hash: [u8; 32] = Sha256::digest(encoded).into();
        assert_eq!(assignment_hash(&assignment("n", "a", &[])), hash);
        assert_eq!(
            desired_hash(&[assignment("n", "a", &[])]),
            <[u8; 32]>::from(Sha256::digest(hash))
        );
    }
}
