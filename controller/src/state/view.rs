//! The objects as of one revision: what a list is cut from.
//!
//! An O(1) clone of the state's map, or one of the past (see [`State::at`](super::State::at)).

use std::ops::Bound;
use std::sync::Arc;

use hive_manifests::Resource;

use super::objects::Objects;
use super::{Key, Object};

#[derive(Clone, Debug)]
pub struct View {
    revision: u64,
    objects: Objects,
}

impl View {
    pub(super) fn new(revision: u64, objects: Objects) -> Self {
        Self { revision, objects }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// Objects of a resource in key order, in one namespace or in all; those that follow `after`.
    pub fn list<'a>(
        &'a self,
        resource: Resource,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        range(&self.objects, resource, namespace, after)
    }
}

pub(super) fn range<'a>(
    objects: &'a Objects,
    resource: Resource,
    namespace: Option<&'a str>,
    after: Option<&Key>,
) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
    let first = Key::new(resource, namespace.unwrap_or(""), "");
    let start = match after {
        Some(after) if *after >= first => Bound::Excluded(after.clone()),
        _ => Bound::Included(first),
    };
    objects
        .range((start, Bound::Unbounded))
        .take_while(move |object| {
            let key = object.key();
            key.resource == resource && namespace.is_none_or(|ns| key.namespace == ns)
        })
}
