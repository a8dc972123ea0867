//! The last changes, for watches on every replica. Bounded; persistent, so that a clone is O(1).

use std::sync::Arc;

use imbl::Vector;

use super::{Key, Object};

/// Changes kept. A watcher further behind lists again (410 Gone). To undo as many for a list of the
/// past takes some 50 ms, which is what a page of a list may cost at worst.
const KEPT_CHANGES: usize = 65_536;

/// Memory that the history may take beyond the objects that the state holds anyway: a twentieth of
/// what a controller with 1 GB has. At 1 KB an object it is reached with the number of changes;
/// larger objects are remembered for a shorter time.
const KEPT_BYTES: usize = 64 << 20;

/// What a change takes beside its objects: itself, its key's two names, and its place.
const CHANGE_BYTES: usize = 256;

/// One committed change of an object. `before` is empty for a creation, `after` for a deletion.
#[derive(Debug)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    /// As it was, with the revision that it had.
    pub before: Option<Arc<Object>>,
    pub after: Option<Arc<Object>>,
    /// Of a deletion: the object as it was, with the deletion's revision. Watchers see this.
    pub tombstone: Option<Arc<Object>>,
}

impl Change {
    /// Bytes that only the history holds. What a change made is not among them: it is in the state,
    /// or a later change has it as what was before.
    fn bytes(&self) -> usize {
        let held = [&self.before, &self.tombstone];
        CHANGE_BYTES
            + held
                .into_iter()
                .flatten()
                .map(|object| object.size())
                .sum::<usize>()
    }
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
    /// The sum over `changes`.
    bytes: usize,
    /// Every change after this revision is in `changes`.
    complete_after: u64,
}

impl History {
    /// Of a state that starts at `revision`: nothing before it is known.
    pub(super) fn starting_at(revision: u64) -> Self {
        Self {
            changes: Vector::new(),
            bytes: 0,
            complete_after: revision,
        }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back(Arc::new(change));
        while (self.changes.len() > KEPT_CHANGES || self.bytes > KEPT_BYTES)
            && let Some(dropped) = self.changes.pop_front()
        {
            self.bytes -= dropped.bytes();
            self.complete_after = dropped.revision;
        }
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.changes.len(), self.bytes)
    }

    pub(super) fn complete_after(&self) -> u64 {
        self.complete_after
    }

    pub(super) fn since(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Arc<Change>>, Compacted> {
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
