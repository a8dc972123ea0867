//! Which tunnels there are, and which of them has which port. Pure: the same on every controller that applied the
//! same state.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
use hive_manifests::tunnel::TunnelTarget;
use hive_manifests::tunnel::access::Access;
use hive_manifests::tunnel::{Protocol, TunnelSpec};
use hive_manifests::{Resource, Tunnel as Declared};

use super::access::clients::Proxies;
use super::access::known::KnownRules;
use super::access::rules::{Problem, Rules};
use crate::ingress::routes::{self, domain, is_settings, routes_of};
use crate::reconcile::Followed;
use crate::state::{Change, Key, Object, State};

/// A tunnel as controllers carry it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    pub key: Key,
    /// One that was deleted and made anew is another.
    pub uid: String,
    /// Of its spec.
    pub generation: i64,
    /// In text that sorts.
    pub created: String,
    pub spec: TunnelSpec,
    /// What clients call an HTTP tunnel; empty for the others.
    pub host: String,
    /// The TLS servers' names for which it answers, with its certificate or by its targets.
    pub names: Vec<String>,
    /// Who may use it, or why nobody may.
    pub access: Arc<Result<Rules, Problem>>,
}

/// All tunnels of the swarm at one revision.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    pub tunnels: BTreeMap<Key, Arc<Tunnel>>,
    /// Who has a port of TCP, on every controller.
    pub ports: BTreeMap<u16, Key>,
    /// The same of UDP: what has a number in both may be one service, such as DNS, or two.
    pub udp_ports: BTreeMap<u16, Key>,
    /// Who answers for the name of a TLS server, on every controller.
    pub names: BTreeMap<String, Named>,
    /// Tunnels that do not have the port, or a name of their namespace, that they ask for.
    pub refused: BTreeMap<Key, Refused>,
    /// Where TLS is taken, by the first controller that does.
    pub tls_port: Option<u16>,
    /// Who may say for whom it comes.
    pub proxies: Arc<Proxies>,
}

/// Who answers for the name of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The targets of a tunnel: connections are passed through.
    Passed(Key),
    /// Controllers, with the certificate of the first of these tunnels that has a good one. The oldest comes first; all
    /// are of the namespace that has the host.
    Ended(Vec<Key>),
}

impl Named {
    /// Who has the name; none other may do otherwise with it.
    fn owner(&self) -> &Key {
        match self {
            Self::Passed(key) => key,
            Self::Ended(all) => &all[0],
        }
    }
}

/// Why a tunnel does not have its port, or one of its names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "port {port} is that of tunnel {}/{}, which is older: choose another port",
        .with.namespace,
        .with.name
    )]
    Conflict { port: u16, with: Key },
    /// As with hosts, nothing more is said of what is in the other namespace.
    #[error("port {port} belongs to namespace {namespace}: choose another port")]
    Elsewhere { port: u16, namespace: String },
    #[error(
        "port {port} is where controller {controller} listens for its {what}: choose another port"
    )]
    InUse {
        port: u16,
        controller: u64,
        what: &'static str,
    },
    /// Within one namespace: hosts of others are a matter of routes.
    #[error(
        "connections for {name} are those of tunnel {}/{}, which is older: choose another name",
        .with.namespace,
        .with.name
    )]
    Name { name: String, with: Key },
}

impl Refused {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } | Self::Elsewhere { .. } => "PortConflict",
            Self::InUse { .. } => "PortInUse",
            Self::Name { .. } => "NameConflict",
        }
    }
}

/// Makes tables of states, one after the other; a tunnel that did not change is not read again.
pub struct Follower {
    declared: Followed<Tunnel>,
    rules: KnownRules,
}

impl Default for Follower {
    fn default() -> Self {
        Self {
            declared: Followed::new(Resource::Tunnel, Tunnel::of),
            rules: KnownRules::default(),
        }
    }
}

