//! Entries of the same index and leader are the same everywhere, and so is all before them.

use std::collections::BTreeMap;

use super::state_machine_safety::{Voters, voters_of};
use super::{Breach, Sight, breach};
use crate::store::log::tests::held::Entries;
use crate::store::types::{LogId, Payload};

#[derive(Default)]
pub struct LogMatching {
    /// What each entry holds, and which one comes before it.
    known: BTreeMap<LogId, Known>,
    /// The log of each machine as it was last seen.
    seen: BTreeMap<u64, BTreeMap<u64, LogId>>,
}

struct Known {
    content: Option<Payload>,
    before: Option<LogId>,
}

impl LogMatching {
    /// What an entry holds: known since it was first appended anywhere.
    pub fn payload(&self, id: LogId, here: Option<&Payload>) -> Option<Payload> {
        here.or(self.known.get(&id)?.content.as_ref()).cloned()
    }

    /// The voters that any log names behind an index: they count from when they are appended.
    pub fn voters_behind(&self, index: u64) -> Vec<Voters> {
        let behind = self.known.iter().filter(|(id, _)| id.index > index);
        behind
            .filter_map(|(_, known)| voters_of(known.content.as_ref()?))
            .collect()
    }

    pub fn restarted(&mut self, id: u64) {
        self.seen.remove(&id);
    }

    pub fn observe(&mut self, sight: &Sight) -> Result<(), Breach> {
        let seen = self.seen.entry(sight.id).or_default();
        if seen.last_key_value().map(|(_, id)| *id) == last(&sight.log)
            && seen.len() == sight.log.len()
        {
            return Ok(());
        }
        let mut before = sight.purged;
        for (index, (id, payload)) in &sight.log {
            if before.is_some_and(|before| before.index + 1 != *index || before >= *id) {
                return breach(
                    "log_matching",
                    format!("machine {}: {id} follows {before:?}", sight.id),
                );
            }
            if seen.get(index) != Some(id) {
                let found = Known {
                    content: payload.clone(),
                    before,
                };
                match self.known.get_mut(id) {
                    None => drop(self.known.insert(*id, found)),
                    Some(known) => {
                        if differ(&known.before, &before) || differ(&known.content, &found.content)
                        {
                            return breach(
                                "log_matching",
                                format!(
                                    "machine {}: entry {id} after {before:?} is another than the \
                                     one seen before, after {:?}",
                                    sight.id, known.before
                                ),
                            );
                        }
                        known.before = known.before.or(before);
                        if known.content.is_none() {
                            known.content = found.content;
                        }
                    }
                }
            }
            before = Some(*id);
        }
        *seen = sight
            .log
            .iter()
            .map(|(index, (id, _))| (*index, *id))
            .collect();
        Ok(())
    }
}

/// Where both are known.
fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_some() && b.is_some() && a != b
}

fn last(log: &Entries) -> Option<LogId> {
    log.last_key_value().map(|(_, (id, _))| *id)
}
