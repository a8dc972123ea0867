//! Certificates by ACME (RFC 8555): the leader orders one for each tunnel that wants it, and renews it when a third
//! of its life is left.
//!
//! Account, open orders and certificates are Secrets: all controllers have them, encrypted at rest, and whoever
//! leads next goes on with an order where the one before left it. No authority is asked before the names lead here.

mod account;
mod authority;
mod certificate;
mod leave;
mod order;
pub mod orders;
mod plan;
mod reach;
mod run;
mod settings;
mod status;
mod turns;
mod words;

pub use run::Certificates;

use hive_manifests::Resource;

use crate::ingress::routes::is_settings;
use crate::state::Change;

/// True for a change that can make something due: tunnels, their certificates, open orders, the settings.
pub fn concerns(change: &Change) -> bool {
    let key = &change.key;
    match key.resource {
        Resource::Tunnel => true,
        Resource::Secret => key.name.ends_with(certificate::SUFFIX) || orders::concerns(change),
        _ => is_settings(change),
    }
}

#[cfg(test)]
mod tests;
