//! A leader has every entry that was committed under an earlier vote.

use std::collections::BTreeMap;

use super::state_machine_safety::Committed;
use super::{Breach, Sight, breach};
use crate::store::types::LeaderId;

pub fn check(
    sight: &Sight,
    leader: LeaderId,
    committed: &BTreeMap<u64, Committed>,
) -> Result<(), Breach> {
    let held = |index: u64| sight.log.get(&index).map(|(id, _)| *id);
    for (index, entry) in committed {
        let removed = sight.purged.is_some_and(|purged| purged.index >= *index);
        if entry.id.leader_id < leader && !removed && held(*index) != Some(entry.id) {
            return breach(
                "leader_completeness",
                format!(
                    "machine {} leads with {leader:?}, but has {:?} where {} was committed",
                    sight.id,
                    held(*index),
                    entry.id
                ),
            );
        }
    }
    Ok(())
}
