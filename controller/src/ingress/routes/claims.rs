//! Who has which host and path. A host is one namespace's: by its name, or since something of it claimed the host
//! first. Of several in that namespace which claim one path the oldest has it. What others claim there waits.

use hive_manifests::http::Http;
use hive_manifests::tunnel::{Protocol, TunnelSpec};
use hive_proto::routes::Pattern;
use imbl::{OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Routes, answered_routes};
use crate::state::Key;

/// What one namespace claims below one host, in the order in which it is tried.
type Paths = OrdMap<Pattern, OrdSet<Claimant>>;

/// What is claimed at one host. A request there costs what the namespace has which the host belongs to, whatever
/// others claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// By namespace.
    paths: OrdMap<String, Paths>,
    /// All that claim something, and how much: who has only the name of a TLS server has the host, too.
    claimants: OrdMap<Claimant, usize>,
}

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
    /// `None` of connections for a TLS server's name, which are passed through unread, and of a host of a version that is
    /// not served yet.
    pub pattern: Option<Pattern>,
    pub by: Claimant,
}

/// What a function or a tunnel claims with these routes.
pub fn claims_of(key: &Key, http: &Http, by: &Claimant, domain: &str) -> Vec<Claim> {
    let routes = answered_routes(&key.name, &key.namespace, http, domain);
    let claims = routes.iter().flat_map(|route| {
        Pattern::of(route).into_iter().map(|pattern| Claim {
            host: route.host.clone(),
            pattern: Some(pattern),
            by: by.clone(),
        })
    });
    claims.collect()
}

/// The hosts of claims, at which nothing is answered yet.
pub fn hosts_of(claims: Vec<Claim>) -> impl Iterator<Item = Claim> {
    claims.into_iter().map(|claim| Claim {
        pattern: None,
        ..claim
    })
}

/// What a tunnel claims; `None` of one that is reached by no host.
pub fn claims_of_tunnel(
    key: &Key,
    spec: &TunnelSpec,
    by: &Claimant,
    domain: &str,
) -> Option<Vec<Claim>> {
    match spec.protocol {
        Protocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            Some(claims_of(key, &http, by, domain))
        }
        // It passes connections through.
        Protocol::Tls => {
            let names = spec.server_names.iter().map(|name| Claim {
                host: name.to_ascii_lowercase(),
                pattern: None,
                by: by.clone(),
            });
            Some(names.collect())
        }
        Protocol::Tcp | Protocol::Udp => None,
    }
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

impl Host {
    fn add(&mut self, claim: &Claim) {
        let (_, key) = &claim.by;
        *self.claimants.entry(claim.by.clone()).or_default() += 1;
        if let Some(pattern) = &claim.pattern {
            let paths = self.paths.entry(key.namespace.clone()).or_default();
            let claimants = paths.entry(pattern.clone()).or_default();
            claimants.insert(claim.by.clone());
        }
    }

    fn remove(&mut self, claim: &Claim) {
        let (_, key) = &claim.by;
        if let Some(claimed) = self.claimants.get_mut(&claim.by) {
            *claimed -= 1;
            if *claimed == 0 {
                self.claimants.remove(&claim.by);
            }
        }
        let Some(pattern) = &claim.pattern else {
            return;
        };
        let Some(paths) = self.paths.get_mut(&key.namespace) else {
            return;
        };
        if let Some(claimants) = paths.get_mut(pattern) {
            claimants.remove(&claim.by);
            if claimants.is_empty() {
                paths.remove(pattern);
            }
        }
        if paths.is_empty() {
            self.paths.remove(&key.namespace);
        }
    }
}

impl Routes {
    pub(super) fn add(&mut self, claim: &Claim) {
        let host = self.hosts.entry(claim.host.clone()).or_default();
        host.add(claim);
    }

    pub(super) fn remove(&mut self, claim: &Claim) {
        let Some(host) = self.hosts.get_mut(&claim.host) else {
            return;
        };
        host.remove(claim);
        if host.claimants.is_empty() {
            self.hosts.remove(&claim.host);
        }
    }

    /// What is answered at a host, and by whom, in the order in which it is tried.
    pub(super) fn answered(
        &self,
        host: &str,
    ) -> impl Iterator<Item = (&Pattern, (&Pattern, &Key))> {
        let paths = self.paths_at(host).into_iter();
        paths
            .flat_map(|paths| paths.iter())
            .filter_map(|(pattern, claimants)| {
                let (_, owner) = claimants.get_min()?;
                Some((pattern, (pattern, owner)))
            })
    }

    /// What the namespace claims that a host belongs to.
    fn paths_at(&self, host: &str) -> Option<&Paths> {
        let namespace = self.namespace_of(host)?;
        self.hosts.get(host)?.paths.get(namespace)
    }

    /// Why what is claimed is not had by who claims it, if it is not.
    pub(super) fn lost(&self, claim: &Claim) -> Option<Lost> {
        let (_, by) = &claim.by;
        if let Some(lost) = self.held_elsewhere(&claim.host, &by.namespace) {
            return Some(lost);
        }
        let pattern = claim.pattern.as_ref()?;
        let (_, owner) = self.paths_at(&claim.host)?.get(pattern)?.get_min()?;
        (owner != by).then(|| Lost::Route {
            host: claim.host.clone(),
            path: pattern.path().to_owned(),
            by: owner.clone(),
        })
    }

    /// Why a host is not for what is in a namespace, if it is another one's.
    pub fn held_elsewhere(&self, host: &str, namespace: &str) -> Option<Lost> {
        let holder = self.namespace_of(host)?;
        (holder != namespace).then(|| Lost::Host {
            host: host.to_owned(),
            namespace: holder.to_owned(),
        })
    }

    /// Why a host may not be claimed by something that is older than all that claim it: it is another namespace's, which
    /// would lose it.
    pub(super) fn taken_from(&self, host: &str, by: &Claimant) -> Option<Lost> {
        let (_, key) = by;
        let lost = self.held_elsewhere(host, &key.namespace)?;
        // By its name a host passes to nobody.
        let passes = home(host, &self.domain).is_none();
        (passes && by < self.oldest_at(host)?).then_some(lost)
    }

    /// Whose a host is; nobody's that nobody claims.
    pub(super) fn namespace_of<'a>(&'a self, host: &'a str) -> Option<&'a str> {
        home(host, &self.domain).or_else(|| {
            let (_, oldest) = self.oldest_at(host)?;
            Some(&*oldest.namespace)
        })
    }

    /// The oldest of all that claim something at a host.
    fn oldest_at(&self, host: &str) -> Option<&Claimant> {
        let (oldest, _) = self.hosts.get(host)?.claimants.get_min()?;
        Some(oldest)
    }
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
