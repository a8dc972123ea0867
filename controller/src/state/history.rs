//! The last changes, for watches on every replica. Bounded; persistent, so that a clone is O(1).

use std::collections::HashMap;
use std::sync::Arc;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::objects::Objects;
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

/// Of these, so many go into a snapshot: for clients that were connected to a controller which
/// starts again from one. What it replays of the log behind the snapshot is remembered anyway, so this
/// only has to cover the time that such a client is away, at some hundred changes a second.
const RECENT_CHANGES: usize = 4_096;

/// And so many bytes: a snapshot of a small swarm takes some milliseconds longer, one of a large swarm
/// is twenty times larger.
const RECENT_BYTES: usize = 4 << 20;

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

/// The last changes as a snapshot holds them. What each made is not in it: the next change of that
/// object has it as what was before, or the state has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recent {
    /// Every change after this revision is in it.
    after: u64,
    changes: Vec<Past>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Past {
    revision: u64,
    key: Key,
    before: Option<Arc<Object>>,
}

impl Recent {
    /// The changes, the last one first. `None` where they cannot have led to these objects.
    fn made(&self, objects: &Objects, revision: u64) -> Option<Vec<Change>> {
        let mut changes = Vec::with_capacity(self.changes.len());
        let mut later: HashMap<&Key, Option<&Arc<Object>>> = HashMap::new();
        if self.after > revision {
            return None;
        }
        let mut bound = revision.checked_add(1)?;
        for Past {
            revision,
            key,
            before,
        } in self.changes.iter().rev()
        {
            let after = later.insert(key, before.as_ref());
            let after = after.unwrap_or_else(|| objects.get(key));
            let fits = |object: &Arc<Object>| object.key() == key && object.revision() < *revision;
            let is_possible = *revision > self.after
                && *revision < bound
                && before.as_ref().is_none_or(fits)
                && after.map_or(before.is_some(), |after| after.revision() == *revision);
            if !is_possible {
                return None;
            }
            bound = *revision;
            let gone = before.as_ref().filter(|_| after.is_none());
            changes.push(Change {
                revision: *revision,
                key: key.clone(),
                before: before.clone(),
                after: after.cloned(),
                tombstone: gone.map(|last| Arc::new(last.at(*revision))),
            });
        }
        Some(changes)
    }
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

    /// What a snapshot takes along.
    pub(super) fn recent(&self) -> Recent {
        let (mut first, mut bytes) = (self.changes.len(), 0);
        while let Some(at) = first.checked_sub(1) {
            bytes += self.changes[at].bytes();
            if bytes > RECENT_BYTES || self.changes.len() - at > RECENT_CHANGES {
                break;
            }
            first = at;
        }
        let after = first.checked_sub(1).map(|at| self.changes[at].revision);
        let changes = (first..self.changes.len()).map(|at| {
            let change = &self.changes[at];
            Past {
                revision: change.revision,
                key: change.key.clone(),
                before: change.before.clone(),
            }
        });
        Recent {
            after: after.unwrap_or(self.complete_after),
            changes: changes.collect(),
        }
    }

    /// Of a state at `revision` with these objects. What contradicts them is forgotten: whoever watches
    /// lists again.
    pub(super) fn of(recent: &Recent, objects: &Objects, revision: u64) -> Self {
        let Some(changes) = recent.made(objects, revision) else {
            return Self::starting_at(revision);
        };
        let mut history = Self::starting_at(recent.after);
        for change in changes.into_iter().rev() {
            history.push(change);
        }
        history
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::json;

    use super::*;

    fn object(name: &str, revision: u64, bytes: usize) -> Arc<Object> {
        let key = Key::new(Resource::ConfigMap, "a", name);
        let body = json!({ "metadata": { "name": name }, "data": "x".repeat(bytes) });
        Arc::new(Object::new(key, body, revision))
    }

    /// One object, changed at each of the revisions from 1 on.
    fn changed(times: u64, bytes: usize) -> (History, Objects) {
        let mut history = History::default();
        let mut before = None;
        for revision in 1..=times {
            let after = object("o", revision, bytes);
            history.push(Change {
                revision,
                key: after.key().clone(),
                before: before.replace(after.clone()),
                after: Some(after),
                tombstone: None,
            });
        }
        (history, before.into_iter().collect())
    }

    #[test]
    fn a_snapshot_takes_few_changes_along() {
        for (times, bytes, expected) in [
            (10, 0, 10),
            (RECENT_CHANGES as u64 + 500, 0, RECENT_CHANGES),
            (20, 1 << 20, 3),
        ] {
            let (history, objects) = changed(times, bytes);
            let recent = history.recent();
            let again = History::of(&recent, &objects, times);
            assert_eq!(again.size().0, expected);
            let from = times - expected as u64;
            assert_eq!(again.complete_after(), from);
            let seen = again.since(from).unwrap();
            assert!(seen.map(|change| change.revision).eq(from + 1..=times));
        }
    }

    #[test]
    fn what_contradicts_the_objects_is_forgotten() {
        let (history, objects) = changed(5, 0);
        let good = history.recent();
        assert_eq!(History::of(&good, &objects, 5).size().0, 5);
        type Break = fn(&mut Recent);
        let breaks: [Break; 7] = [
            |recent| recent.after = 1,
            |recent| {
                recent.after = 6;
                recent.changes.clear();
            },
            |recent| recent.changes[4].revision = 6,
            |recent| recent.changes[2].revision = 4,
            |recent| recent.changes[1].before = None,
            |recent| recent.changes[0].before = Some(object("other", 0, 0)),
            |recent| recent.changes[4].key.name = "other".to_owned(),
        ];
        for (number, break_it) in breaks.into_iter().enumerate() {
            let mut bad = good.clone();
            break_it(&mut bad);
            let history = History::of(&bad, &objects, 5);
            assert_eq!(
                (history.size().0, history.complete_after()),
                (0, 5),
                "{number}"
            );
        }
    }
}
