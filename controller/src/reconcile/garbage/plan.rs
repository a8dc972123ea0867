//! What to do about the objects whose owners or dependents changed. Pure.
//!
//! The rules are those of Kubernetes' garbage collector: an object whose owners are all gone is
//! deleted, one that keeps an owner loses the references to the others, and an owner that is deleted
//! in the foreground goes after the dependents that block it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use hive_manifests::Resource;
use serde_json::Value;

use super::graph::{Graph, Owner, Reference, is_foreground};
use crate::deletion::{self, FOREGROUND, ORPHAN, Propagation, finalizers};
use crate::state::{Command, Key, Object, State};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Delete {
        key: Key,
        propagation: Propagation,
    },
    /// Takes the references to these uids away.
    DropOwners {
        key: Key,
        uids: BTreeSet<String>,
    },
    /// Sets blockOwnerDeletion to false: the owner waits for an object that waits for the owner.
    Unblock {
        key: Key,
    },
    RemoveFinalizer {
        key: Key,
        finalizer: &'static str,
    },
    /// Says that an owner is where it cannot be.
    Warn {
        key: Key,
        message: String,
    },
}

/// The steps for each object that is to be looked at; none where all is well.
pub fn plan(graph: &Graph, state: &State) -> BTreeMap<Key, Vec<Step>> {
    let mut strays = Strays::default();
    graph
        .pending()
        .map(|key| {
            let steps = match state.get(key) {
                None => Vec::new(),
                Some(object) if object.is_being_deleted() => ending(graph, state, object),
                Some(object) => living(graph, state, object, &mut strays),
            };
            (key.clone(), steps)
        })
        .collect()
}

/// An object that is being deleted, and what it owns.
fn ending(graph: &Graph, state: &State, object: &Object) -> Vec<Step> {
    let key = object.key();
    let body = object.to_value();
    let waits_for = finalizers(&body);
    if waits_for.contains(&ORPHAN) {
        let uids = BTreeSet::from([object.uid().to_owned()]);
        let steps: Vec<_> = graph
            .dependents_of(object.uid())
            // They never outlive their Function: the scheduler withdraws them.
            .filter(|dependent| dependent.resource != Resource::Assignment)
            .map(|dependent| Step::DropOwners {
                key: dependent.clone(),
                uids: uids.clone(),
            })
            .collect();
        if steps.is_empty() {
            return vec![remove_finalizer(key, ORPHAN)];
        }
        return steps;
    }
    if waits_for.contains(&FOREGROUND) {
        if blockers(graph, state, object.uid()).next().is_none() {
            return vec![remove_finalizer(key, FOREGROUND)];
        }
        let blocks = graph.references_of(key).iter().any(|it| it.blocks);
        if blocks && waits_for_itself(graph, state, object) {
            return vec![Step::Unblock { key: key.clone() }];
        }
    }
    Vec::new()
}

/// The dependents that an owner has to wait for.
fn blockers<'a>(
    graph: &'a Graph,
    state: &'a State,
    uid: &'a str,
) -> impl Iterator<Item = &'a Object> {
    graph.dependents_of(uid).filter_map(move |dependent| {
        let mut references = graph.references_of(dependent).iter();
        references.find(|reference| reference.uid == uid && reference.blocks)?;
        state.get(dependent).map(|object| &**object)
    })
}

/// True when an object in the foreground waits for others there that wait, in the end, for it.
fn waits_for_itself(graph: &Graph, state: &State, object: &Object) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![object];
    while let Some(owner) = next.pop() {
        for blocker in blockers(graph, state, owner.uid()).filter(|it| is_foreground(it)) {
            if blocker.key() == object.key() {
                return true;
            }
            if seen.insert(blocker.key()) {
                next.push(blocker);
            }
        }
    }
    false
}

fn remove_finalizer(key: &Key, finalizer: &'static str) -> Step {
    Step::RemoveFinalizer {
        key: key.clone(),
        finalizer,
    }
}

