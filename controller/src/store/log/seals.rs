//! What opens each segment of the log, shared by its writer and its readers.
//!
//! A segment stays readable for as long as it is there, also when its key has left the key file.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::seal::Sealer;
use crate::store::seal::keys::KeyId;

#[derive(Clone, Default)]
pub struct Seals(Arc<RwLock<BySegment>>);

/// Nothing where a segment is not sealed.
type BySegment = BTreeMap<u64, Option<Arc<Sealer>>>;

const HELD: &str = "nothing panics while it holds the seals";

impl Seals {
    fn read(&self) -> RwLockReadGuard<'_, BySegment> {
        self.0.read().expect(HELD)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BySegment> {
        self.0.write().expect(HELD)
    }

    pub fn insert(&self, segment: u64, sealer: Option<Sealer>) {
        self.write().insert(segment, sealer.map(Arc::new));
    }

    pub fn remove(&self, segment: u64) {
        self.write().remove(&segment);
    }

    pub fn get(&self, segment: u64) -> Option<Arc<Sealer>> {
        self.read().get(&segment)?.clone()
    }

    pub fn key_of(&self, segment: u64) -> Option<KeyId> {
        Some(self.read().get(&segment)?.as_ref()?.reference().key)
    }

    /// For each key, and for none, how many segments are sealed with it.
    pub fn count(&self) -> BTreeMap<Option<KeyId>, u64> {
        let mut counts = BTreeMap::new();
        for sealer in self.read().values() {
            let key = sealer.as_ref().map(|sealer| sealer.reference().key);
            *counts.entry(key).or_default() += 1;
        }
        counts
    }
}
