//! Cloudflare: each controller runs a cloudflared for each tunnel, which connects to Cloudflare's network and hands
//! what comes from there to this controller's ingress.
//!
//! A connector needs a tunnel's token. Somebody made the tunnel and put its token into a Secret; or the leader makes
//! the tunnel by Cloudflare's API ([`account`]) and puts its token there. Every controller has the same token:
//! Cloudflare spreads requests over all connectors, and goes on with those that are left.

pub mod account;
pub mod api;
mod connector;
mod consent;
mod plan;
mod ready;
mod slots;
#[cfg(test)]
mod stand_in;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hive_manifests::tunnel::{Provider as Kind, TUNNEL_TOKEN};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Launcher, Part, Provider, Standings, Token, Trouble, follow, secret};
use crate::ingress::routes::{self, Lost, domain, routes_of};
use crate::reconcile::{Looks, Outlook};
use crate::state::{Key, State};
use crate::store::Replica;
use crate::tunnels::table::{Follower, Tunnel, may_matter};
use connector::Connector;

/// Looks that left something to do would come this often. None does: a connector tries again by itself.
const RETRY: Duration = Duration::from_secs(5);

/// Programs that run at once on a controller, with some 30 MB and a thread each: what a small machine has beside its own
/// work. Namespaces share them.
const MAX_CONNECTORS: usize = 64;

/// How a connector is run.
#[derive(Clone, Debug)]
pub struct Cloudflared {
    pub launcher: Launcher,
    /// A path, or a name that is looked up in PATH.
    pub program: PathBuf,
    /// Where this controller's ingress listens.
    pub ingress: SocketAddr,
}

/// With what a connector is run.
#[derive(Clone, PartialEq)]
pub struct Job {
    token: Token,
    /// When its tunnel was made, in text that sorts.
    created: String,
}

/// The connectors of this controller.
pub struct Connectors {
    cloudflared: Arc<Cloudflared>,
    standings: Standings,
    /// Who has which host. It takes as much room as all routes: there is none without a tunnel of this provider.
    routes: Option<routes::Follower>,
    running: BTreeMap<Key, (Token, DropGuard)>,
    /// That may run at once.
    most: usize,
    ending: TaskTracker,
}

impl Connectors {
    pub fn new(cloudflared: Cloudflared, standings: Standings) -> Self {
        Self {
            cloudflared: Arc::new(cloudflared),
            standings,
            routes: None,
            running: BTreeMap::new(),
            most: MAX_CONNECTORS,
            ending: TaskTracker::new(),
        }
    }

    /// Goes on to who has which host by a state, if some of these tunnels is to be asked about.
    fn follow_routes(&mut self, tunnels: &BTreeMap<Key, Arc<Tunnel>>, state: &State) {
        let mut tunnels = tunnels.values();
        if !tunnels.any(|it| it.spec.provider == Self::KIND) {
            self.routes = None;
        } else if let Some(routes) = &mut self.routes {
            routes.follow(state);
        } else {
            self.routes = Some(routes::Follower::of(state));
        }
    }

    /// Why nothing is to be brought for a tunnel, if each of its hosts is another namespace's.
    fn lost(&self, tunnel: &Tunnel, state: &State) -> Option<Lost> {
        let (key, held) = (&tunnel.key, self.routes.as_ref()?);
        let http = tunnel.spec.http.clone().unwrap_or_default();
        let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
        let lost = routes
            .iter()
            .map(|route| held.held_elsewhere(&route.host, &key.namespace));
        let all: Vec<Lost> = lost.collect::<Option<_>>()?;
        all.into_iter().next()
    }

    /// That of a tunnel.
    fn token(&self, tunnel: &Tunnel, state: &State) -> Result<Token, Trouble> {
        let Some(said) = &tunnel.spec.cloudflare else {
            let message = "spec.cloudflare says nothing: name a Secret with the tunnel's token";
            return Err(Trouble::new("Incomplete", message));
        };
        let namespace = &tunnel.key.namespace;
        consent::given(state, namespace)?;
        if said.account_id.is_none() {
            return secret::read(state, namespace, &said.secret_name, TUNNEL_TOKEN);
        }
        // Until the leader has made the tunnel there is none.
        let name = account::secret_name(&tunnel.key);
        let read = |key| {
            let read = secret::read(state, namespace, &name, key);
            read.map_err(|_| Trouble::starting(Kind::Cloudflare))
        };
        let (token, there) = (read(TUNNEL_TOKEN)?, read(account::SERVICE)?);
        let here = origin(self.cloudflared.ingress);
        if there.expose() != here {
            let message = format!(
                "Cloudflare is told to hand requests to {}, where the leader has its ingress, and this controller has it at \
                 {here}: give all controllers one --ingress-port, and none its own --bind",
                there.expose()
            );
            return Err(Trouble::new("OtherAddress", message));
        }
        Ok(token)
    }
}

impl Provider for Connectors {
    type Job = Job;
    const KIND: Kind = Kind::Cloudflare;

