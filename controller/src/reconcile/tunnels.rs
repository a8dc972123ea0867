//! Tunnels' statuses: a tunnel is Ready once a request through its public address came back.
//!
//! The leader tries each about twice a minute, as a client would, and at once when something about it is new. Only
//! what is new is written: an idle swarm commits nothing.

mod ask;
mod doors;
mod names;
mod obstacles;
mod plan;
mod probe;
mod run;
mod targets;
mod trust;
mod verdict;

pub use doors::Doors;
pub(super) use names::leads_here;
pub(super) use probe::is_local;
pub use run::Proofs;

use hive_manifests::Resource;

use crate::ingress::routes::is_settings;
use crate::state::Change;

/// The condition of tunnels that says whether the certificate that is ordered for one is good.
pub(super) const CERTIFICATE_READY: &str = "CertificateReady";

/// True for a change that can make a tunnel another, or one of its targets: nodes, functions, Secrets with
/// certificates, and the domain.
pub fn concerns(change: &Change) -> bool {
    let resource = change.key.resource;
    matches!(
        resource,
        Resource::Tunnel | Resource::Function | Resource::Node | Resource::Secret
    ) || is_settings(change)
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// In one CamelCase word.
    pub reason: String,
    /// In one sentence for people.
    pub message: String,
}

impl Why {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
