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

/// At most one step: Raft changes its membership one controller at a time. Pure.
pub fn plan(state: &State, voters: &BTreeSet<u64>) -> Option<Step> {
    let missing = state
        .controllers()
        .find(|(id, _)| !voters.contains(id))
        .map(|(id, member)| Step::Add {
            id,
            member: member.clone(),
        });
    missing.or_else(|| {
        let known: BTreeSet<u64> = state.controllers().map(|(id, _)| id).collect();
        voters
            .iter()
            .find(|id| !known.contains(id))
            .map(|id| Step::Remove { id: *id })
    })
}

/// One look of the leader.
pub async fn pass(replica: &Replica, state: &State) {
    let voters = replica.health().voters.into_iter().collect();
    let done = match plan(state, &voters) {
        None => return,
        Some(Step::Add { id, member }) => {
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
        assert_eq!(plan(&state, &[1].into()), add(2));
        assert_eq!(plan(&state, &[1, 2].into()), add(3));
        assert_eq!(plan(&state, &[1, 2, 3].into()), None);
        state.apply(Command::RemoveController { id: 2 }).unwrap();
        assert_eq!(
            plan(&state, &[1, 2, 3].into()),
            Some(Step::Remove { id: 2 })
        );
    }
}