    fn job(&self, tunnel: &Tunnel, state: &State) -> Result<Job, Trouble> {
        if let Some(lost) = self.lost(tunnel, state) {
            return Err(Trouble::new(lost.reason(), lost.to_string()));
        }
        Ok(Job {
            token: self.token(tunnel, state)?,
            created: tunnel.created.clone(),
        })
    }

    fn serve(&mut self, jobs: BTreeMap<Key, Job>) {
        let wanting = jobs.iter().map(|(key, job)| (key, &*job.created));
        let chosen = slots::share(wanting, self.most);
        self.running.retain(|key, (token, _)| {
            chosen.contains(key) && jobs.get(key).is_some_and(|job| job.token == *token)
        });
        for (key, Job { token, .. }) in jobs {
            if self.running.contains_key(&key) {
                continue;
            }
            if !chosen.contains(&key) {
                let trouble = too_many(&key.namespace, self.most);
                self.standings.trouble(&key, Part::Connector, trouble);
                continue;
            }
            let stop = CancellationToken::new();
            let connector = Connector {
                tunnel: key.clone(),
                token: token.clone(),
                cloudflared: self.cloudflared.clone(),
                standings: self.standings.clone(),
                stop: stop.clone(),
            };
            match connector.start(self.ending.token()) {
                Ok(()) => drop(self.running.insert(key, (token, stop.drop_guard()))),
                Err(error) => {
                    let message = format!("this machine has no thread left: {error}");
                    let trouble = Trouble::new("NoThread", message);
                    self.standings.trouble(&key, Part::Connector, trouble);
                }
            }
        }
    }
}

fn too_many(namespace: &str, most: usize) -> Trouble {
    let message = format!(
        "{most} tunnels run cloudflared on this controller, as many as may, and namespaces have equal shares of them: delete \
         older ones of namespace {namespace}, or give one several hosts (spec.http.routes)"
    );
    Trouble::new("TooManyConnectors", message)
}

/// Where a connector finds the ingress that listens there, as Cloudflare is told: all connectors of a tunnel share one
/// configuration.
fn origin(ingress: SocketAddr) -> String {
    let ip = match ingress.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, ingress.port()))
}