impl Follower {
    /// The table of a state, which is no older than the one before; `routes` are at it already.
    pub fn follow(&mut self, state: &State, routes: &routes::Follower) -> Table {
        let mut members = state.controllers();
        Table {
            tls_port: members.find_map(|(_, member)| port_of(member.ingress_tls.as_ref()?)),
            proxies: Arc::new(Proxies::of(state)),
            ..Table::with(self.tunnels(state), &taken(state), routes)
        }
    }

    /// Only the tunnels.
    pub fn tunnels(&mut self, state: &State) -> BTreeMap<Key, Arc<Tunnel>> {
        let Self { declared, rules } = self;
        declared.follow(state);
        rules.keep(|tunnel| declared.get(tunnel).is_some());
        let domain = domain(state);
        let tunnels = declared.iter().map(|(key, tunnel)| {
            let tunnel = tunnel.clone().in_domain(domain);
            let tunnel = tunnel.guarded(rules, state);
            (key.clone(), Arc::new(tunnel))
        });
        tunnels.collect()
    }
}

impl Table {
    pub fn of(state: &State) -> Self {
        Follower::default().follow(state, &routes::Follower::of(state))
    }

    /// Of several tunnels that ask for a port, or in one namespace for a name, the oldest has it.
    fn with(
        tunnels: BTreeMap<Key, Arc<Tunnel>>,
        taken: &BTreeMap<u16, Listening>,
        routes: &routes::Follower,
    ) -> Self {
        let mut ports: BTreeMap<u16, Key> = BTreeMap::new();
        let mut udp_ports: BTreeMap<u16, Key> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        let mut names: BTreeMap<String, Named> = BTreeMap::new();
        let mut asking: Vec<_> = tunnels.values().collect();
        asking.sort_by(|a, b| (&a.created, &a.key).cmp(&(&b.created, &b.key)));
        for tunnel in asking {
            for name in &tunnel.names {
                // Whoever answers for a name gets certificates for all of the host. Routes say why it does not.
                let is_elsewhere = routes.held_elsewhere(name, &tunnel.key.namespace);
                if is_elsewhere.is_some() {
                    continue;
                }
                if let Err(refusal) = claim(&mut names, name, tunnel) {
                    refused.entry(tunnel.key.clone()).or_insert(refusal);
                }
            }
            let Some(port) = tunnel.port() else { continue };
            let is_udp = tunnel.spec.protocol == Protocol::Udp;
            let ports = match is_udp {
                true => &mut udp_ports,
                false => &mut ports,
            };
            let taken = taken.get(&port).filter(|it| it.is_udp || !is_udp);
            let refusal = match (taken, ports.get(&port)) {
                (
                    Some(Listening {
                        controller, what, ..
                    }),
                    _,
                ) => Refused::InUse {
                    port,
                    controller: *controller,
                    what,
                },
                (None, Some(with)) if with.namespace != tunnel.key.namespace => {
                    Refused::Elsewhere {
                        port,
                        namespace: with.namespace.clone(),
                    }
                }
                (None, Some(with)) => Refused::Conflict {
                    port,
                    with: with.clone(),
                },
                (None, None) => {
                    ports.insert(port, tunnel.key.clone());
                    continue;
                }
            };
            refused.insert(tunnel.key.clone(), refusal);
        }
        Self {
            tunnels,
            ports,
            udp_ports,
            names,
            refused,
            tls_port: None,
            proxies: Arc::default(),
        }
    }
}

/// Takes a name for a tunnel, which is younger than those that have names already.
fn claim(names: &mut BTreeMap<String, Named>, name: &str, tunnel: &Tunnel) -> Result<(), Refused> {
    let key = tunnel.key.clone();
    let ends = tunnel.spec.protocol == Protocol::Http;
    match names.get_mut(name) {
        None => {
            let named = match ends {
                true => Named::Ended(vec![key]),
                false => Named::Passed(key),
            };
            names.insert(name.to_owned(), named);
        }
        Some(Named::Ended(all)) if ends => all.push(key),
        Some(held) => {
            return Err(Refused::Name {
                name: name.to_owned(),
                with: held.owner().clone(),
            });
        }
    }
    Ok(())
}

