//! What is tried to find out whether a tunnel is reached. Pure.

use std::fmt;
use std::time::Duration;

use hive_manifests::tunnel::{Protocol, TunnelSpec};
use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;

use crate::ingress::routes::{domain, routes_of};
use crate::reconcile::status::Base;
use crate::state::{Key, Member, State};

/// For an answer, however much longer the spec allows: then the next try is due.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// One try.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub way: Way,
    /// All controllers, where each is reached for this.
    pub controllers: Vec<Advertised>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// A request to wherever the name of its host leads, and to each controller.
    Http(Question),
    /// A connection to each controller.
    Tcp,
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
}

/// Where a controller is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub id: u64,
    /// A name or an address.
    pub host: String,
    pub port: u16,
}

impl Advertised {
    /// `None` of what is no endpoint.
    fn of(id: u64, member: &Member, port: Option<u16>) -> Option<Self> {
        let (host, advertised) = member.ingress.rsplit_once(':')?;
        Some(Self {
            id,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.or_else(|| advertised.parse().ok())?,
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

/// What is to be tried for a tunnel, and where people are told to reach it.
pub fn ask(key: &Key, spec: &TunnelSpec, state: &State) -> (Ask, Vec<String>) {
    let own_port = spec.port.filter(|_| spec.protocol == Protocol::Tcp);
    let members = state.controllers();
    let controllers: Vec<Advertised> = members
        .filter_map(|(id, member)| Advertised::of(id, member, own_port))
        .collect();
    let (way, mut addresses): (_, Vec<String>) = match spec.protocol {
        Protocol::Tcp => {
            let addresses = controllers.iter().map(Advertised::address).collect();
            (Way::Tcp, addresses)
        }
        Protocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
            let base = Base::of(state);
            let addresses = routes.iter().map(|route| base.url(route)).collect();
            let check = &spec.health_check;
            let question = question(&routes, check.path.as_deref(), check.timeout.0);
            (Way::Http(question), addresses)
        }
    };
    // Controllers of one machine have one host, and routes of several methods one path.
    dedup_in_order(&mut addresses);
    let ask = Ask { way, controllers };
    (ask, addresses)
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
            state,
        )
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
