//! At most one leader of each vote. openraft counts votes by term and node, so that a term may see
//! a second leader, with the greater vote; what may not be is the same vote won twice.

use std::collections::BTreeMap;

use super::{Breach, Sight, breach};
use crate::store::types::LeaderId;

#[derive(Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<LeaderId, (u64, u64)>,
}

impl ElectionSafety {
    pub fn observe(&mut self, sight: &Sight) -> Result<(), Breach> {
        let Some(leader) = sight.leads else {
            return Ok(());
        };
        let now = (sight.id, sight.incarnation);
        let first = *self.leaders.entry(leader).or_insert(now);
        if first == now {
            return Ok(());
        }
        breach(
            "election_safety",
            format!(
                "vote {leader:?} was won by machine {} (start {}) and by machine {} (start {})",
                first.0, first.1, now.0, now.1
            ),
        )
    }
}
