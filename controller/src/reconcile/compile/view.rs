//! The part of the state that compiling looks at, followed change by change: what one function's change
//! costs does not depend on how many functions there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_manifests::function::CompiledArtifact;
use hive_manifests::{Function, Resource};

use super::plan::{SourcePlan, Wanted, plan};
use crate::node_record::NodeRecord;
use crate::reconcile::schedule::source_sha256;
use crate::state::{Key, Object, State};

/// Records that no node asks for any more are kept for as long: nodes come back, and two controllers of
/// different versions that lead in turn must not compile what the other one dropped.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// What code must have been made for to be loaded by a node: its machine, and its agent's version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub target: String,
    pub version: String,
}

impl Kind {
    fn of_node(node: &Object) -> Option<Self> {
        let record = NodeRecord::of(node);
        (!record.target().is_empty()).then(|| Self {
            target: record.target().to_owned(),
            version: record.wasmtime_version().to_owned(),
        })
    }

    pub fn of_artifact(artifact: &CompiledArtifact) -> Self {
        Self {
            target: artifact.target.clone(),
            version: artifact.wasmtime_version.clone(),
        }
    }
}

/// One component, and the functions that name it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    pub functions: BTreeMap<Key, Known>,
}

/// What a function's status says of its component.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Shared where functions say the same.
    pub records: Arc<Vec<CompiledArtifact>>,
    /// Its condition Compiled is True.
    pub is_compiled: bool,
}

/// As of a revision.
#[derive(Debug)]
pub struct View {
    own_target: &'static str,
    own_version: String,
    seen: Option<u64>,
    /// How many nodes there are of a kind.
    nodes: BTreeMap<Kind, usize>,
    /// Kinds that records are of and no node is, and since when.
    left: BTreeMap<Kind, Instant>,
    sources: BTreeMap<String, Source>,
    source_of: HashMap<Key, String>,
    /// Of those sources for which there is something to do.
    plans: BTreeMap<String, SourcePlan>,
    dirty: BTreeSet<String>,
    wanted: Wanted,
}

impl View {
    /// `own_target` is compiled for although no such node is there yet: a component that does not compile is
    /// found at once.
    pub fn new(own_target: &'static str, own_version: String) -> Self {
        Self {
            own_target,
            own_version,
            seen: None,
            nodes: BTreeMap::new(),
            left: BTreeMap::new(),
            sources: BTreeMap::new(),
            source_of: HashMap::new(),
            plans: BTreeMap::new(),
            dirty: BTreeSet::new(),
            wanted: Wanted::default(),
        }
    }

    /// What there is to do in a state, which is no older than the one before, by digest of the component.
    pub fn plans(&mut self, state: &State, now: Instant) -> &BTreeMap<String, SourcePlan> {
        self.follow(state, now);
        self.left
            .retain(|_, since| now.saturating_duration_since(*since) < KEPT);
        let wanted = self.wanted();
        if self.wanted != wanted {
            self.wanted = wanted;
            self.dirty.extend(self.sources.keys().cloned());
        }
        for sha256 in std::mem::take(&mut self.dirty) {
            let planned = self
                .sources
                .get(&sha256)
                .map(|source| plan(source, &self.wanted));
            match planned {
                Some(planned) if !planned.is_done() => self.plans.insert(sha256, planned),
                _ => self.plans.remove(&sha256),
            };
        }
        &self.plans
    }

    /// The functions that name a component.
    pub fn functions(&self, sha256: &str) -> impl Iterator<Item = &Key> {
        let source = self.sources.get(sha256).into_iter();
        source.flat_map(|source| source.functions.keys())
    }

    /// For how many kinds of machine each component is compiled.
    pub fn targets(&self) -> usize {
        self.wanted.targets.len()
    }

    fn follow(&mut self, state: &State, now: Instant) {
        let changes = self.seen.and_then(|seen| state.changes_since(seen).ok());
        match changes {
            Some(changes) => {
                for change in changes {
                    let after = change.after.as_deref();
                    match change.key.resource {
                        Resource::Function => self.function(&change.key, after, now),
                        Resource::Node => {
                            self.node(change.before.as_deref(), after, now);
                        }
                        _ => {}
                    }
                }
            }
            None => {
                self.nodes.clear();
                self.dirty.extend(self.sources.keys().cloned());
                self.sources.clear();
                self.source_of.clear();
                for object in state.list(Resource::Node, None) {
                    self.node(None, Some(object), now);
                }
                for object in state.list(Resource::Function, None) {
                    self.function(object.key(), Some(object), now);
                }
            }
        }
        self.seen = Some(state.revision());
    }

    fn node(&mut self, was: Option<&Object>, is: Option<&Object>, now: Instant) {
        let [was, is] = [was, is].map(|object| object.and_then(Kind::of_node));
        if was == is {
            return;
        }
        if let Some(kind) = is {
            self.left.remove(&kind);
            *self.nodes.entry(kind).or_default() += 1;
        }
        if let Some(kind) = was
            && let Some(count) = self.nodes.get_mut(&kind)
        {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&kind);
                self.left.insert(kind, now);
            }
        }
    }

    fn function(&mut self, key: &Key, is: Option<&Object>, now: Instant) {
        if let Some(sha256) = self.source_of.remove(key) {
            if let Some(source) = self.sources.get_mut(&sha256) {
                source.functions.remove(key);
                if source.functions.is_empty() {
                    self.sources.remove(&sha256);
                }
            }
            self.dirty.insert(sha256);
        }
        let Some((sha256, mut known)) = is.and_then(read) else {
            return;
        };
        for artifact in &*known.records {
            let kind = Kind::of_artifact(artifact);
            if !self.nodes.contains_key(&kind) {
                self.left.entry(kind).or_insert(now);
            }
        }
        let source = self.sources.entry(sha256.clone()).or_default();
        if let Some(other) = source.functions.values().next()
            && other.records == known.records
        {
            known.records = other.records.clone();
        }
        source.functions.insert(key.clone(), known);
        self.source_of.insert(key.clone(), sha256.clone());
        self.dirty.insert(sha256);
    }

    fn wanted(&self) -> Wanted {
        let nodes = self.nodes.keys();
        let mut targets: BTreeSet<String> = nodes.clone().map(|k| k.target.clone()).collect();
        targets.insert(self.own_target.to_owned());
        Wanted {
            version: self.own_version.clone(),
            targets,
            kept: nodes.chain(self.left.keys()).cloned().collect(),
        }
    }
}

/// The component that a function names, and what it says of it. Functions that cannot be read have none.
fn read(object: &Object) -> Option<(String, Known)> {
    let function: Function = object.parse().ok()?;
    let sha256 = source_sha256(&function)?;
    let status = function.status.unwrap_or_default();
    let mut conditions = status.conditions.iter();
    let is_compiled = conditions.any(|it| it.type_ == "Compiled" && it.status == "True");
    let mut records = status.artifacts;
    records.retain(|artifact| artifact.source_sha256 == sha256);
    let known = Known {
        records: Arc::new(records),
        is_compiled,
    };
    Some((sha256, known))
}

#[cfg(test)]
mod tests;
