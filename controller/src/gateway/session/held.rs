//! What the agent holds, and what of it goes on as it is although a Secret or ConfigMap that it refers to is gone: as
//! pods do, what runs keeps the values that it began with. What starts anew waits for them, also when the agent does.

use std::collections::BTreeMap;

use hive_proto::v1::Hello;

use crate::gateway::desired::{MISSING_REFERENCE, NodeSet};

type Hash = [u8; 32];

/// The hashes of the assignments that an agent holds, with the uids of those that it runs.
#[derive(Default)]
pub struct Held(BTreeMap<Hash, Option<String>>);

impl Held {
    /// As the agent says when it begins. What it does not name may be sent to it whole, so nothing else is lost
    /// where it lies.
    pub fn told(hello: &Hello) -> Self {
        let uids = hello.held_uids.iter().filter(|_| hello.moved).cloned();
        let uids = uids.map(Some).chain(std::iter::repeat(None));
        let hashes = hello.held.iter().zip(uids);
        let known = hashes.filter_map(|(hash, uid)| Some((Hash::try_from(&**hash).ok()?, uid)));
        Self(known.collect())
    }

    /// After a set was sent to it, and what it kept beside that.
    pub fn of(set: &NodeSet, kept: BTreeMap<Hash, String>) -> Self {
        let sent = set.assignments.iter().map(|one| {
            let uid = one.assignment().uid.clone();
            (one.hash(), uid)
        });
        let all = sent.chain(kept);
        Self(all.map(|(hash, uid)| (hash, Some(uid))).collect())
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.0.contains_key(hash)
    }

    /// Takes out of a set's problems those of assignments that the agent runs, and goes on with.
    pub fn keep(&self, set: &mut NodeSet) -> BTreeMap<Hash, String> {
        let mut kept = BTreeMap::new();
        set.problems.retain(|problem| {
            let mut held = self.0.iter();
            match held.find(|(_, uid)| uid.as_deref() == Some(&*problem.uid)) {
                Some((hash, _)) if problem.reason == MISSING_REFERENCE => {
                    kept.insert(*hash, problem.uid.clone());
                    false
                }
                _ => true,
            }
        });
        kept
    }
}

#[cfg(test)]
mod tests {
    use hive_manifests::Resource;

    use super::*;
    use crate::gateway::desired::Problem;
    use crate::state::Key;

    fn hello(moved: bool) -> Hello {
        Hello {
            held: vec![vec![1; 32], vec![2; 32], vec![3; 7]],
            held_uids: vec!["a".into(), "b".into()],
            moved,
            ..Hello::default()
        }
    }

    fn problem(uid: &str, reason: &'static str) -> Problem {
        Problem {
            key: Key::new(Resource::Assignment, "default", uid),
            uid: uid.into(),
            reason,
            message: String::new(),
        }
    }

    #[test]
    fn what_runs_goes_on_without_what_is_gone_and_what_starts_does_not() {
        let all = || NodeSet {
            problems: vec![
                problem("a", MISSING_REFERENCE),
                problem("b", "InvalidArtifact"),
                problem("new", MISSING_REFERENCE),
            ],
            ..NodeSet::default()
        };
        let mut set = all();
        let kept = Held::told(&hello(true)).keep(&mut set);
        assert_eq!(kept, [([1; 32], "a".to_owned())].into());
        let left: Vec<&str> = set.problems.iter().map(|it| &*it.uid).collect();
        assert_eq!(left, ["b", "new"]);
        // And so it stays after the next set.
        let held = Held::of(&set, kept.clone());
        assert!(held.contains(&[1; 32]) && !held.contains(&[2; 32]));
        assert_eq!(held.keep(&mut all()), kept);

        // An agent that starts anew, and one of the release before.
        for hello in [
            hello(false),
            Hello {
                held_uids: Vec::new(),
                ..hello(true)
            },
        ] {
            let held = Held::told(&hello);
            assert!(held.contains(&[1; 32]) && held.contains(&[2; 32]));
            let mut set = all();
            assert_eq!((held.keep(&mut set), set), (BTreeMap::new(), all()));
        }
    }
}
