//! The last changes, for watches on every replica. Bounded; persistent, so that a clone is O(1).

use std::sync::Arc;

use imbl::Vector;

use super::{Key, Object};

/// Changes kept. A watcher further behind lists again (410 Gone). At 1 KB an object this is some
/// 8 MB at worst, and objects are shared with the state.
const KEPT_CHANGES: usize = 8192;

/// One committed change of an object. `before` is empty for a creation, `after` for a deletion
/// (`before` then carries the deletion's revision).
#[derive(Debug)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    pub before: Option<Arc<Object>>,
    pub after: Option<Arc<Object>>,
}

/// Changes after the asked revision are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "changes since revision {asked} are no longer kept; the oldest kept follows revision {oldest}"
)]
pub struct Compacted {
    pub asked: u64,
    pub oldest: u64,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    changes: Vector<Arc<Change>>,
    /// Every change after this revision is in `changes`.
    complete_after: u64,
}

impl History {
    /// Of a state that starts at `revision`: nothing before it is known.
    pub(super) fn starting_at(revision: u64) -> Self {
        Self {
            changes: Vector::new(),
            complete_after: revision,
        }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.changes.push_back(Arc::new(change));
        if self.changes.len() > KEPT_CHANGES
            && let Some(dropped) = self.changes.pop_front()
        {
            self.complete_after = dropped.revision;
        }
    }

    pub(super) fn since(
        &self,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Arc<Change>>, Compacted> {
        let oldest = self.complete_after;
        if revision < oldest {
            return Err(Compacted {
                asked: revision,
                oldest,
            });
        }
        let start = self
            .changes
            .binary_search_by(|change| change.revision.cmp(&(revision + 1)))
            .unwrap_or_else(|index| index);
        // By index: an iterator would step over all that a watcher has seen already.
        Ok((start..self.changes.len()).map(|index| &self.changes[index]))
    }
}
