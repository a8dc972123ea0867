//! A machine's revision never goes back while it runs.

use std::collections::BTreeMap;

use super::{Breach, Sight, breach};

#[derive(Default)]
pub struct MonotonicRevisions {
    seen: BTreeMap<u64, (u64, u64)>,
}

impl MonotonicRevisions {
    pub fn observe(&mut self, sight: &Sight) -> Result<(), Breach> {
        let revision = sight.applied.state.revision();
        let before = self.seen.insert(sight.id, (sight.incarnation, revision));
        match before {
            Some((incarnation, before))
                if incarnation == sight.incarnation && before > revision =>
            {
                breach(
                    "monotonic_revisions",
                    format!("machine {} went from {before} back to {revision}", sight.id),
                )
            }
            _ => Ok(()),
        }
    }
}
