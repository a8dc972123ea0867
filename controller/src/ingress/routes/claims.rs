//! Who has which host and path: of several that claim one the oldest.

use hive_proto::routes::Pattern;
use imbl::{OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Routes;
use crate::challenges;
use crate::state::Key;

/// What is claimed below one host, in the order in which it is tried.
pub type Paths = OrdMap<Pattern, OrdSet<Claimant>>;

/// When a function or a tunnel was made, and its name: of several that claim one route the first in this
/// order, the oldest, has it, and the next one when that is gone.
pub type Claimant = (String, Key);

/// What claims routes; `None` of one that says not when it was made.
pub fn claimant(key: &Key, metadata: &ObjectMeta) -> Option<Claimant> {
    let created = metadata.creation_timestamp.as_ref()?;
    Some((created.0.to_string(), key.clone()))
}

/// What a function or a tunnel wants to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub host: String,
    pub pattern: Pattern,
    pub by: Claimant,
}

impl Routes {
    pub(super) fn add(&mut self, claim: &Claim) {
        let paths = self.hosts.entry(claim.host.clone()).or_default();
        let claimants = paths.entry(claim.pattern.clone()).or_default();
        claimants.insert(claim.by.clone());
    }

    pub(super) fn remove(&mut self, claim: &Claim) {
        let Some(paths) = self.hosts.get_mut(&claim.host) else {
            return;
        };
        if let Some(claimants) = paths.get_mut(&claim.pattern) {
            claimants.remove(&claim.by);
            if claimants.is_empty() {
                paths.remove(&claim.pattern);
            }
        }
        if paths.is_empty() {
            self.hosts.remove(&claim.host);
        }
    }

    /// Who has what is claimed, if it is claimed at all.
    pub(super) fn owner(&self, claim: &Claim) -> Option<&Key> {
        let (_, by) = &claim.by;
        if challenges::is_at_or_below(claim.pattern.path())
            && let Some((_, oldest)) = self.oldest_at(&claim.host)
            && oldest.namespace != by.namespace
        {
            return Some(oldest);
        }
        let claimants = self.hosts.get(&claim.host)?.get(&claim.pattern)?;
        claimants.get_min().map(|(_, owner)| owner)
    }

    /// The oldest of all that claim a route at a host.
    pub(super) fn oldest_at(&self, host: &str) -> Option<&Claimant> {
        let claimants = self.hosts.get(host)?.values();
        claimants.filter_map(|claimants| claimants.get_min()).min()
    }
}
