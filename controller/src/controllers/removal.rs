//! Whether a controller may go. Pure.

use std::collections::BTreeMap;

/// What is known of a controller when another, or it, is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub votes: bool,
    /// It answered the leader within the last heartbeats.
    pub up: bool,
}

/// Why a controller may not go, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalRefused {
    #[error(
        "controller {id} is the last one: the swarm's state would go with it. Add another first \
         (`hivectl token create --kind controller-join`, then `hive controller join` on the new machine)"
    )]
    Last { id: u64 },
    #[error(
        "without controller {id} there would be {voters} voters, of which {needed} must be up to agree, \
         and {up} would be: start {} again first, or remove what is dead before what is alive. \
         --force removes it all the same, and the swarm may stop taking writes",
        controllers(down)
    )]
    Majority {
        id: u64,
        voters: usize,
        needed: usize,
        up: usize,
        down: Vec<u64>,
    },
}

fn controllers(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    match ids.as_slice() {
        [one] => format!("controller {one}"),
        many => format!("controllers {}", many.join(" and ")),
    }
}

/// Refuses a removal after which fewer voters would be up than must agree. Never the last controller,
/// forced or not. `controllers` are all that were admitted.
pub fn check(
    controllers: &BTreeMap<u64, Seen>,
    id: u64,
    force: bool,
) -> Result<(), RemovalRefused> {
    let votes = |id: &u64| controllers.get(id).is_some_and(|seen| seen.votes);
    let left: Vec<(u64, bool)> = controllers
        .iter()
        .filter(|(other, seen)| **other != id && seen.votes)
        .map(|(id, seen)| (*id, seen.up))
        .collect();
    if left.is_empty() {
        return Err(RemovalRefused::Last { id });
    }
    // Whoever has no vote is missed by no majority.
    if force || !votes(&id) {
        return Ok(());
    }
    let needed = left.len() / 2 + 1;
    let up = left.iter().filter(|(_, up)| *up).count();
    if up < needed {
        return Err(RemovalRefused::Majority {
            id,
            voters: left.len(),
            needed,
            up,
            down: left
                .iter()
                .filter(|(_, up)| !up)
                .map(|(id, _)| *id)
                .collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn swarm(voters: &[(u64, bool)], learners: &[u64]) -> BTreeMap<u64, Seen> {
        let voters = voters.iter().map(|(id, up)| {
            (
                *id,
                Seen {
                    votes: true,
                    up: *up,
                },
            )
        });
        let learners = learners.iter().map(|id| {
            let seen = Seen {
                votes: false,
                up: false,
            };
            (*id, seen)
        });
        voters.chain(learners).collect()
    }

    #[test]
    fn a_majority_of_those_that_stay_must_be_up() {
        let all_up = swarm(&[(1, true), (2, true), (3, true)], &[]);
        assert_eq!(check(&all_up, 3, false), Ok(()));
        let one_down = swarm(&[(1, true), (2, true), (3, false)], &[]);
        assert_eq!(check(&one_down, 3, false), Ok(()), "the dead one may go");
        let refused = check(&one_down, 2, false).unwrap_err();
        assert_eq!(
            refused,
            RemovalRefused::Majority {
                id: 2,
                voters: 2,
                needed: 2,
                up: 1,
                down: vec![3]
            }
        );
        assert!(
            refused
                .to_string()
                .contains("start controller 3 again first")
        );
        assert_eq!(check(&one_down, 2, true), Ok(()), "forced");
    }

    #[test]
    fn the_last_one_never_goes_and_one_without_a_vote_always_may() {
        let alone = swarm(&[(1, true)], &[2]);
        assert_eq!(check(&alone, 1, true), Err(RemovalRefused::Last { id: 1 }));
        assert_eq!(check(&alone, 2, false), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_allowed_leaves_a_majority_up(
            voters in proptest::collection::btree_map(1u64..8, any::<bool>(), 1..7),
            id in 1u64..8,
        ) {
            let voters: Vec<_> = voters.into_iter().collect();
            let before = swarm(&voters, &[]);
            if before.contains_key(&id) && check(&before, id, false).is_ok() {
                let after: Vec<_> = voters.iter().filter(|(other, _)| *other != id).collect();
                let up = after.iter().filter(|(_, up)| *up).count();
                prop_assert!(up > after.len() / 2);
            }
        }
    }
}
