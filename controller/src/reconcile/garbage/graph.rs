//! Who owns whom, kept up to date from the history of changes, and whom to look at next.
//!
//! Only objects with owners are remembered. A change costs as much as the object has owners and
//! dependents; the whole state is looked at only at the start, and when the history was missed.

use std::collections::{BTreeSet, HashMap};

use hive_manifests::Resource;
use memchr::memmem;
use serde_json::Value;

use crate::deletion::{FOREGROUND, finalizers};
use crate::state::{Change, Key, Object, State};

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub uid: String,
    pub owner: Owner,
    /// The owner, when deleted in the foreground, waits for the object.
    pub blocks: bool,
}

/// Where an owner is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    At(Key),
    /// Of a kind that this API does not have: whether it lives can't be told.
    OfUnknownKind,
    /// In a namespace, while the object itself is in none: it can't be told in which.
    Nowhere(Key),
}

#[derive(Default)]
pub struct Graph {
    /// Revision that was followed so far.
    seen: Option<u64>,
    references: HashMap<Key, Vec<Reference>>,
    /// By the owner's uid.
    dependents: HashMap<String, BTreeSet<Key>>,
    pending: BTreeSet<Key>,
}

impl Graph {
    /// Takes in what changed up to `state`.
    pub fn follow(&mut self, state: &State) {
        let changes = self.seen.map(|seen| state.changes_since(seen));
        match changes {
            Some(Ok(changes)) => {
                for change in changes {
                    let before = change.before.as_deref();
                    self.note(&change.key, before, change.after.as_deref());
                }
            }
            None | Some(Err(_)) => {
                *self = Self::default();
                for resource in Resource::ALL {
                    for object in state.list(resource, None) {
                        self.note(object.key(), None, Some(object));
                    }
                }
            }
        }
        self.seen = Some(state.revision());
    }

    fn note(&mut self, key: &Key, before: Option<&Object>, after: Option<&Object>) {
        let new = after.map(references).unwrap_or_default();
        if self.references_of(key) != new {
            let old = self.references.remove(key).unwrap_or_default();
            for reference in &old {
                if let Some(keys) = self.dependents.get_mut(&reference.uid) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.dependents.remove(&reference.uid);
                    }
                }
            }
            for reference in &new {
                let keys = self.dependents.entry(reference.uid.clone()).or_default();
                keys.insert(key.clone());
            }
            // An owner may have waited for just this.
            for reference in old.iter().chain(&new) {
                if let Owner::At(owner) = &reference.owner {
                    self.pending.insert(owner.clone());
                }
            }
            self.pending.insert(key.clone());
            if !new.is_empty() {
                self.references.insert(key.clone(), new);
            }
        }
        let doomed = match after {
            None => before,
            Some(after) if after.is_being_deleted() => {
                self.pending.insert(key.clone());
                Some(after).filter(|after| is_foreground(after))
            }
            Some(_) => None,
        };
        if let Some(keys) = doomed.and_then(|owner| self.dependents.get(owner.uid())) {
            self.pending.extend(keys.iter().cloned());
        }
        if after.is_none() {
            self.pending.remove(key);
        }
    }

    pub fn references_of(&self, key: &Key) -> &[Reference] {
        self.references.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Objects to look at.
    pub fn pending(&self) -> impl Iterator<Item = &Key> {
        self.pending.iter()
    }

    /// All that was to be done about an object is done; its next change brings it up again.
    pub fn settle(&mut self, key: &Key) {
        self.pending.remove(key);
    }

    /// What was begun could not be ended.
    pub fn look_again(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.pending.extend(keys);
    }

    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }
}

/// True for a change that can give something to do here.
pub fn concerns(change: &Change) -> bool {
    match (&change.before, &change.after) {
        (_, None) => true,
        // Their statuses change often, their owner never.
        (Some(_), Some(_)) if change.key.resource == Resource::Assignment => false,
        (before, Some(after)) => {
            after.is_being_deleted() || is_owned(after) || before.as_deref().is_some_and(is_owned)
        }
    }
}

/// Being deleted, and waiting for what it owns.
pub fn is_foreground(object: &Object) -> bool {
    object.is_being_deleted() && finalizers(&object.to_value()).contains(&FOREGROUND)
}

/// True for what may have owners; told from its text, since most objects have none.
fn is_owned(object: &Object) -> bool {
    memmem::find(object.encoded(), b"\"ownerReferences\":[").is_some()
}

fn references(object: &Object) -> Vec<Reference> {
    if !is_owned(object) {
        return Vec::new();
    }
    let body = object.to_value();
    let entries = body["metadata"]["ownerReferences"].as_array();
    let entries = entries.map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .map(|entry| reference(object.key(), entry))
        .collect()
}

fn reference(of: &Key, entry: &Value) -> Reference {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let resource = Resource::ALL.into_iter().find(|resource| {
        resource.kind() == text("kind") && resource.api_version() == text("apiVersion")
    });
    let owner = match resource {
        None => Owner::OfUnknownKind,
        Some(resource) if !resource.namespaced() => Owner::At(Key::new(resource, "", text("name"))),
        Some(resource) => {
            let key = Key::new(resource, of.namespace.clone(), text("name"));
            match of.resource.namespaced() {
                true => Owner::At(key),
                false => Owner::Nowhere(key),
            }
        }
    };
    Reference {
        uid: text("uid").to_owned(),
        owner,
        blocks: entry["blockOwnerDeletion"] == true,
    }
}
