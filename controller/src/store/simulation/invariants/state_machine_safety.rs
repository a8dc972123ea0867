//! At each index, the same command is applied everywhere, once, and gives the same state.
//!
//! A model applies what the first machine applied at each index; what every other machine shows at
//! that index must be the model's state.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use openraft::EntryPayload;

use super::log_matching::LogMatching;
use super::{Breach, Sight, breach};
use crate::state::State;
use crate::store::types::{LogId, Payload};

pub struct Committed {
    pub id: LogId,
    payload: Payload,
    state: u64,
    /// After it.
    pub revision: u64,
}

#[derive(Default)]
pub struct StateMachineSafety {
    model: State,
    committed: BTreeMap<u64, Committed>,
    seen: BTreeMap<u64, (Option<LogId>, u64)>,
}

pub type Voters = Vec<BTreeSet<u64>>;

pub fn voters_of(payload: &Payload) -> Option<Voters> {
    match payload {
        EntryPayload::Membership(membership) => Some(membership.get_joint_config().clone()),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    }
}

const NAME: &str = "state_machine_safety";

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut image = Vec::new();
    let written = state.image().write(&mut image);
    written.expect("a Vec takes any write");
    image.hash(&mut hasher);
    hasher.finish()
}

impl StateMachineSafety {
    pub fn restarted(&mut self, id: u64) {
        self.seen.remove(&id);
    }

    pub fn committed(&self) -> &BTreeMap<u64, Committed> {
        &self.committed
    }

    /// The sets of voters as of an index: a majority of each commits.
    pub fn voters(&self, index: u64) -> Voters {
        let before = self.committed.range(..=index).rev();
        before
            .map(|(_, entry)| &entry.payload)
            .find_map(voters_of)
            .unwrap_or_default()
    }

    pub fn observe(&mut self, sight: &Sight, contents: &LogMatching) -> Result<(), Breach> {
        let applied = &sight.applied;
        let Some(last) = applied.last else {
            return Ok(());
        };
        let now = (applied.last, applied.state.revision());
        if self.seen.insert(sight.id, now) == Some(now) {
            return Ok(());
        }
        let from = self
            .committed
            .last_key_value()
            .map_or(0, |(index, _)| index + 1);
        for index in from..=last.index {
            let Some((id, payload)) = sight.log.get(&index) else {
                return breach(
                    NAME,
                    format!(
                        "machine {} applied entry {index} without having it",
                        sight.id
                    ),
                );
            };
            let Some(payload) = contents.payload(*id, payload.as_ref()) else {
                return breach(NAME, format!("nobody knows what entry {id} holds"));
            };
            if let EntryPayload::Normal(proposal) = &payload {
                let command = proposal.decode().expect("what was proposed can be read");
                // Refusals are part of the state machine.
                let _ = self.model.apply(command);
            }
            let committed = Committed {
                id: *id,
                payload,
                state: hash(&self.model),
                revision: self.model.revision(),
            };
            self.committed.insert(index, committed);
        }
        let expected = &self.committed[&last.index];
        if expected.id != last {
            return breach(
                NAME,
                format!(
                    "machine {} applied {last} where others applied {}",
                    sight.id, expected.id
                ),
            );
        }
        if expected.state != hash(&applied.state) {
            return breach(
                NAME,
                format!(
                    "machine {} shows revision {} at {last}, and another state than the model's \
                     of revision {}",
                    sight.id,
                    applied.state.revision(),
                    expected.revision
                ),
            );
        }
        Ok(())
    }
}
