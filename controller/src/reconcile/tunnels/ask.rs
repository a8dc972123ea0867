//! What is tried to find out whether a tunnel is reached. Pure.

use std::fmt;
use std::time::Duration;

use hive_manifests::tunnel::access::Access;
use hive_manifests::tunnel::{Protocol, Provider, TunnelSpec};
use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;

use super::trust::Trust;
use crate::ingress::routes::{domain, routes_of};
use crate::reconcile::status::Base;
use crate::state::{Key, Member, State};
use crate::tunnels::certificates::Certificate;

/// For an answer, however much longer the spec allows: then the next try is due.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// One try.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub way: Way,
    /// All controllers, where each is reached for this.
    pub controllers: Vec<Advertised>,
    /// The controllers let not everybody in, and nobody for this: they answer themselves, or end the connection.
    pub guarded: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// A request to wherever the name of its host leads, and to each controller.
    Http(Question),
    /// A connection to each controller.
    Tcp,
    /// A handshake with whoever answers for this name behind the controllers.
    Tls(Greeting),
    /// A datagram to each controller, where one is known that the target answers. Others might do anything there.
    Udp {
        datagram: Option<Vec<u8>>,
        /// For its answer.
        patience: Duration,
    },
    /// What a provider brings to a controller: a request to each, as it hands it over. `None` where it hands over
    /// connections, which nobody else can.
    Brought {
        by: Provider,
        question: Option<Question>,
    },
}

impl Way {
    /// Whose address is looked up, as a client does.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Http(question) => Some(&question.host),
            Self::Tls(greeting) => Some(&greeting.name),
            Self::Tcp | Self::Udp { .. } | Self::Brought { .. } => None,
        }
    }

    /// The request that is made, if it is one.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Self::Http(question) => Some(question),
            Self::Brought { question, .. } => question.as_ref(),
            Self::Tcp | Self::Tls(_) | Self::Udp { .. } => None,
        }
    }
}

/// A handshake, after which nothing is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    pub name: String,
    /// For the target to answer.
    pub patience: Duration,
}

/// A request that changes nothing at the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub host: String,
    /// `None` where no route takes a method that does no harm: then the ingress is heard, who knows the path.
    pub method: Option<&'static str>,
    pub path: String,
    /// For its answer.
    pub patience: Duration,
    /// Where it is asked by https.
    pub https: Option<Trust>,
}

/// Where a controller is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub id: u64,
    /// A name or an address.
    pub host: String,
    pub port: u16,
}

/// Which of a controller's ports.
#[derive(Clone, Copy)]
enum Port {
    Ingress,
    Tls,
    Own(Option<u16>),
}

impl Advertised {
    /// Where all controllers take requests.
    pub fn all(state: &State) -> Vec<Self> {
        let members = state.controllers();
        members
            .filter_map(|(id, member)| Self::of(id, member, Port::Ingress))
            .collect()
    }

    /// `None` of what is no endpoint.
    fn of(id: u64, member: &Member, port: Port) -> Option<Self> {
        let endpoint = match port {
            Port::Ingress | Port::Own(_) => &member.ingress,
            Port::Tls => member.ingress_tls.as_ref()?,
        };
        let (host, advertised) = endpoint.rsplit_once(':')?;
        Some(Self {
            id,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: match port {
                Port::Own(Some(own)) => own,
                _ => advertised.parse().ok()?,
            },
        })
    }

    /// `203.0.113.7:2222`, `[2001:db8::7]:2222`, `hive.example.org:2222`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "controller {} at {}", self.id, self.address())
    }
}

