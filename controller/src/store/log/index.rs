//! Where each entry of the log is: in memory, on disk, or both.
//!
//! An entry is readable from the moment it is appended. It stays in memory until it is on disk and
//! newer entries need the room.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::segments::Place;
use crate::store::codec::entry_size;
use crate::store::compaction::Extent;
use crate::store::types::{Entry, LogId, Payload, Vote};

/// Entries kept in memory. Followers that keep up and the state machine read the newest only; a
/// follower further behind is served from disk.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

struct Slot {
    id: LogId,
    place: Option<Place>,
    payload: Option<Payload>,
    /// Bytes of all entries there ever were, up to this one.
    end: u64,
}

/// Tells who waits for it that the log has grown.
struct Growth {
    grown: Arc<Notify>,
    step: Extent,
    /// Since it was told last.
    by: Extent,
}

/// What a read finds.
#[derive(Debug)]
pub enum Found {
    Cached(Entry),
    OnDisk(LogId, Place),
}

#[derive(Default)]
pub struct Index {
    slots: VecDeque<Slot>,
    purged: Option<LogId>,
    /// Where the first slot's bytes begin.
    base: u64,
    growth: Option<Growth>,
    committed: Option<LogId>,
    vote: Option<Vote>,
    /// Slots before this position hold no payload.
    cached_from: usize,
    cached_bytes: usize,
    cache_limit: usize,
}

impl Index {
    pub fn new(recovered: super::replay::Recovered) -> Self {
        let mut end = 0;
        let slots: VecDeque<Slot> = recovered
            .entries
            .into_iter()
            .map(|(id, place)| {
                end += u64::from(place.length);
                Slot {
                    id,
                    place: Some(place),
                    payload: None,
                    end,
                }
            })
            .collect();
        Self {
            cached_from: slots.len(),
            slots,
            purged: recovered.standing.purged,
            base: 0,
            growth: None,
            committed: recovered.standing.committed,
            vote: recovered.standing.vote,
            cached_bytes: 0,
            cache_limit: CACHE_BYTES,
        }
    }

    pub fn vote(&self) -> Option<Vote> {
        self.vote
    }

    pub fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    pub fn committed(&self) -> Option<LogId> {
        self.committed
    }

