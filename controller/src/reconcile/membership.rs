//! Making Raft's membership follow the controllers that were admitted.

use std::collections::BTreeSet;

use crate::state::{Member, State};
use crate::store::Replica;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// As a learner first; a voter when it has caught up.
    Add {
        id: u64,
        member: Member,
    },
    Remove {
        id: u64,
    },
}

/// At most one step: Raft changes its membership one controller at a time. `tried` was the last
/// that was to be added: one that never starts must not keep those after it out. Pure.
pub fn plan(state: &State, voters: &BTreeSet<u64>, tried: u64) -> Option<Step> {
    let missing = |from: u64| {
        state
            .controllers()
            .find(|(id, _)| *id > from && !voters.contains(id))
            .map(|(id, member)| Step::Add {
                id,
                member: member.clone(),
            })
    };
    missing(tried).or_else(|| missing(0)).or_else(|| {
        let known: BTreeSet<u64> = state.controllers().map(|(id, _)| id).collect();
        voters
            .iter()
            .find(|id| !known.contains(id))
            .map(|id| Step::Remove { id: *id })
    })
}

/// One look of the leader; `tried` is its memory.
pub async fn pass(replica: &Replica, state: &State, tried: &mut u64) {
    let voters = replica.health().voters.into_iter().collect();
    let done = match plan(state, &voters, *tried) {
        None => return,
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Command;

    #[test]
    fn raft_follows_the_state_one_controller_at_a_time() {
        let mut state = State::default();
        for _ in 0..3 {
            let member = Member::default();
            state.apply(Command::AdmitController { member }).unwrap();
        }
        let add = |id| {
            Some(Step::Add {
                id,
                member: Member::default(),
            })
        };
        assert_eq!(plan(&state, &[1].into(), 0), add(2));
        assert_eq!(plan(&state, &[1].into(), 2), add(3), "2 does not start");
        assert_eq!(plan(&state, &[1].into(), 3), add(2), "another try");
        assert_eq!(plan(&state, &[1, 2].into(), 2), add(3));
        assert_eq!(plan(&state, &[1, 2, 3].into(), 3), None);
        state.apply(Command::RemoveController { id: 2 }).unwrap();
        assert_eq!(
            plan(&state, &[1, 2, 3].into(), 3),
            Some(Step::Remove { id: 2 })
        );
    }
}