/// An object that is not being deleted yet, and its owners.
fn living(graph: &Graph, state: &State, object: &Object, strays: &mut Strays) -> Vec<Step> {
    let key = object.key();
    let references = graph.references_of(key);
    if references.is_empty() || key.resource == Resource::Assignment || deletion::is_protected(key)
    {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let (mut keeps, mut absent, mut waiting) = (false, BTreeSet::new(), BTreeSet::new());
    for reference in references {
        match fate(state, reference) {
            Fate::Lives | Fate::Unknown => keeps = true,
            Fate::Absent => {
                absent.insert(reference.uid.clone());
            }
            Fate::Waits => {
                waiting.insert(reference.uid.clone());
            }
        }
        if let Some(message) = strays.complaint(state, key, reference) {
            let key = key.clone();
            steps.push(Step::Warn { key, message });
        }
    }
    if keeps {
        absent.extend(waiting);
        if !absent.is_empty() {
            let key = key.clone();
            steps.push(Step::DropOwners { key, uids: absent });
        }
        return steps;
    }
    let dependents = || {
        graph
            .dependents_of(object.uid())
            .filter_map(|key| state.get(key))
    };
    let delete = |propagation| Step::Delete {
        key: key.clone(),
        propagation,
    };
    let body = object.to_value();
    let own = finalizers(&body);
    steps.push(if !waiting.is_empty() && dependents().next().is_some() {
        let in_circle = dependents().any(|dependent| is_foreground(dependent));
        if in_circle && references.iter().any(|reference| reference.blocks) {
            Step::Unblock { key: key.clone() }
        } else {
            delete(Propagation::Foreground)
        }
    } else if own.contains(&ORPHAN) {
        delete(Propagation::Orphan)
    } else if own.contains(&FOREGROUND) {
        delete(Propagation::Foreground)
    } else {
        delete(Propagation::Background)
    });
    steps
}

/// What became of an owner.
enum Fate {
    Lives,
    /// It can't be told: then nothing is deleted for its sake.
    Unknown,
    /// It is being deleted, after what it owns.
    Waits,
    Absent,
}

fn fate(state: &State, reference: &Reference) -> Fate {
    let Owner::At(key) = &reference.owner else {
        return Fate::Unknown;
    };
    match state.get(key) {
        // Of that name, but another: it was deleted and made again.
        Some(owner) if owner.uid() != reference.uid => Fate::Absent,
        Some(owner) if is_foreground(owner) => Fate::Waits,
        Some(_) => Fate::Lives,
        None => Fate::Absent,
    }
}

/// Owners that live in another namespace than what they are said to own; each is looked for once.
#[derive(Default)]
struct Strays {
    known: HashMap<String, bool>,
}

impl Strays {
    fn complaint(&mut self, state: &State, of: &Key, reference: &Reference) -> Option<String> {
        let (owner, place) = match &reference.owner {
            Owner::Nowhere(owner) => (
                owner,
                "is namespaced, but its dependent is cluster-scoped".to_owned(),
            ),
            Owner::At(owner)
                if owner.resource.namespaced()
                    && state.get(owner).is_none_or(|o| o.uid() != reference.uid)
                    && self.is_elsewhere(state, owner, &reference.uid) =>
            {
                (
                    owner,
                    format!("does not exist in namespace {:?}", of.namespace),
                )
            }
            _ => return None,
        };
        Some(format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] {place}",
            owner.resource.api_version(),
            owner.resource.kind(),
            owner.namespace,
            owner.name,
            reference.uid
        ))
    }

    fn is_elsewhere(&mut self, state: &State, owner: &Key, uid: &str) -> bool {
        if let Some(known) = self.known.get(uid) {
            return *known;
        }
        let found = state.list(Resource::Namespace, None).any(|namespace| {
            let key = Key::new(
                owner.resource,
                namespace.key().name.clone(),
                owner.name.clone(),
            );
            state.get(&key).is_some_and(|object| object.uid() == uid)
        });
        self.known.insert(uid.to_owned(), found);
        found
    }
}

impl Step {
    pub fn key(&self) -> &Key {
        match self {
            Self::Delete { key, .. }
            | Self::DropOwners { key, .. }
            | Self::Unblock { key }
            | Self::RemoveFinalizer { key, .. }
            | Self::Warn { key, .. } => key,
        }
    }

    /// The command that does it to the object as it is in `state`, where one does.
    pub fn command(&self, state: &State, now: SystemTime) -> Option<Command> {
        let current = state.get(self.key())?;
        let mut body = current.to_value().into_owned();
        match self {
            Self::Warn { .. } => return None,
            Self::Delete { propagation, .. } => {
                return deletion::command(current, Some(*propagation), now);
            }
            Self::DropOwners { uids, .. } => {
                retain(&mut body, "ownerReferences", |reference| {
                    reference["uid"]
                        .as_str()
                        .is_none_or(|uid| !uids.contains(uid))
                });
            }
            Self::Unblock { .. } => {
                let references = body["metadata"]["ownerReferences"].as_array_mut();
                for reference in references.into_iter().flatten() {
                    if reference["blockOwnerDeletion"] == true {
                        reference["blockOwnerDeletion"] = false.into();
                    }
                }
            }
            Self::RemoveFinalizer { finalizer, .. } => {
                retain(&mut body, "finalizers", |found| found != finalizer);
            }
        }
        Some(deletion::replacement(current, body))
    }
}

/// Keeps some entries of a list in the metadata; a list without any goes altogether.
fn retain(body: &mut Value, list: &str, keep: impl FnMut(&Value) -> bool) {
    let Some(metadata) = body["metadata"].as_object_mut() else {
        return;
    };
    if let Some(entries) = metadata.get_mut(list).and_then(Value::as_array_mut) {
        entries.retain(keep);
        if entries.is_empty() {
            metadata.remove(list);
        }
    }
}
