//! Making Raft's membership follow the controllers that were admitted.

use std::collections::{BTreeMap, BTreeSet};

use crate::reconcile::Outlook;
use crate::state::{Member, State};
use crate::store::Replica;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// As a learner first; a voter when it has caught up. Of one that votes, its new address.
    Add {
        id: u64,
        member: Member,
    },
    Remove {
        id: u64,
    },
}

/// At most one step: Raft changes its membership one controller at a time. `members` are Raft's,
/// and whether they vote. `tried` was the last that was to be added: one that never starts must not
/// keep those after it out. Pure.
pub fn plan(state: &State, members: &BTreeMap<u64, (Member, bool)>, tried: u64) -> Option<Step> {
    let missing = |from: u64| {
        state
            .controllers()
            .filter(|(id, _)| *id > from)
            .find(|(id, member)| {
                !members
                    .get(id)
                    .is_some_and(|(known, votes)| *votes && known == *member)
            })
            .map(|(id, member)| Step::Add {
                id,
                member: member.clone(),
            })
    };
    missing(tried).or_else(|| missing(0)).or_else(|| {
        let admitted: BTreeSet<u64> = state.controllers().map(|(id, _)| id).collect();
        members
            .keys()
            .find(|id| !admitted.contains(id))
            .map(|id| Step::Remove { id: *id })
    })
}

/// One look of the leader; `tried` is its memory.
pub async fn pass(replica: &Replica, state: &State, tried: &mut u64) -> Outlook {
    let done = match plan(state, &replica.members(), *tried) {
        None => return Outlook::Settled,
        Some(Step::Add { id, member }) => {
            *tried = id;
            tracing::info!(controller = id, "adding controller");
            replica.add_member(id, &member).await
        }
        Some(Step::Remove { id }) => {
            tracing::info!(controller = id, "removing controller");
            replica.remove_member(id).await
        }
    };
    if let Err(error) = done {
        tracing::info!(%error, "membership is not changed yet");
    }
    // There may be another step.
    Outlook::Again
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Command;

    fn admitted(count: u64) -> State {
        let mut state = State::default();
        for _ in 0..count {
            let member = Member::default();
            state.apply(Command::AdmitController { member }).unwrap();
        }
        state
    }

    fn members(voters: &[u64], learners: &[u64]) -> BTreeMap<u64, (Member, bool)> {
        let voters = voters.iter().map(|id| (*id, (Member::default(), true)));
        let learners = learners.iter().map(|id| (*id, (Member::default(), false)));
        voters.chain(learners).collect()
    }

    fn add(id: u64) -> Option<Step> {
        let member = Member::default();
        Some(Step::Add { id, member })
    }

    #[test]
    fn raft_follows_the_state_one_controller_at_a_time() {
        let mut state = admitted(3);
        assert_eq!(plan(&state, &members(&[1], &[]), 0), add(2));
        assert_eq!(plan(&state, &members(&[1], &[2]), 0), add(2));
        assert_eq!(plan(&state, &members(&[1, 2], &[]), 2), add(3));
        assert_eq!(plan(&state, &members(&[1, 2, 3], &[]), 3), None);
        state.apply(Command::RemoveController { id: 2 }).unwrap();
        for members in [members(&[1, 2, 3], &[]), members(&[1, 3], &[2])] {
            assert_eq!(plan(&state, &members, 3), Some(Step::Remove { id: 2 }));
        }
    }

    #[test]
    fn one_that_does_not_start_keeps_nobody_out() {
        let state = admitted(3);
        assert_eq!(plan(&state, &members(&[1], &[2]), 2), add(3));
        assert_eq!(plan(&state, &members(&[1], &[2, 3]), 3), add(2));
    }

    #[test]
    fn raft_is_told_where_a_controller_has_moved() {
        let mut state = admitted(2);
        let member = Member {
            link: "10.0.0.9:7443".into(),
            ..Member::default()
        };
        let command = Command::MoveController {
            id: 2,
            member: member.clone(),
        };
        state.apply(command).unwrap();
        let moved = Some(Step::Add { id: 2, member });
        assert_eq!(plan(&state, &members(&[1, 2], &[]), 2), moved);
    }
}