/// What is to be tried for a tunnel, and where people are told to reach it. `certificate` is what it is served
/// with, by https.
pub fn ask(
    key: &Key,
    spec: &TunnelSpec,
    certificate: Option<&Certificate>,
    state: &State,
) -> (Ask, Vec<String>) {
    let port = match spec.protocol {
        Protocol::Tcp | Protocol::Udp => Port::Own(spec.port),
        Protocol::Tls => Port::Tls,
        Protocol::Http if spec.tls.is_some() => Port::Tls,
        Protocol::Http => Port::Ingress,
    };
    let members = state.controllers();
    let controllers: Vec<Advertised> = members
        .filter_map(|(id, member)| Advertised::of(id, member, port))
        .collect();
    let check = &spec.health_check;
    let guarded = spec.access.as_ref().is_some_and(Access::guards);
    let (way, mut addresses): (_, Vec<String>) = match spec.protocol {
        Protocol::Tcp => {
            let addresses = controllers.iter().map(Advertised::address).collect();
            (Way::Tcp, addresses)
        }
        Protocol::Tls => {
            let port = controllers.first().map_or(443, |first| first.port);
            let names = spec.server_names.iter().map(|it| it.to_ascii_lowercase());
            let names: Vec<String> = names.collect();
            let greeting = Greeting {
                name: names.first().cloned().unwrap_or_default(),
                patience: check.timeout.0.min(LONGEST_PATIENCE),
            };
            let addresses = names.iter().map(|name| format!("{name}:{port}"));
            (Way::Tls(greeting), addresses.collect())
        }
        Protocol::Udp => {
            let addresses = controllers.iter().map(Advertised::address).collect();
            let way = Way::Udp {
                // Guards let no datagram of the leader's in.
                datagram: check.datagram().filter(|_| !guarded),
                patience: check.timeout.0.min(LONGEST_PATIENCE),
            };
            (way, addresses)
        }
        Protocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
            let base = Base::of(state);
            let by_https = spec.tls.is_some();
            let url = |route: &Route| match by_https {
                true => base.secure_url(route),
                false => base.url(route),
            };
            let addresses = routes.iter().map(url).collect();
            let mut question = question(&routes, check.path.as_deref(), check.timeout.0);
            question.https = by_https.then(|| certificate.map(Trust::of).unwrap_or_default());
            (Way::Http(question), addresses)
        }
    };
    // Controllers of one machine have one host, and routes of several methods one path.
    dedup_in_order(&mut addresses);
    let ask = Ask {
        way,
        controllers,
        guarded,
    };
    match spec.provider {
        Provider::Hive => (ask, addresses),
        by => (brought(ask, by), at_provider(by, spec, key, state)),
    }
}

/// The same where somebody else takes what comes from outside.
fn brought(ask: Ask, by: Provider) -> Ask {
    let (question, controllers) = match ask.way {
        Way::Http(question) => (Some(question), ask.controllers),
        _ => (None, Vec::new()),
    };
    Ask {
        way: Way::Brought { by, question },
        controllers,
        guarded: ask.guarded,
    }
}

/// Cloudflare answers for the hosts, and ends TLS. The address of an onion service is known to who serves it.
fn at_provider(by: Provider, spec: &TunnelSpec, key: &Key, state: &State) -> Vec<String> {
    if by != Provider::Cloudflare {
        return Vec::new();
    }
    let http = spec.http.clone().unwrap_or_default();
    let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
    let mut addresses: Vec<String> = routes
        .iter()
        .map(|route| format!("https://{}{}", route.host, route.path))
        .collect();
    dedup_in_order(&mut addresses);
    addresses
}

