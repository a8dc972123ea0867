//! What a tunnel leads to. Pure.

use hive_manifests::Resource;
use hive_manifests::tunnel::{Protocol, TunnelSpec};

use crate::ingress::https::Https;
use crate::state::Key;

/// Where a tunnel leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Led {
    pub behind: Behind,
    /// Where it is served by https.
    pub https: Option<Https>,
}

impl Led {
    /// `None` of a tunnel that carries no requests.
    pub fn of(key: &Key, spec: &TunnelSpec) -> Option<Self> {
        Some(Self {
            behind: Behind::of(key, spec)?,
            https: Https::of(spec),
        })
    }
}

/// What answers requests for a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub enum Behind {
    /// Which targets there are, and how they are reached, is no matter of routes.
    Targets,
    Function(Key),
}

impl Behind {
    fn of(key: &Key, spec: &TunnelSpec) -> Option<Self> {
        if spec.protocol != Protocol::Http {
            return None;
        }
        Some(match &spec.function {
            Some(function) => {
                Self::Function(Key::new(Resource::Function, &*key.namespace, &**function))
            }
            None => Self::Targets,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_proto::routes::Chosen;
    use http::Method;
    use serde_json::{Value, json};

    use super::super::{Backend, Follower, Routes};
    use super::*;
    use crate::fixture;
    use crate::state::{Command, State};

    fn put(state: &mut State, resource: Resource, name: &str, year: u16, spec: Value) {
        let key = Key::new(resource, "default", name);
        let body = fixture::made_in(year, &key, json!({ "spec": spec }));
        fixture::put(state, key, &body);
    }

    fn delete(state: &mut State, resource: Resource, name: &str) {
        let key = Key::new(resource, "default", name);
        let (uid, expect) = (None, None);
        state.apply(Command::Delete { key, uid, expect }).unwrap();
    }

    fn function(state: &mut State, name: &str, year: u16, http: Value) {
        let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
        put(state, Resource::Function, name, year, spec);
    }

    fn tunnel(state: &mut State, name: &str, year: u16, spec: Value) {
        put(state, Resource::Tunnel, name, year, spec);
    }

    fn targets(http: Value) -> Value {
        json!({ "targets": [{ "node": "pi", "port": 3000 }], "http": http })
    }

    /// `function NAME`, `TUNNEL for NAME`, `tunnel NAME`, `no FUNCTION`, or nothing.
    fn found(routes: &Routes, host: &str, path: &str) -> String {
        match routes.find(host, &Method::GET, path) {
            Chosen::One((_, Backend::Function(it))) => format!("function {}", it.key.name),
            Chosen::One((_, Backend::Exposed(tunnel, it))) => {
                format!("{} for {}", tunnel.name, it.key.name)
            }
            Chosen::One((_, Backend::Tunnel(it))) => format!("tunnel {}", it.name),
            Chosen::One((_, Backend::NoFunction(_, it))) => format!("no {}", it.name),
            Chosen::OtherMethods(allowed) => allowed,
            Chosen::Nobody => String::new(),
        }
    }

    #[test]
    fn tunnels_and_functions_share_hosts() {
        let mut state = State::default();
        let shop = json!({ "host": "shop.org" });
        function(&mut state, "site", 2021, shop.clone());
        tunnel(
            &mut state,
            "cart",
            2022,
            targets(json!({ "host": "Shop.org", "path": "/cart" })),
        );
        tunnel(&mut state, "late", 2023, targets(shop));
        tunnel(&mut state, "photos", 2022, targets(Value::Null));
        let read = json!({ "host": "read.org", "routes": [{ "methods": ["GET"] }] });
        tunnel(&mut state, "read", 2022, targets(read));
        let ssh =
            json!({ "protocol": "TCP", "port": 2222, "targets": [{ "node": "pi", "port": 22 }] });
        tunnel(&mut state, "ssh", 2022, ssh);
        tunnel(
            &mut state,
            "alias",
            2022,
            json!({ "function": "site", "http": { "host": "other.org" } }),
        );
        tunnel(
            &mut state,
            "dangling",
            2022,
            json!({ "function": "gone", "http": { "host": "gone.org" } }),
        );
        let routes = Routes::of(&state);
        for (host, path, expected) in [
            ("shop.org", "/", "function site"),
            ("shop.org:8080", "/cart/1", "tunnel cart"),
            ("photos.default.localhost", "/x", "tunnel photos"),
            ("read.org", "/", "tunnel read"),
            ("ssh.default.localhost", "/", ""),
            ("other.org", "/x", "alias for site"),
            ("gone.org", "/", "no gone"),
        ] {
            assert_eq!(found(&routes, host, path), expected, "{host}{path}");
        }
        let put = routes.find("read.org", &Method::PUT, "/");
        assert_eq!(put, Chosen::OtherMethods("GET".into()));
    }

    #[test]
    fn the_older_of_a_tunnel_and_a_function_has_what_both_claim() {
        let x = json!({ "host": "x.org" });
        for (tunnel_made, function_made, first) in
            [(2020, 2024, "tunnel t"), (2024, 2020, "function f")]
        {
            let mut state = State::default();
            function(&mut state, "f", function_made, x.clone());
            tunnel(&mut state, "t", tunnel_made, targets(x.clone()));
            let mut follower = Follower::of(&state);
            assert_eq!(found(&follower.routes(), "x.org", "/"), first);
            let key = |resource, name: &str| Key::new(resource, "default", name);
            let (f, t) = (key(Resource::Function, "f"), key(Resource::Tunnel, "t"));
            let by_function = "x.org/ is answered by function default/f, which is older: choose another host or path";
            let by_tunnel = "x.org/ is answered by tunnel default/t, which is older: choose another host or path";
            let lost = |key| follower.lost(key).map(|lost| lost.to_string());
            let lost = (lost(&f), lost(&t));
            let expected = match first {
                "function f" => (None, Some(by_function.to_owned())),
                _ => (Some(by_tunnel.to_owned()), None),
            };
            assert_eq!(lost, expected);

            let (resource, name, second) = match first {
                "function f" => (Resource::Function, "f", "tunnel t"),
                _ => (Resource::Tunnel, "t", "function f"),
            };
            delete(&mut state, resource, name);
            assert!(follower.follow(&state));
            assert_eq!(found(&follower.routes(), "x.org", "/"), second);
            assert_eq!((follower.lost(&f), follower.lost(&t)), (None, None));
            assert_eq!(follower.routes(), Routes::of(&state));
        }
    }

    #[test]
    fn a_function_behind_a_tunnel_is_found_as_soon_as_it_is_there() {
        let mut state = State::default();
        let alias = json!({ "function": "f", "http": { "host": "x.org" } });
        tunnel(&mut state, "t", 2020, alias);
        let mut follower = Follower::of(&state);
        assert_eq!(found(&follower.routes(), "x.org", "/"), "no f");
        function(&mut state, "f", 2021, json!({}));
        assert!(follower.follow(&state));
        assert_eq!(found(&follower.routes(), "x.org", "/"), "t for f");
        delete(&mut state, Resource::Function, "f");
        assert!(follower.follow(&state));
        assert_eq!(found(&follower.routes(), "x.org", "/"), "no f");
    }

    #[test]
    fn only_what_moves_a_route_makes_another_table() {
        let mut state = State::default();
        let x = json!({ "host": "x.org" });
        tunnel(&mut state, "t", 2020, targets(x.clone()));
        let mut follower = Follower::of(&state);
        let elsewhere = json!({ "targets": [{ "node": "nas", "port": 80 }], "http": x });
        let alias = json!({ "function": "f", "http": x });
        for (spec, any) in [
            (elsewhere, false),
            (alias.clone(), true),
            (alias, false),
            (targets(json!({ "host": "y.org" })), true),
        ] {
            tunnel(&mut state, "t", 2020, spec.clone());
            assert_eq!(follower.follow(&state), any, "{spec}");
            assert_eq!(follower.routes(), Routes::of(&state));
        }
    }
}
