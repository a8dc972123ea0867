//! Who has which host and path. A host is one namespace's: by its name, or since something of it claimed the host
//! first. Of several in that namespace which claim one path the oldest has it. What others claim there waits.

use hive_proto::routes::Pattern;
use imbl::{OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Routes;
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
    /// `None` of connections for a TLS server's name, which are passed through unread.
    pub pattern: Option<Pattern>,
    pub by: Claimant,
}

/// Why something does not have what it claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing more is said of what is in the other namespace: who reads it may have no rights there.
    #[error(
        "host {host} belongs to namespace {namespace}: ask for a route there, or choose another host"
    )]
    Host { host: String, namespace: String },
    #[error(
        "{host}{path} is answered by {} {}/{}, which is older: choose another host or path",
        .by.resource.info().singular,
        .by.namespace,
        .by.name
    )]
    Route { host: String, path: String, by: Key },
}

impl Lost {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host { .. } => "HostTaken",
            Self::Route { .. } => "RouteConflict",
        }
    }
}

/// The namespace whose name is in a host: what is below `<namespace>.<domain>` is for nobody else, whether somebody
/// answers there yet or not.
pub fn home<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let below = host.strip_suffix(domain)?.strip_suffix('.')?;
    let (_, namespace) = below.rsplit_once('.')?;
    Some(namespace)
}

impl Routes {
    pub(super) fn add(&mut self, claim: &Claim) {
        let claimants = match &claim.pattern {
            Some(pattern) => {
                let paths = self.hosts.entry(claim.host.clone()).or_default();
                paths.entry(pattern.clone()).or_default()
            }
            None => self.passed.entry(claim.host.clone()).or_default(),
        };
        claimants.insert(claim.by.clone());
    }

    pub(super) fn remove(&mut self, claim: &Claim) {
        let Some(pattern) = &claim.pattern else {
            if let Some(claimants) = self.passed.get_mut(&claim.host) {
                claimants.remove(&claim.by);
                if claimants.is_empty() {
                    self.passed.remove(&claim.host);
                }
            }
            return;
        };
        let Some(paths) = self.hosts.get_mut(&claim.host) else {
            return;
        };
        if let Some(claimants) = paths.get_mut(pattern) {
            claimants.remove(&claim.by);
            if claimants.is_empty() {
                paths.remove(pattern);
            }
        }
        if paths.is_empty() {
            self.hosts.remove(&claim.host);
        }
    }

    /// What is answered at a host, and by whom, in the order in which it is tried.
    pub(super) fn answered<'a: 'h, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = (&'a Pattern, (&'a Pattern, &'a Key))> {
        let namespace = self.namespace_of(host);
        let paths = self.hosts.get(host).into_iter();
        paths
            .flat_map(|paths| paths.iter())
            .filter_map(move |(pattern, claimants)| {
                let owner = oldest_of(namespace?, claimants)?;
                Some((pattern, (pattern, owner)))
            })
    }

    /// Why what is claimed is not had by who claims it, if it is not.
    pub(super) fn lost(&self, claim: &Claim) -> Option<Lost> {
        let (_, by) = &claim.by;
        if let Some(lost) = self.held_elsewhere(&claim.host, &by.namespace) {
            return Some(lost);
        }
        let pattern = claim.pattern.as_ref()?;
        let claimants = self.hosts.get(&claim.host)?.get(pattern)?;
        let owner = oldest_of(&by.namespace, claimants)?;
        (owner != by).then(|| Lost::Route {
            host: claim.host.clone(),
            path: pattern.path().to_owned(),
            by: owner.clone(),
        })
    }

    /// Why a host is not for what is in a namespace, if it is another one's.
    pub(super) fn held_elsewhere(&self, host: &str, namespace: &str) -> Option<Lost> {
        let holder = self.namespace_of(host)?;
        (holder != namespace).then(|| Lost::Host {
            host: host.to_owned(),
            namespace: holder.to_owned(),
        })
    }

    /// Whose a host is; nobody's that nobody claims.
    fn namespace_of<'a>(&'a self, host: &'a str) -> Option<&'a str> {
        home(host, &self.domain).or_else(|| {
            let (_, oldest) = self.oldest_at(host)?;
            Some(&*oldest.namespace)
        })
    }

    /// The oldest of all that claim something at a host.
    fn oldest_at(&self, host: &str) -> Option<&Claimant> {
        let paths = self.hosts.get(host).into_iter();
        let answered = paths.flat_map(|paths| paths.values());
        let all = answered.chain(self.passed.get(host));
        all.filter_map(|claimants| claimants.get_min()).min()
    }
}

/// The oldest of those that are in a namespace, as nearly always the oldest of all is.
fn oldest_of<'a>(namespace: &str, claimants: &'a OrdSet<Claimant>) -> Option<&'a Key> {
    let is_in = |(_, key): &&'a Claimant| key.namespace == namespace;
    let first = claimants.get_min().filter(is_in);
    let (_, key) = first.or_else(|| claimants.iter().find(is_in))?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_a_namespace_are_its_own() {
        for (host, domain, expected) in [
            ("hello.team.localhost", "localhost", Some("team")),
            ("a.b.team.localhost", "localhost", Some("team")),
            ("hello.team.swarm.example", "swarm.example", Some("team")),
            ("team.localhost", "localhost", None),
            ("localhost", "localhost", None),
            ("hello.team.mylocalhost", "localhost", None),
            ("www.example", "swarm.example", None),
            ("swarm.example.org", "swarm.example", None),
        ] {
            assert_eq!(home(host, domain), expected, "{host} in {domain}");
        }
    }
}
