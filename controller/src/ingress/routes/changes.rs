//! Hosts that an object may not have by what is declared: those that it would take from another namespace by a change, and
//! the swarm's own. Pure.
//!
//! A host is that of the oldest object which claims it, and an object keeps its age whatever is changed in it: one that is
//! older than all at a host could have it at any time. What is made anew comes after all that there are, and waits.

use std::collections::BTreeSet;

use hive_manifests::{Function, Resource, Tunnel};
use serde::Deserialize;
use serde_json::Value;

use super::Routes;
use super::claims::{Claimant, Lost, claimant, claims_of, claims_of_tunnel};
use crate::state::Key;

impl Routes {
    /// Why a function or a tunnel may not be changed so, if it may not.
    pub fn taken_by_change(&self, key: &Key, before: &Value, after: &Value) -> Option<Lost> {
        if before["spec"] == after["spec"] {
            return None;
        }
        let (by, hosts) = self.declared(key, after)?;
        let before = self.declared(key, before);
        let known = before.map(|(_, hosts)| hosts).unwrap_or_default();
        let mut new = hosts.difference(&known);
        new.find_map(|host| self.taken_from(host, &by))
    }

    /// The swarm's own domain, if a function or a tunnel begins to claim it in a namespace that does not have it. `before`
    /// is what it is changed from.
    pub fn takes_domain(&self, key: &Key, before: Option<&Value>, after: &Value) -> Option<&str> {
        if before.is_some_and(|before| before["spec"] == after["spec"]) {
            return None;
        }
        let domain = &*self.domain;
        let claims = |object: &Value| {
            let declared = self.declared(key, object);
            declared.is_some_and(|(_, hosts)| hosts.contains(domain))
        };
        let is_new = claims(after) && !before.is_some_and(claims);
        let is_own = self.namespace_of(domain) == Some(&*key.namespace);
        (is_new && !is_own).then_some(domain)
    }

    /// The hosts that it claims once all copies are what is declared. `None` of other kinds, and of what is reached by no
    /// host.
    fn declared(&self, key: &Key, object: &Value) -> Option<(Claimant, BTreeSet<String>)> {
        let domain = &self.domain;
        let (by, claims) = match key.resource {
            Resource::Function => {
                let Function { metadata, spec, .. } = Function::deserialize(object).ok()?;
                let by = claimant(key, &metadata)?;
                let claims = claims_of(key, &spec.http, &by, domain);
                (by, claims)
            }
            Resource::Tunnel => {
                let Tunnel { metadata, spec, .. } = Tunnel::deserialize(object).ok()?;
                let by = claimant(key, &metadata)?;
                let claims = claims_of_tunnel(key, &spec, &by, domain)?;
                (by, claims)
            }
            _ => return None,
        };
        Some((by, claims.into_iter().map(|claim| claim.host).collect()))
    }
}
