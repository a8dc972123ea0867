//! What a log holds, seen from outside and at once: for the simulation's invariants.

use std::collections::BTreeMap;

use crate::store::log::index::Found;
use crate::store::log::{Log, lock};
use crate::store::types::{LogId, Payload};

/// Changes whenever the log does.
pub type LogShape = (Option<LogId>, Option<LogId>, usize);

/// By index; the content where it is in memory.
pub type Entries = BTreeMap<u64, (LogId, Option<Payload>)>;

impl Log {
    pub fn shape(&self) -> LogShape {
        let index = lock(&self.index);
        (index.purged(), index.last(), index.len())
    }

    /// What was purged, and the entries after it.
    pub fn held(&self) -> (Option<LogId>, Entries) {
        let index = lock(&self.index);
        let found = index.read(0, u64::MAX, usize::MAX);
        let entries = found.into_iter().map(|item| match item {
            Found::Cached(entry) => (entry.log_id, Some(entry.payload)),
            Found::OnDisk(id, _) => (id, None),
        });
        (
            index.purged(),
            entries.map(|held| (held.0.index, held)).collect(),
        )
    }
}