/// Runs the connectors that this controller is to have, until cancelled; then ends them.
pub async fn serve(
    cloudflared: Cloudflared,
    standings: Standings,
    replica: Replica,
    cancel: CancellationToken,
) {
    let mut connectors = Connectors::new(cloudflared, standings.clone());
    let ending = connectors.ending.clone();
    let mut follower = Follower::default();
    Looks::new(&replica, RETRY, &cancel)
        .only_for(may_matter)
        .with_rests()
        .run(async move |_, state| {
            let tunnels = follower.tunnels(state);
            connectors.follow_routes(&tunnels, state);
            let part = Part::Connector;
            follow(&mut connectors, &standings, part, &tunnels, state);
            Outlook::Settled
        })
        .await;
    // They were told to end with what held them.
    ending.close();
    ending.wait().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use hive_manifests::Resource;
    use serde_json::{Value, json};

    use super::*;
    use crate::access::tokens::SYSTEM_NAMESPACE;
    use crate::fixture::{declare, made_in, put};
    use crate::ingress::routes::SETTINGS;
    use crate::state::Command;
    use crate::tunnels::table::Table;

    fn create(state: &mut State, resource: Resource, name: &str, extra: Value) {
        declare(state, Key::new(resource, "default", name), extra);
    }

    #[test]
    fn a_connector_runs_with_the_token_of_its_tunnel() {
        let mut state = State::default();
        let token = |key: &str, token: &str| json!({ "data": { key: BASE64.encode(token) } });
        let account = "699d98642c564d2e855e9661899b7252";
        for (name, cloudflare) in [
            ("own", json!({ "secretName": "own" })),
            ("none", json!({ "secretName": "none" })),
            ("new", json!({ "secretName": "api", "accountId": account })),
            ("made", json!({ "secretName": "api", "accountId": account })),
        ] {
            let http = json!({ "host": format!("{name}.example.org") });
            let spec = json!({ "provider": "Cloudflare", "cloudflare": cloudflare, "http": http });
            create(&mut state, Resource::Tunnel, name, json!({ "spec": spec }));
        }
        let made = json!({ "data": {
            TUNNEL_TOKEN: BASE64.encode("of-made"),
            account::SERVICE: BASE64.encode("http://127.0.0.1:8080"),
        } });
        for (name, secret) in [
            ("own", token(TUNNEL_TOKEN, "of-own")),
            ("api", token("apiToken", "of-api")),
            ("made-cloudflared", made),
        ] {
            create(&mut state, Resource::Secret, name, secret);
        }
        let table = Table::of(&state);
        let told = |state: &State, ingress: &str| {
            let cloudflared = Cloudflared {
                launcher: Launcher::direct(),
                program: PathBuf::from("cloudflared"),
                ingress: ingress.parse().unwrap(),
            };
            let connectors = Connectors::new(cloudflared, Standings::default());
            let one = |(key, tunnel): (&Key, &Arc<Tunnel>)| {
                let said = match connectors.job(tunnel, state) {
                    Ok(job) => job.token.expose().to_owned(),
                    Err(trouble) => trouble.reason.to_owned(),
                };
                format!("{} {said}", key.name)
            };
            table.tunnels.iter().map(one).collect::<Vec<_>>()
        };
        let not_permitted =
            ["made", "new", "none", "own"].map(|name| format!("{name} NotPermitted"));
        assert_eq!(told(&state, "0.0.0.0:8080"), not_permitted);
        let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let data = json!({ "data": { "cloudflare.namespaces": "default" } });
        declare(&mut state, settings, data);
        assert_eq!(
            told(&state, "0.0.0.0:8080"),
            [
                "made of-made",
                "new Starting",
                "none SecretNotFound",
                "own of-own"
            ]
        );
        // Where Cloudflare would hand requests, somebody else listens.
        assert_eq!(
            told(&state, "0.0.0.0:80"),
            [
                "made OtherAddress",
                "new Starting",
                "none SecretNotFound",
                "own of-own"
            ]
        );
    }

    #[test]
    fn a_connector_finds_the_ingress_where_it_listens() {
        for (ingress, expected) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://127.0.0.1:8080"),
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("[fd00::7]:8080", "http://[fd00::7]:8080"),
        ] {
            assert_eq!(origin(ingress.parse().unwrap()), expected);
        }
    }

    fn nowhere() -> Cloudflared {
        Cloudflared {
            launcher: Launcher::direct(),
            program: PathBuf::from("/nowhere/cloudflared"),
            ingress: "127.0.0.1:8080".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_tunnel_whose_hosts_are_all_taken_has_no_connector() {
        let mut state = State::default();
        let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let data = json!({ "data": { "cloudflare.namespaces": "default" } });
        declare(&mut state, settings, data);
        let token = json!({ "data": { TUNNEL_TOKEN: BASE64.encode("of-own") } });
        create(&mut state, Resource::Secret, "own", token);
        let http = json!({ "routes": [{ "host": "a.example.org" }, { "host": "b.example.org" }] });
        let spec = json!({ "provider": "Cloudflare", "cloudflare": { "secretName": "own" }, "http": http });
        create(
            &mut state,
            Resource::Tunnel,
            "photos",
            json!({ "spec": spec }),
        );

        let standings = Standings::default();
        let mut connectors = Connectors::new(nowhere(), standings.clone());
        let ending = connectors.ending.clone();
        let mut follower = Follower::default();
        let mut served = |state: &State| {
            let tunnels = follower.tunnels(state);
            connectors.follow_routes(&tunnels, state);
            let part = Part::Connector;
            follow(&mut connectors, &standings, part, &tunnels, state);
            let mut jobs = tunnels.values().map(|it| connectors.job(it, state));
            let trouble = jobs.find_map(Result::err).map(|it| it.reason);
            (connectors.running.len(), trouble)
        };
        assert_eq!(served(&state), (1, None));
        let older = |name: &str| Key::new(Resource::Function, "other", name);
        for (name, expected) in [("a", (1, None)), ("b", (0, Some("HostTaken")))] {
            let http = json!({ "host": format!("{name}.example.org") });
            let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
            let function = made_in(2020, &older(name), json!({ "spec": spec }));
            put(&mut state, older(name), &function);
            assert_eq!(served(&state), expected, "{name}");
        }
        let (key, expect, uid) = (older("a"), None, None);
        state.apply(Command::Delete { key, expect, uid }).unwrap();
        assert_eq!(served(&state), (1, None));
        drop(connectors);
        ending.close();
        ending.wait().await;
    }

    #[tokio::test]
    async fn connectors_are_bounded_and_namespaces_share_them() {
        let standings = Standings::default();
        let mut connectors = Connectors::new(nowhere(), standings.clone());
        connectors.most = 2;
        // Tunnels as `namespace/name`, the oldest first.
        let mut serve = |tunnels: &[&str]| {
            let jobs = tunnels.iter().enumerate().map(|(age, tunnel)| {
                let (namespace, name) = tunnel.split_once('/').unwrap();
                let job = Job {
                    token: Token::new(*tunnel),
                    created: age.to_string(),
                };
                (Key::new(Resource::Tunnel, namespace, name), job)
            });
            connectors.serve(jobs.collect());
            let running = connectors.running.keys();
            let names = running.map(|key| format!("{}/{}", key.namespace, key.name));
            names.collect::<Vec<_>>()
        };
        assert_eq!(serve(&["a/x", "a/y"]), ["a/x", "a/y"]);
        assert_eq!(serve(&["a/x", "a/y", "a/z"]), ["a/x", "a/y"]);
        // Another namespace has its share.
        assert_eq!(serve(&["a/x", "a/y", "a/z", "b/x"]), ["a/x", "b/x"]);
        let refused = Key::new(Resource::Tunnel, "a", "z");
        let told = standings.of(&refused, Kind::Cloudflare).trouble.unwrap();
        assert_eq!(told.reason, "TooManyConnectors");
        assert!(told.message.contains("of namespace a,"), "{}", told.message);
        assert_eq!(serve(&["a/z", "b/x"]), ["a/z", "b/x"]);
        let ending = connectors.ending.clone();
        drop(connectors);
        ending.close();
        ending.wait().await;
    }
}
