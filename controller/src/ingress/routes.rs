//! Which function or tunnel a request is for, and where that is ready. A table that is only read; the
//! [`Follower`] makes the next one of it when a state changes.

mod changes;
mod claims;
mod follow;
#[cfg(test)]
mod tests;
mod tunnels;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hive_manifests::Resource;
use hive_manifests::http::{Http, HttpRoute, PathType, is_reserved};
use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;
use http::{HeaderMap, HeaderValue, Method};
use imbl::HashMap;

use super::https::Https;
use super::plain::{ended, plain};
use super::split::{Canary, Share, Ways};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::state::{Key, State};

use claims::Host;
pub use claims::{Claimant, Lost, claimant, home};
pub use follow::{Follower, is_settings, may_matter};
use tunnels::{Behind, Led};

/// Where the swarm's settings are: a ConfigMap in the system's namespace.
pub const SETTINGS: &str = "swarm";

/// Functions and tunnels without a host of their own answer at `<name>.<namespace>.<domain>`. Names under
/// `localhost` resolve to the loopback address everywhere, without any DNS (RFC 6761).
const DEFAULT_DOMAIN: &str = "localhost";

/// The domain of the swarm.
pub fn domain(state: &State) -> &str {
    state
        .get(&Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS))
        .and_then(|settings| settings.body()["data"]["domain"].as_str())
        .unwrap_or(DEFAULT_DOMAIN)
}

/// Where a function or a tunnel answers; the first is its address. What its routes leave out is as with
/// one route.
pub fn routes_of(name: &str, namespace: &str, http: &Http, domain: &str) -> Vec<Route> {
    let host = |own: Option<&String>| match own.or(http.host.as_ref()) {
        Some(host) => host.to_ascii_lowercase(),
        None => format!("{name}.{namespace}.{domain}"),
    };
    if http.routes.is_empty() {
        return vec![Route {
            host: host(None),
            path: http.path.clone(),
            ..Route::default()
        }];
    }
    let route = |route: &HttpRoute| Route {
        host: host(route.host.as_ref()),
        path: route.path.clone(),
        methods: route
            .methods
            .iter()
            .map(|m| m.as_str().to_owned())
            .collect(),
        exact: route.path_type == PathType::Exact,
    };
    http.routes.iter().map(route).collect()
}

/// Those of them that are answered, at an ingress as at a node's own address: paths that nobody may have are in
/// manifests that were taken before it was forbidden.
pub fn answered_routes(name: &str, namespace: &str, http: &Http, domain: &str) -> Vec<Route> {
    let mut routes = routes_of(name, namespace, http, domain);
    routes.retain(|route| !is_reserved(&route.path));
    routes
}

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backend<'a> {
    Function(&'a FunctionBackend),
    /// The first, a tunnel, leads to a function.
    Exposed(&'a Key, &'a FunctionBackend),
    /// The targets of a tunnel.
    Tunnel(&'a Key),
    /// The first, a tunnel, leads to the second, a function that does not exist.
    NoFunction(&'a Key, &'a Key),
}

/// What a request is for.
#[derive(Debug, PartialEq)]
pub struct Found<'a> {
    /// The path of the route that it takes.
    pub route: &'a str,
    pub backend: Backend<'a>,
    /// Of a tunnel that is served by https.
    pub https: Option<&'a Https>,
}

/// One function that answers requests.
#[derive(Debug, PartialEq)]
pub struct FunctionBackend {
    pub key: Key,
    pub namespace: HeaderValue,
    pub function: HeaderValue,
    /// The copies that are wanted of it.
    pub stable: Share,
    /// Beside them, those that try a version.
    pub canary: Option<Canary>,
    /// It scales by itself: where it has no copy, a request makes one come.
    pub wakes: bool,
    /// How long the function may take, as its node counts it.
    pub timeout: Duration,
}

impl FunctionBackend {
    /// Takes over whose turn it is.
    fn go_on(&self, before: &Self) {
        self.stable.turn.follow(&before.stable.turn);
        if let (Some(canary), Some(before)) = (&self.canary, &before.canary) {
            canary.turn.follow(&before.turn);
            canary.share.turn.follow(&before.share.turn);
        }
    }

    /// There is a copy of it somewhere.
    pub fn is_ready(&self) -> bool {
        // None tries a version without being ready.
        !self.stable.nodes.is_empty() || self.canary.is_some()
    }

