//! Tunnels' statuses: a tunnel is Ready once a request through its public address came back.
//!
//! The leader tries each about twice a minute, as a client would, and at once when something about it is new. Only
//! what is new is written: an idle swarm commits nothing.

mod ask;
mod plan;
mod probe;
mod run;
mod targets;
mod verdict;

pub use run::Proofs;

use hive_manifests::Resource;

use crate::ingress::routes::is_settings;
use crate::state::Change;

/// True for a change that can make a tunnel another, or one of its targets: nodes, functions, and the domain.
pub fn concerns(change: &Change) -> bool {
    let resource = change.key.resource;
    matches!(
        resource,
        Resource::Tunnel | Resource::Function | Resource::Node
    ) || is_settings(change)
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Why {
    /// In one CamelCase word.
    reason: String,
    /// In one sentence for people.
    message: String,
}

impl Why {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
