//! For which machines a component is to be compiled, and what its functions should say of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hive_manifests::function::CompiledArtifact;

use super::view::{Kind, Source};
use crate::state::Key;

/// What code is to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of the compiler here, and of the code that it makes.
    pub version: String,
    /// The machines to compile for, also those whose agents are of another version: an agent that restarts
    /// with this one serves at once.
    pub targets: BTreeSet<String>,
    /// What other controllers made is kept where somebody loads it, or did not long ago.
    pub kept: BTreeSet<Kind>,
}

/// What there is to do for one component.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcePlan {
    /// What every function that names it should have in its status.
    pub records: Arc<Vec<CompiledArtifact>>,
    /// Targets that it is not yet compiled for.
    pub missing: Vec<String>,
    /// Functions whose status says something else.
    pub stale: Vec<Key>,
}

impl SourcePlan {
    pub fn is_done(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty()
    }
}

pub fn plan(source: &Source, wanted: &Wanted) -> SourcePlan {
    let mut found: BTreeMap<Kind, &CompiledArtifact> = BTreeMap::new();
    let mut read: Option<&Arc<Vec<CompiledArtifact>>> = None;
    for known in source.functions.values() {
        // Most functions share what they say with the one before.
        if read.is_some_and(|read| Arc::ptr_eq(read, &known.records)) {
            continue;
        }
        read = Some(&known.records);
        for artifact in &*known.records {
            let kind = Kind::of_artifact(artifact);
            // Of two results of two leaders all functions take the same.
            match found.get(&kind) {
                Some(other) if other.sha256 <= artifact.sha256 => {}
                _ => drop(found.insert(kind, artifact)),
            }
        }
    }
    let is_own =
        |kind: &Kind| kind.version == wanted.version && wanted.targets.contains(&kind.target);
    let mut missing = wanted.targets.clone();
    let mut records = Vec::new();
    for (kind, artifact) in found {
        if is_own(&kind) {
            missing.remove(&kind.target);
        } else if !wanted.kept.contains(&kind) {
            continue;
        }
        records.push(artifact.clone());
    }
    let is_stale = |known: &super::view::Known| {
        // Nothing is said before there is something to say.
        (!records.is_empty() && *known.records != records)
            || (missing.is_empty() && !known.is_compiled)
    };
    let stale = source
        .functions
        .iter()
        .filter(|(_, known)| is_stale(known))
        .map(|(key, _)| key.clone())
        .collect();
    SourcePlan {
        records: Arc::new(records),
        missing: missing.into_iter().collect(),
        stale,
    }
}
