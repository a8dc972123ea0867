//! The objects by key, as a persistent map: a clone is O(1), and later changes do not show in it.
//!
//! Nodes that a clone shares are copied before they change, with some sixty entries each. An entry
//! is one pointer, so that this copies counts and not names.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::RangeBounds;
use std::sync::Arc;

use imbl::OrdSet;

use super::{Key, Object};

#[derive(Clone, Debug, Default)]
pub(super) struct Objects(OrdSet<ByKey>);

#[derive(Clone, Debug)]
struct ByKey(Arc<Object>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        self.0.key()
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByKey {}

impl Objects {
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.0.get(key).map(|ByKey(object)| object)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the place of the object with the same key.
    pub fn insert(&mut self, object: Arc<Object>) {
        self.0.insert(ByKey(object));
    }

    pub fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.iter().map(|ByKey(object)| object)
    }

    /// In the order of their keys.
    pub fn range(&self, keys: impl RangeBounds<Key>) -> impl Iterator<Item = &Arc<Object>> {
        self.0.range(keys).map(|ByKey(object)| object)
    }
}

impl FromIterator<Arc<Object>> for Objects {
    fn from_iter<I: IntoIterator<Item = Arc<Object>>>(objects: I) -> Self {
        Self(objects.into_iter().map(ByKey).collect())
    }
}