impl Tunnel {
    /// `None` of what this version of the program cannot read: it leads nowhere.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let declared: Declared = object.parse().ok()?;
        let created = declared.metadata.creation_timestamp?;
        Some(Self {
            key: object.key().clone(),
            uid: object.uid().to_owned(),
            generation: declared.metadata.generation.unwrap_or_default(),
            created: created.0.to_string(),
            spec: declared.spec,
            host: String::new(),
            names: Vec::new(),
            access: Arc::new(Ok(Rules::default())),
        })
    }

    fn in_domain(mut self, domain: &str) -> Self {
        let mut names: Vec<String> = match self.spec.protocol {
            Protocol::Http => {
                let http = self.spec.http.clone().unwrap_or_default();
                let routes = routes_of(&self.key.name, &self.key.namespace, &http, domain);
                let hosts: Vec<String> = routes.into_iter().map(|route| route.host).collect();
                self.host = hosts.first().cloned().unwrap_or_default();
                match self.spec.tls {
                    Some(_) => hosts,
                    None => Vec::new(),
                }
            }
            Protocol::Tls => {
                let names = self.spec.server_names.iter();
                names.map(|name| name.to_ascii_lowercase()).collect()
            }
            Protocol::Tcp | Protocol::Udp => Vec::new(),
        };
        names.sort();
        names.dedup();
        self.names = names;
        self
    }

    /// Under the rules that its spec and the Secrets of a state come to.
    fn guarded(mut self, rules: &mut KnownRules, state: &State) -> Self {
        if let Some(access) = &self.spec.access {
            self.access = rules.of(&self.key, &self.uid, access, state);
        }
        self
    }

    /// Some client may be turned away.
    pub fn is_guarded(&self) -> bool {
        self.spec.access.as_ref().is_some_and(Access::guards)
    }

    #[cfg(test)]
    pub fn with_targets(key: Key, targets: Vec<TunnelTarget>) -> Self {
        let spec = TunnelSpec {
            targets,
            ..TunnelSpec::default()
        };
        Self {
            key,
            uid: String::new(),
            generation: 1,
            created: String::new(),
            spec,
            host: String::new(),
            names: Vec::new(),
            access: Arc::new(Ok(Rules::default())),
        }
    }

    /// Where every controller is to listen for it: nowhere, if somebody else brings its connections.
    pub fn port(&self) -> Option<u16> {
        let has_port = matches!(self.spec.protocol, Protocol::Tcp | Protocol::Udp);
        let listens = has_port && self.spec.provider.is_hive();
        self.spec.port.filter(|_| listens)
    }
}

/// What a controller listens for itself.
struct Listening {
    controller: u64,
    what: &'static str,
    /// Beside TCP.
    is_udp: bool,
}

/// Ports where controllers listen for something else. Every controller has all tunnels, so what one of them
/// needs is none's.
fn taken(state: &State) -> BTreeMap<u16, Listening> {
    let ports = state.controllers().flat_map(|(id, member)| {
        [
            (Some(&member.ingress), "ingress", false),
            (member.ingress_tls.as_ref(), "TLS", false),
            (Some(&member.api), "API", false),
            (Some(&member.link), "links", true),
        ]
        .map(|(endpoint, what, is_udp)| {
            let port = port_of(endpoint?)?;
            let listening = Listening {
                controller: id,
                what,
                is_udp,
            };
            Some((port, listening))
        })
    });
    ports.flatten().collect()
}

fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}

/// Whether a change can be one of a tunnel, of a certificate, or of a function that has a tunnel's name as its host.
/// Those of controllers always are looked at.
pub fn may_matter(change: &Change) -> bool {
    let resource = change.key.resource;
    matches!(
        resource,
        Resource::Tunnel | Resource::Secret | Resource::Function
    ) || is_settings(change)
}

#[cfg(test)]
mod tests;
