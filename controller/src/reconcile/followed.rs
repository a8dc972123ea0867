//! What a reconciler knows of the objects of one resource that concern it, followed change by change: where most do
//! not, what a look costs does not depend on how many there are.

use std::collections::BTreeMap;

use hive_manifests::Resource;

use crate::state::{Key, Object, State};

pub struct Followed<T> {
    resource: Resource,
    /// `None` of an object that does not concern.
    read: fn(&Object) -> Option<T>,
    /// Of the state that was followed last, if one was.
    seen: Option<u64>,
    known: BTreeMap<Key, T>,
}

impl<T> Followed<T> {
    pub fn new(resource: Resource, read: fn(&Object) -> Option<T>) -> Self {
        Self {
            resource,
            read,
            seen: None,
            known: BTreeMap::new(),
        }
    }

    /// Goes on to a state, which is no older than the one before.
    pub fn follow(&mut self, state: &State) {
        let (resource, read) = (self.resource, self.read);
        match self.seen.map(|seen| state.changes_since(seen)) {
            Some(Ok(changes)) => {
                let changes = changes.filter(|change| change.key.resource == resource);
                // Of several changes of one object only the last is read.
                let last: BTreeMap<&Key, Option<&Object>> = changes
                    .map(|change| (&change.key, change.after.as_deref()))
                    .collect();
                for (key, object) in last {
                    match object.and_then(read) {
                        Some(known) => self.known.insert(key.clone(), known),
                        None => self.known.remove(key),
                    };
                }
            }
            None | Some(Err(_)) => {
                let objects = state.list(resource, None);
                self.known = objects
                    .filter_map(|object| Some((object.key().clone(), read(object)?)))
                    .collect();
            }
        }
        self.seen = Some(state.revision());
    }

    pub fn get(&self, key: &Key) -> Option<&T> {
        self.known.get(key)
    }

    /// In the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.known.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::state::Command;

    /// The number in it, if it is even.
    fn even(object: &Object) -> Option<u64> {
        let number = object.to_value()["data"]["number"].as_u64()?;
        number.is_multiple_of(2).then_some(number)
    }

    proptest! {
        /// However changes come between two looks, what is followed is what a look at all objects finds.
        #[test]
        fn what_is_followed_is_what_is_there(
            steps in prop::collection::vec(("[ab]", "[a-d]", prop::option::of(0..6_u64), any::<bool>()), 0..60),
        ) {
            let mut state = State::default();
            let mut followed = Followed::new(Resource::ConfigMap, even);
            for (namespace, name, number, looks) in steps {
                for resource in [Resource::ConfigMap, Resource::Secret] {
                    let key = Key::new(resource, &*namespace, &*name);
                    let body = || json!({ "data": { "number": number } }).into();
                    let is_there = state.get(&key).is_some();
                    let _ = state.apply(match number {
                        None => Command::Delete { key, expect: None, uid: None },
                        Some(_) if is_there => Command::Replace { key, body: body(), expect: None },
                        Some(_) => Command::Create { key, body: body() },
                    });
                }
                if looks {
                    followed.follow(&state);
                    let mut anew = Followed::new(Resource::ConfigMap, even);
                    anew.follow(&state);
                    prop_assert!(followed.iter().eq(anew.iter()));
                }
            }
        }
    }
}