    /// The nodes to ask for a request with these headers.
    pub fn ways(&self, headers: &HeaderMap) -> Ways<'_> {
        Ways::choose(&self.stable, self.canary.as_ref(), headers)
    }
}

/// All routes of the swarm at one revision. A clone is O(1), and shares what is the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// That of the swarm.
    domain: Arc<str>,
    hosts: HashMap<String, Host>,
    functions: HashMap<Key, Arc<FunctionBackend>>,
    tunnels: HashMap<Key, Led>,
}

impl Routes {
    pub fn of(state: &State) -> Self {
        Follower::of(state).routes()
    }

    /// What a request is for, and the path of its route; `host` may carry a port.
    pub fn find(&self, host: &str, method: &Method, path: &str) -> Chosen<(&str, Backend<'_>)> {
        match self.locate(host, method, path) {
            Chosen::One(Found { route, backend, .. }) => Chosen::One((route, backend)),
            Chosen::OtherMethods(allowed) => Chosen::OtherMethods(allowed),
            Chosen::Nobody => Chosen::Nobody,
        }
    }

    /// The same, and how the tunnel wants to be asked that has the route.
    pub fn locate(&self, host: &str, method: &Method, path: &str) -> Chosen<Found<'_>> {
        let host = plain_host(host);
        match choose(self.answered(&host), method.as_str(), path) {
            Chosen::One((pattern, owner)) => {
                let tunnel = self.tunnels.get(owner);
                let found = self.backend(owner).map(|backend| Found {
                    route: pattern.path(),
                    backend,
                    https: tunnel.and_then(|tunnel| tunnel.https.as_ref()),
                });
                found.map_or(Chosen::Nobody, Chosen::One)
            }
            Chosen::OtherMethods(allowed) => Chosen::OtherMethods(allowed),
            Chosen::Nobody => Chosen::Nobody,
        }
    }

    /// Whether who stands behind could read a path as that of another route, by [`plain`] or [`ended`]: the rules of the
    /// one say nothing of who may have what is at the other.
    pub fn is_unclear(&self, host: &str, method: &Method, path: &str) -> bool {
        // As nearly always.
        if plain(path) == path {
            return false;
        }
        let (host, method) = (plain_host(host), method.as_str());
        let written = choose(self.answered(&host), method, path);
        let ways: [fn(&str) -> Cow<'_, str>; 2] = [plain, ended];
        ways.into_iter()
            .any(|read| self.choose_by(read, &host, method, path) != written)
    }

    /// What is chosen by who reads paths so, those of routes as well.
    fn choose_by<'a>(
        &'a self,
        read: fn(&str) -> Cow<'_, str>,
        host: &str,
        method: &str,
        path: &str,
    ) -> Chosen<(&'a Pattern, &'a Key)> {
        let path = read(path);
        let mut all = self.answered(host);
        // As most routes are, and then nothing is to be sorted anew.
        if all.all(|(pattern, _)| read(pattern.path()) == pattern.path()) {
            return choose(self.answered(host), method, &path);
        }
        let answered: BTreeMap<Pattern, _> = self
            .answered(host)
            .map(|(pattern, owned)| (pattern.at(&read(pattern.path())), owned))
            .collect();
        let answered = answered.iter().map(|(pattern, owned)| (pattern, *owned));
        choose(answered, method, &path)
    }

    /// What the routes of a function or a tunnel lead to.
    fn backend(&self, owner: &Key) -> Option<Backend<'_>> {
        if owner.resource == Resource::Function {
            return self.function(owner).map(Backend::Function);
        }
        let (tunnel, led) = self.tunnels.get_key_value(owner)?;
        Some(match &led.behind {
            Behind::Targets => Backend::Tunnel(tunnel),
            Behind::Function(key) => match self.function(key) {
                Some(function) => Backend::Exposed(tunnel, function),
                None => Backend::NoFunction(tunnel, key),
            },
        })
    }

    pub fn function(&self, key: &Key) -> Option<&FunctionBackend> {
        self.functions.get(key).map(|backend| &**backend)
    }
}

/// As routes call it: without a port, in lower case.
pub fn plain_host(host: &str) -> Cow<'_, str> {
    let mut host = Cow::Borrowed(without_port(host).trim_end_matches('.'));
    if host.bytes().any(|c| c.is_ascii_uppercase()) {
        host.to_mut().make_ascii_lowercase();
    }
    host
}

pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}
