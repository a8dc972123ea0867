//! What the controllers agree on: objects, artifacts, members, and the history of changes.
//!
//! Commands flow in through [`State::apply`], which is deterministic; readers hold O(1) clones.
//! Nothing here does I/O, reads a clock or draws a random number.

mod body;
mod command;
mod epoch;
mod history;
mod image;
pub mod level;
pub mod metering;
mod object;
mod objects;
mod placement;
mod quota;
mod view;

use std::sync::Arc;

use hive_manifests::Resource;
use hive_manifests::quota::Measure;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub use body::Body;
pub use command::{Command, MalformedCommand, Outcome, Rejection, Reply};
pub use epoch::REVISION_LEAP;
pub use history::{Change, Compacted, History};
pub use image::{ImageError, StateImage};
pub use object::{Key, Object};
pub use placement::Placed;
pub use quota::limits as quota_limits;
pub use view::View;

use metering::Metering;
use objects::Objects;
use placement::Placement;

/// Where a controller listens; `host:port` each, as the others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub link: String,
    pub api: String,
    pub ingress: String,
    /// Where it takes TLS from the public, if it does. Only to a swarm of level [`level::TUNNEL_FIELDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_tls: Option<String>,
}

impl Member {
    /// What members that know this level can be told of it.
    #[must_use]
    pub fn known_at(&self, agreed: u32) -> Self {
        let mut known = self.clone();
        if agreed < level::TUNNEL_FIELDS {
            known.ingress_tls = None;
        }
        known
    }
}

/// An artifact that a majority of controllers holds durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Bytes.
    pub size: u64,
    /// Revision at which it was registered last; whoever decided before that to collect it is late.
    pub revision: u64,
}

/// The replicated state. Cloning is O(1): maps are persistent and shared.
#[derive(Clone, Debug, Default)]
pub struct State {
    revision: u64,
    objects: Objects,
    /// By SHA-256, lower hex.
    artifacts: OrdMap<String, ArtifactRecord>,
    /// Controllers admitted to the swarm by Raft id; the membership reconciler makes Raft follow.
    controllers: OrdMap<u64, Member>,
    /// Fingerprints of the device keys with which they were admitted, where that is known.
    keys: OrdMap<u64, String>,
    /// Highest Raft id ever given: ids are never used twice.
    last_controller: u64,
    /// See [`State::access_revision`].
    access_revision: u64,
    /// What namespaces use of their quotas; follows from `objects`.
    ledger: quota::Ledger,
    /// Which assignments each node has; follows from `objects`.
    placement: Placement,
    /// Times that the swarm began anew; see [`State::begin_anew`].
    epoch: u64,
    /// What all members understand; 0 stands for [`level::FIRST`]. Never lowered.
    level: u32,
    metering: Metering,
    history: History,
}

impl State {
    /// The cluster-wide counter of committed changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Of the last change to a role or a binding, or later: what was made of them is good as long as
    /// this stays.
    pub fn access_revision(&self) -> u64 {
        self.access_revision
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// Objects of a resource in key order, in one namespace or in all.
    pub fn list<'a>(
        &'a self,
        resource: Resource,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        view::range(&self.objects, resource, namespace, None)
    }