    pub fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry, or the last purged one if there is none.
    pub fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.purged)
    }

    /// Index that the next entry will have.
    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }

    fn position(&self, index: u64) -> Option<usize> {
        let first = self.slots.front()?.id.index;
        let position = usize::try_from(index.checked_sub(first)?).ok()?;
        (position < self.slots.len()).then_some(position)
    }

    /// # Errors
    /// The index that the entry should have had.
    pub fn append(&mut self, entry: &Entry) -> Result<(), u64> {
        let expected = self.next();
        // The very first entry may have any index: a log that begins behind a snapshot.
        if entry.log_id.index != expected && self.last().is_some() {
            return Err(expected);
        }
        let bytes = entry_size(entry);
        self.cached_bytes += bytes;
        self.slots.push_back(Slot {
            id: entry.log_id,
            place: None,
            payload: Some(entry.payload.clone()),
            end: self.end() + bytes as u64,
        });
        if let Some(growth) = &mut self.growth {
            growth.add(bytes as u64);
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.slots.back().map_or(self.base, |slot| slot.end)
    }

    /// Of the entries that are there, up to `index`.
    fn end_of(&self, index: u64) -> u64 {
        match self.position(index) {
            Some(position) => self.slots[position].end,
            None if self.last().is_some_and(|last| last.index < index) => self.end(),
            None => self.base,
        }
    }

    /// What the log holds after entry `after`, up to entry `upto`.
    pub fn extent(&self, after: u64, upto: u64) -> Extent {
        Extent {
            entries: upto.saturating_sub(after),
            bytes: self.end_of(upto).saturating_sub(self.end_of(after)),
        }
    }

    /// The last entry before those that, up to `index`, hold at least so many bytes; the last
    /// purged one if all do not.
    pub fn reaching_back(&self, index: u64, bytes: u64) -> u64 {
        let enough = self.end_of(index).checked_sub(bytes);
        let before = enough.map_or(0, |end| self.slots.partition_point(|slot| slot.end <= end));
        match before.checked_sub(1) {
            Some(position) => self.slots[position].id.index,
            None => self.purged.map_or(0, |id| id.index),
        }
    }

    /// Wakes one waiter, the only one, after each so many entries or bytes.
    pub fn grown_by(&mut self, step: Extent) -> Arc<Notify> {
        let grown = Arc::<Notify>::default();
        self.growth = Some(Growth {
            grown: grown.clone(),
            step,
            by: Extent::default(),
        });
        grown
    }

    /// The entry is on disk now. An entry that was truncated meanwhile is passed over.
    pub fn place(&mut self, id: LogId, place: Place) {
        if let Some(position) = self.position(id.index)
            && self.slots[position].id == id
        {
            self.slots[position].place = Some(place);
        }
    }

    /// Drops payloads from memory, oldest first, until the cache is within its bound. What is not
    /// on disk yet stays.
    pub fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit
            && let Some(slot) = self.slots.get_mut(self.cached_from)
            && slot.place.is_some()
        {
            if let Some(payload) = slot.payload.take() {
                self.cached_bytes -= size(slot.id, payload);
            }
            self.cached_from += 1;
        }
    }

    /// Removes the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        while self.slots.back().is_some_and(|slot| slot.id.index >= from) {
            if let Some(slot) = self.slots.pop_back() {
                self.forget(slot);
            }
        }
        self.cached_from = self.cached_from.min(self.slots.len());
    }

    /// Removes the entries up to `id`.
    pub fn purge(&mut self, id: LogId) {
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.id.index <= id.index)
        {
            if let Some(slot) = self.slots.pop_front() {
                self.base = slot.end;
                self.forget(slot);
                self.cached_from = self.cached_from.saturating_sub(1);
            }
        }
        self.purged = self.purged.max(Some(id));
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(payload) = slot.payload {
            self.cached_bytes -= size(slot.id, payload);
        }
    }

    /// Entries of `first..end` that exist, up to `limit` bytes but at least one.
    pub fn read(&self, first: u64, end: u64, limit: usize) -> Vec<Found> {
        let Some(oldest) = self.slots.front().map(|slot| slot.id.index) else {
            return Vec::new();
        };
        let Some(start) = self.position(first.max(oldest)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for slot in self.slots.range(start..) {
            if slot.id.index >= end {
                break;
            }
            let (item, size) = match (&slot.payload, slot.place) {
                (Some(payload), _) => {
                    let entry = Entry {
                        log_id: slot.id,
                        payload: payload.clone(),
                    };
                    let size = entry_size(&entry);
                    (Found::Cached(entry), size)
                }
                (None, Some(place)) => (Found::OnDisk(slot.id, place), place.length as usize),
                (None, None) => unreachable!("a payload leaves memory only after its place is set"),
            };
            bytes += size;
            if bytes > limit && !found.is_empty() {
                break;
            }
            found.push(item);
        }
        found
    }

    pub fn holds(&self, id: LogId) -> bool {
        self.position(id.index)
            .is_some_and(|position| self.slots[position].id == id)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub fn set_cache_limit(&mut self, bytes: usize) {
        self.cache_limit = bytes;
        self.evict();
    }
}

impl Growth {
    fn add(&mut self, bytes: u64) {
        self.by.entries += 1;
        self.by.bytes += bytes;
        if self.by.entries >= self.step.entries || self.by.bytes >= self.step.bytes {
            self.by = Extent::default();
            self.grown.notify_one();
        }
    }
}

fn size(log_id: LogId, payload: Payload) -> usize {
    entry_size(&Entry { log_id, payload })
}