fn dedup_in_order(addresses: &mut Vec<String>) {
    let all = std::mem::take(addresses);
    for address in all {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

/// For the path that tells the service's health, where the routes lead there.
fn question(routes: &[Route], wish: Option<&str>, patience: Duration) -> Question {
    let of = |route: &Route, method, path: &str| Question {
        host: route.host.clone(),
        method,
        path: path.to_owned(),
        patience: patience.min(LONGEST_PATIENCE),
        https: None,
    };
    let first = &routes[0];
    if let Some(path) = wish.filter(|path| leads(routes, &first.host, path)) {
        return of(first, Some("GET"), path);
    }
    let takes = |route: &Route, method: &str| {
        route.methods.is_empty() || route.methods.iter().any(|it| it == method)
    };
    for method in ["GET", "HEAD"] {
        if let Some(route) = routes.iter().find(|route| takes(route, method)) {
            return of(route, Some(method), &route.path);
        }
    }
    of(first, None, &first.path)
}

/// Whether a GET for a path at a host takes one of the routes.
fn leads(routes: &[Route], host: &str, path: &str) -> bool {
    let of_host = routes.iter().filter(|route| route.host == host);
    let mut patterns: Vec<Pattern> = of_host.flat_map(Pattern::of).collect();
    patterns.sort();
    let patterns = patterns.iter().map(|pattern| (pattern, ()));
    let path = path.split('?').next().unwrap_or_default();
    choose(patterns, "GET", path) == Chosen::One(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::{Value, json};

    use super::*;
    use crate::state::Command;

    fn swarm(ingresses: &[&str]) -> State {
        let mut state = State::default();
        for ingress in ingresses {
            let member = Member {
                ingress: (*ingress).to_owned(),
                ..Member::default()
            };
            state.apply(Command::AdmitController { member }).unwrap();
        }
        state
    }

    fn asked(state: &State, spec: Value) -> (Ask, Vec<String>) {
        let spec: TunnelSpec = serde_json::from_value(spec).unwrap();
        ask(
            &Key::new(Resource::Tunnel, "default", "photos"),
            &spec,
            None,
            state,
        )
    }

    #[test]
    fn what_is_served_by_tls_is_reached_at_the_port_for_it() {
        let mut state = State::default();
        for (ingress, tls) in [
            ("c.org:80", None),
            ("d.org:80", Some("d.org:443")),
            ("e.org:80", Some("e.org:8443")),
        ] {
            let member = Member {
                ingress: ingress.to_owned(),
                ingress_tls: tls.map(str::to_owned),
                ..Member::default()
            };
            state.apply(Command::AdmitController { member }).unwrap();
        }
        let tls = json!({ "secretName": "s" });
        let (ask, addresses) = asked(&state, json!({ "http": { "host": "a.org" }, "tls": tls }));
        assert_eq!(addresses, ["https://a.org/"]);
        let at: Vec<String> = ask.controllers.iter().map(Advertised::address).collect();
        assert_eq!(at, ["d.org:443", "e.org:8443"]);
        assert!(matches!(
            ask.way,
            Way::Http(Question { https: Some(_), .. })
        ));

        let passed = json!({ "protocol": "TLS", "serverNames": ["DB.org", "x.org"] });
        let (ask, addresses) = asked(&state, passed);
        assert_eq!(addresses, ["db.org:443", "x.org:443"]);
        assert_eq!(ask.way.name(), Some("db.org"));
        let nowhere = asked(&State::default(), json!({ "tls": tls }));
        assert_eq!(nowhere.0.controllers, []);
        assert_eq!(nowhere.1, ["https://photos.default.localhost/"]);
    }

    #[test]
    fn an_http_tunnel_is_reached_at_its_host_and_the_port_of_the_ingress() {
        let three = swarm(&["203.0.113.7:80", "[2001:db8::8]:80", "c.example.org:80"]);
        let one = swarm(&["127.0.0.1:8080"]);
        let own = json!({ "http": { "host": "Photos.example.org", "path": "/p" } });
        let routes = json!({ "http": { "host": "a.org", "routes": [
            { "path": "/x", "methods": ["GET"] }, { "path": "/x", "methods": ["PUT"] }, { "host": "b.org" },
        ] } });
        for (state, spec, expected) in [
            (&three, &own, vec!["http://photos.example.org/p"]),
            (&one, &own, vec!["http://photos.example.org:8080/p"]),
            (
                &one,
                &json!({}),
                vec!["http://photos.default.localhost:8080/"],
            ),
            (&three, &routes, vec!["http://a.org/x", "http://b.org/"]),
        ] {
            assert_eq!(asked(state, spec.clone()).1, expected, "{spec}");
        }
    }

    #[test]
    fn a_tcp_tunnel_is_reached_at_its_port_on_every_controller() {
        let spec = json!({ "protocol": "TCP", "port": 2222 });
        let state = swarm(&["203.0.113.7:80", "[2001:db8::8]:80", "c.example.org:80"]);
        let (ask, addresses) = asked(&state, spec.clone());
        let expected = [
            "203.0.113.7:2222",
            "[2001:db8::8]:2222",
            "c.example.org:2222",
        ];
        assert_eq!(addresses, expected);
        assert_eq!(ask.way, Way::Tcp);
        assert_eq!(
            ask.controllers[1].to_string(),
            "controller 2 at [2001:db8::8]:2222"
        );
        let (ask, addresses) = asked(&swarm(&["127.0.0.1:1", "127.0.0.1:2"]), spec);
        assert_eq!(addresses, ["127.0.0.1:2222"]);
        assert_eq!(ask.controllers.len(), 2);
    }

    #[test]
    fn a_tunnel_that_turns_somebody_away_is_known_as_such() {
        let tcp = |access: Value| json!({ "protocol": "TCP", "port": 2222, "access": access });
        for (spec, expected) in [
            (json!({}), false),
            (json!({ "access": {} }), false),
            (
                json!({ "access": { "basicAuth": { "secretName": "s" } } }),
                true,
            ),
            (tcp(json!({ "allowedClients": ["10.0.0.0/8"] })), true),
            (
                tcp(json!({ "rateLimit": { "requestsPerSecond": 1 } })),
                true,
            ),
        ] {
            let guarded = asked(&swarm(&[]), spec.clone()).0.guarded;
            assert_eq!(guarded, expected, "{spec}");
        }
    }

    #[test]
    fn a_udp_tunnel_is_asked_what_its_targets_are_asked() {
        let state = swarm(&["203.0.113.7:80", "c.example.org:80"]);
        for (check, expected) in [
            (json!({ "timeout": "50s" }), None),
            (
                json!({ "timeout": "50s", "payload": "cGluZw==" }),
                Some(b"ping".to_vec()),
            ),
        ] {
            let spec = json!({ "protocol": "UDP", "port": 5353, "healthCheck": check });
            let (ask, addresses) = asked(&state, spec);
            assert_eq!(addresses, ["203.0.113.7:5353", "c.example.org:5353"]);
            let way = Way::Udp {
                datagram: expected,
                patience: LONGEST_PATIENCE,
            };
            assert_eq!(ask.way, way);
        }
    }

    #[test]
    fn what_a_provider_brings_is_asked_of_the_controllers() {
        let state = swarm(&["203.0.113.7:80", "203.0.113.8:80"]);
        let http = json!({ "host": "photos.example.org", "path": "/p" });
        let (ask, addresses) = asked(&state, json!({ "provider": "Cloudflare", "http": http }));
        assert_eq!(addresses, ["https://photos.example.org/p"]);
        assert_eq!(ask.controllers.len(), 2);
        let Way::Brought { by, question } = ask.way else {
            panic!("{:?}", ask.way);
        };
        assert_eq!(by, Provider::Cloudflare);
        assert_eq!(question.unwrap().host, "photos.example.org");
        let ssh = json!({ "provider": "Tor", "protocol": "TCP", "port": 2222 });
        let (ask, addresses) = asked(&state, ssh);
        assert_eq!((addresses.len(), ask.controllers.len()), (0, 0));
    }

    #[test]
    fn what_is_asked_takes_a_route_of_the_tunnel_and_does_no_harm() {
        let route = |path: &str, methods: &[&str]| json!({ "path": path, "methods": methods });
        for (http, health, expected) in [
            (json!({}), None, "GET photos.default.localhost/"),
            (
                json!({}),
                Some("/healthz?deep=1"),
                "GET photos.default.localhost/healthz?deep=1",
            ),
            (
                json!({ "path": "/p" }),
                Some("/p/healthz"),
                "GET photos.default.localhost/p/healthz",
            ),
            // It is what controllers ask, past all routes.
            (
                json!({ "path": "/p" }),
                Some("/healthz"),
                "GET photos.default.localhost/p",
            ),
            (
                json!({ "routes": [route("/a", &["POST"]), route("/b", &["GET"])] }),
                None,
                "GET photos.default.localhost/b",
            ),
            (
                json!({ "routes": [route("/a", &["POST"]), route("/b", &["HEAD"])] }),
                None,
                "HEAD photos.default.localhost/b",
            ),
            (
                json!({ "routes": [route("/a", &["POST"])] }),
                Some("/a"),
                "none photos.default.localhost/a",
            ),
        ] {
            let check = json!({ "path": health, "timeout": "50s" });
            let spec = json!({ "http": http, "healthCheck": check });
            let Way::Http(question) = asked(&swarm(&[]), spec).0.way else {
                panic!("HTTP");
            };
            let Question {
                host,
                method,
                path,
                patience,
                ..
            } = question;
            let method = method.unwrap_or("none");
            assert_eq!(
                format!("{method} {host}{path}"),
                expected,
                "{http} {health:?}"
            );
            assert_eq!(patience, LONGEST_PATIENCE);
        }
    }
}