    /// The assignments of a node, in key order.
    pub fn assignments_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        self.placement
            .on(node)
            .filter_map(|key| self.objects.get(key))
    }

    /// Nodes that have an assignment in a namespace, in order.
    pub fn nodes_with_assignments_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.placement.nodes_of(namespace)
    }

    /// The objects as they are now, and stay in the view.
    pub fn view(&self) -> View {
        View::new(self.revision, self.objects.clone())
    }

    /// The objects as they were at a revision that this state has reached: what changed since is
    /// undone on a copy, at some microseconds a change.
    ///
    /// # Errors
    /// [`Compacted`] when some of the later changes are no longer kept.
    pub fn at(&self, revision: u64) -> Result<View, Compacted> {
        let mut objects = self.objects.clone();
        for change in self.history.since(revision)?.rev() {
            match &change.before {
                Some(before) => objects.insert(before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(View::new(revision, objects))
    }

    /// Changes after `revision`, oldest first.
    ///
    /// # Errors
    /// [`Compacted`] when some of them are no longer kept: list again.
    pub fn changes_since(
        &self,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Arc<Change>>, Compacted> {
        self.history.since(revision)
    }

    /// Changes after this revision are kept.
    pub fn remembers_after(&self) -> u64 {
        self.history.complete_after()
    }

    /// How many changes are kept, and the bytes that only they hold.
    pub fn remembered(&self) -> (usize, usize) {
        self.history.size()
    }

    /// True when something happened after `seen` that is `relevant`, or may be: changes of
    /// controllers and artifacts are not told apart, and old ones are not kept.
    pub fn touched_since(&self, seen: u64, mut relevant: impl FnMut(&Change) -> bool) -> bool {
        let Ok(changes) = self.history.since(seen) else {
            return true;
        };
        let mut of_objects = 0;
        for change in changes {
            if relevant(change) {
                return true;
            }
            of_objects += 1;
        }
        // Each change of any kind takes one revision.
        self.revision != seen + of_objects
    }

    pub fn artifact(&self, sha256: &str) -> Option<&ArtifactRecord> {
        self.artifacts.get(sha256)
    }

    pub fn artifacts(&self) -> impl Iterator<Item = (&String, &ArtifactRecord)> {
        self.artifacts.iter()
    }

    pub fn controllers(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.controllers.iter().map(|(id, member)| (*id, member))
    }

    /// True for an id that was admitted once and removed since.
    pub fn is_former_controller(&self, id: u64) -> bool {
        id <= self.last_controller && !self.controllers.contains_key(&id)
    }

    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// The controller that was admitted with a device key.
    pub fn controller_of_key(&self, key: &str) -> Option<u64> {
        let mut keys = self.keys.iter();
        keys.find(|(_, known)| *known == key).map(|(id, _)| *id)
    }

    /// The level of commands that all members understand.
    pub fn level(&self) -> u32 {
        self.level.max(level::FIRST)
    }

    /// Performs one committed command. Same state and command, same result, on every replica.
    pub fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Create { key, body } => self.create(key, body),
            Command::Replace { key, body, expect } => self.replace(key, body, expect),
            Command::Delete { key, expect, uid } => self.delete(&key, expect, uid.as_deref()),
            Command::RegisterArtifact { sha256, size } => {
                self.revision += 1;
                let revision = self.revision;
                self.artifacts
                    .insert(sha256, ArtifactRecord { size, revision });
                Ok(Outcome::Done)
            }
            Command::ForgetArtifact { sha256, registered } => match self.artifacts.get(&sha256) {
                Some(record) if record.revision == registered => {
                    self.revision += 1;
                    self.artifacts.remove(&sha256);
                    Ok(Outcome::Done)
                }
                Some(record) => Err(Rejection::Conflict {
                    current: record.revision,
                }),
                None => Err(Rejection::NotFound),
            },
            Command::AdmitController { member } => Ok(Outcome::Controller(self.admit(member))),
            Command::AdmitDevice { key, member } => {
                if let Some(known) = self.controller_of_key(&key) {
                    return Ok(Outcome::Controller(known));
                }
                let id = self.admit(member);
                self.keys.insert(id, key);
                Ok(Outcome::Controller(id))
            }
            Command::RaiseLevel { to } => {
                if to > self.level() {
                    self.revision += 1;
                    self.level = to;
                }
                Ok(Outcome::Done)
            }
            Command::MoveController { id, member } => match self.controllers.get(&id) {
                None => Err(Rejection::NotFound),
                Some(known) if *known == member => Ok(Outcome::Done),
                Some(_) => {
                    self.revision += 1;
                    self.controllers.insert(id, member);
                    Ok(Outcome::Done)
                }
            },
            Command::RemoveController { id } => match self.controllers.remove(&id) {
                None => Err(Rejection::NotFound),
                Some(_) => {
                    self.revision += 1;
                    self.keys.remove(&id);
                    Ok(Outcome::Done)
                }
            },
            Command::Meter { batch } => {
                self.meter(batch);
                Ok(Outcome::Done)
            }
            Command::Batch { commands } => {
                let replies = commands.into_iter().map(|command| self.apply(command));
                Ok(Outcome::Batch(
                    replies.map(|reply| reply.map(|_| ())).collect(),
                ))
            }
        }
    }

    /// What functions used.
    pub fn metering(&self) -> &Metering {
        &self.metering
    }

    fn meter(&mut self, batch: metering::Batch) {
        let objects = &self.objects;
        let uid_of = |namespace: &str, name: &str| {
            let key = Key::new(Resource::Function, namespace, name);
            objects.get(&key).map(|function| function.uid().to_owned())
        };
        let is_namespace = |name: &str| {
            objects
                .get(&Key::new(Resource::Namespace, "", name))
                .is_some()
        };
        self.metering.take(batch, uid_of, is_namespace);
    }

    /// Gives the next id.
    fn admit(&mut self, member: Member) -> u64 {
        self.last_controller += 1;
        self.revision += 1;
        self.controllers.insert(self.last_controller, member);
        self.last_controller
    }

    fn create(&mut self, key: Key, body: Body) -> Reply {
        if self.objects.get(&key).is_some() {
            return Err(Rejection::AlreadyExists);
        }
        self.check_namespace(&key)?;
        self.check_quotas(&key, None, &body)?;
        let object = self.put(key, body, None);
        Ok(Outcome::Created(object))
    }

    /// Where it was proposed the namespace may still have been there: what came into one after its
    /// deletion would belong to nothing, and to the next namespace of that name.
    fn check_namespace(&self, key: &Key) -> Result<(), Rejection> {
        let namespace = Key::new(Resource::Namespace, "", &*key.namespace);
        let may_be = key.namespace.is_empty() || self.objects.get(&namespace).is_some();
        match may_be || self.level() < level::NAMESPACES {
            true => Ok(()),
            false => Err(Rejection::NoNamespace),
        }
    }

    fn replace(&mut self, key: Key, body: Body, expect: Option<u64>) -> Reply {
        let Some(current) = self.objects.get(&key).cloned() else {
            return Err(Rejection::NotFound);
        };
        if expect.is_some_and(|revision| revision != current.revision()) {
            return Err(Rejection::Conflict {
                current: current.revision(),
            });
        }
        if current.same_content(&body) {
            return Ok(Outcome::Unchanged(current));
        }
        self.check_quotas(&key, Some(&current), &body)?;
        let object = self.put(key, body, Some(current));
        Ok(Outcome::Replaced(object))
    }

    fn put(&mut self, key: Key, body: Body, before: Option<Arc<Object>>) -> Arc<Object> {
        self.revision += 1;
        self.note_access(&key);
        let object = Arc::new(Object::new(key.clone(), body, self.revision));
        self.objects.insert(object.clone());
        self.ledger.note(&key, before.as_deref(), Some(&object));
        self.placement.note(&key, before.as_deref(), Some(&object));
        self.history.push(Change {
            revision: self.revision,
            key,
            before: before.map(Object::without_parsed),
            after: Some(object.clone()),
            tombstone: None,
        });
        object
    }

    fn delete(&mut self, key: &Key, expect: Option<u64>, uid: Option<&str>) -> Reply {
        let Some(current) = self.objects.get(key).cloned() else {
            return Err(Rejection::NotFound);
        };
        if expect.is_some_and(|revision| revision != current.revision())
            || uid.is_some_and(|uid| uid != current.uid())
        {
            return Err(Rejection::Conflict {
                current: current.revision(),
            });
        }
        // Something came into it after it was found empty.
        if key.resource == Resource::Namespace && self.ledger.holds_any(&key.name) {
            return Err(Rejection::Conflict {
                current: current.revision(),
            });
        }
        self.revision += 1;
        self.note_access(key);
        self.objects.remove(key);
        if key.resource == Resource::Function {
            self.metering.forget_function(&key.namespace, &key.name);
        }
        self.ledger.note(key, Some(&current), None);
        self.placement.note(key, Some(&current), None);
        // The last event of an object carries the revision of its deletion.
        let last = Arc::new(current.at(self.revision));
        self.history.push(Change {
            revision: self.revision,
            key: key.clone(),
            before: Some(Object::without_parsed(current)),
            after: None,
            tombstone: Some(last.clone()),
        });
        Ok(Outcome::Deleted(last))
    }

    /// What of a measure a namespace uses.
    pub fn used(&self, namespace: &str, measure: Measure) -> u64 {
        self.ledger.used(namespace, measure)
    }

    /// Whether the quotas of its namespace leave room for an object, in place of another of its key.
    ///
    /// # Errors
    /// [`Rejection::QuotaExceeded`], which names the quota.
    pub fn check_quotas(
        &self,
        key: &Key,
        before: Option<&Object>,
        body: &Body,
    ) -> Result<(), Rejection> {
        let is_charged = before.is_none() || key.resource == Resource::Function;
        if !is_charged || !self.ledger.has_quota(&key.namespace) {
            return Ok(());
        }
        let after = Object::new(key.clone(), body.clone(), 0);
        let quotas = self.list(Resource::ResourceQuota, Some(&key.namespace));
        self.ledger
            .check(quotas.map(|quota| &**quota), before, &after)
    }

    /// To be called when `key` has changed at this revision.
    fn note_access(&mut self, key: &Key) {
        if key.resource.group() == hive_manifests::RBAC_GROUP {
            self.access_revision = self.revision;
        }
    }
}

#[cfg(test)]
mod tests;
