//! Which function or tunnel a request is for, and where that is ready. A table that is only read; the
//! [`Follower`] makes the next one of it when a state changes.

mod follow;
mod tunnels;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hive_manifests::Resource;
use hive_manifests::http::{Http, HttpRoute, PathType};
use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;
use http::{HeaderMap, HeaderValue, Method};
use imbl::{HashMap, OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::split::{Canary, Share, Ways};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::state::{Key, State};

pub use follow::{Follower, is_settings, may_matter};
use tunnels::Behind;

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

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backend<'a> {
    Function(&'a FunctionBackend),
    /// The targets of a tunnel.
    Tunnel(&'a Key),
    /// The first, a tunnel, leads to the second, a function that does not exist.
    NoFunction(&'a Key, &'a Key),
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
    hosts: HashMap<String, Paths>,
    functions: HashMap<Key, Arc<FunctionBackend>>,
    tunnels: HashMap<Key, Behind>,
}

/// What is claimed below one host, in the order in which it is tried.
type Paths = OrdMap<Pattern, OrdSet<Claimant>>;

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
struct Claim {
    host: String,
    pattern: Pattern,
    by: Claimant,
}

impl Routes {
    pub fn of(state: &State) -> Self {
        Follower::of(state).routes()
    }

    fn add(&mut self, claim: &Claim) {
        let paths = self.hosts.entry(claim.host.clone()).or_default();
        let claimants = paths.entry(claim.pattern.clone()).or_default();
        claimants.insert(claim.by.clone());
    }

    fn remove(&mut self, claim: &Claim) {
        let Some(paths) = self.hosts.get_mut(&claim.host) else {
            return;
        };
        if let Some(claimants) = paths.get_mut(&claim.pattern) {
            claimants.remove(&claim.by);
            if claimants.is_empty() {
                paths.remove(&claim.pattern);
            }
        }
        if paths.is_empty() {
            self.hosts.remove(&claim.host);
        }
    }

    /// Who has what is claimed, if it is claimed at all.
    fn owner(&self, claim: &Claim) -> Option<&Key> {
        let claimants = self.hosts.get(&claim.host)?.get(&claim.pattern)?;
        claimants.get_min().map(|(_, owner)| owner)
    }

    /// What a request is for, and the path of its route; `host` may carry a port.
    pub fn find(&self, host: &str, method: &Method, path: &str) -> Chosen<(&str, Backend<'_>)> {
        let mut host = Cow::Borrowed(without_port(host).trim_end_matches('.'));
        if host.bytes().any(|c| c.is_ascii_uppercase()) {
            host.to_mut().make_ascii_lowercase();
        }
        let Some(paths) = self.hosts.get(&*host) else {
            return Chosen::Nobody;
        };
        let patterns = paths
            .iter()
            .map(|(pattern, claimants)| (pattern, (pattern, claimants)));
        match choose(patterns, method.as_str(), path) {
            Chosen::One((pattern, claimants)) => {
                let owner = claimants.get_min();
                let backend = owner.and_then(|(_, owner)| self.backend(owner));
                backend.map_or(Chosen::Nobody, |backend| {
                    Chosen::One((pattern.path(), backend))
                })
            }
            Chosen::OtherMethods(allowed) => Chosen::OtherMethods(allowed),
            Chosen::Nobody => Chosen::Nobody,
        }
    }

    /// What the routes of a function or a tunnel lead to.
    fn backend(&self, owner: &Key) -> Option<Backend<'_>> {
        if owner.resource == Resource::Function {
            return self.function(owner).map(Backend::Function);
        }
        let (tunnel, behind) = self.tunnels.get_key_value(owner)?;
        Some(match behind {
            Behind::Targets => Backend::Tunnel(tunnel),
            Behind::Function(key) => match self.function(key) {
                Some(function) => Backend::Function(function),
                None => Backend::NoFunction(tunnel, key),
            },
        })
    }

    pub fn function(&self, key: &Key) -> Option<&FunctionBackend> {
        self.functions.get(key).map(|backend| &**backend)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects;
    use crate::state::Command;

    fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
        let key = Key::new(resource, "default", name);
        let body = objects::fresh(&key, json!({}), extra);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    fn function(state: &mut State, name: &str, http: Value) {
        let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
        put(state, Resource::Function, name, json!({ "spec": spec }));
    }

    fn assignment(state: &mut State, name: &str, function: &str, node: &str, ready: &str) {
        let extra = json!({
            "spec": { "functionName": function, "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        put(state, Resource::Assignment, name, extra);
    }

    fn found<'a>(routes: &'a Routes, host: &str, path: &str) -> Option<&'a str> {
        match routes.find(host, &Method::GET, path) {
            Chosen::One((_, Backend::Function(it))) => Some(it.function.to_str().unwrap()),
            _ => None,
        }
    }

    fn backend_at<'a>(routes: &'a Routes, host: &str) -> Option<&'a FunctionBackend> {
        match routes.find(host, &Method::GET, "/") {
            Chosen::One((_, Backend::Function(backend))) => Some(backend),
            _ => None,
        }
    }

    #[test]
    fn requests_find_their_function_by_host_and_longest_path() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        function(&mut state, "site", json!({ "host": "Example.org" }));
        function(
            &mut state,
            "api",
            json!({ "host": "example.org", "path": "/api" }),
        );
        let routes = Routes::of(&state);
        let cases = [
            ("hello.default.localhost", "/", Some("hello")),
            ("HELLO.default.localhost:8080", "/x", Some("hello")),
            ("hello.default.localhost.", "/", Some("hello")),
            ("hello.other.localhost", "/", None),
            ("example.org", "/", Some("site")),
            ("example.org", "/apix", Some("site")),
            ("example.org", "/api", Some("api")),
            ("example.org:80", "/api/v1", Some("api")),
            ("", "/", None),
        ];
        for (host, path, expected) in cases {
            assert_eq!(found(&routes, host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn a_function_answers_at_each_of_its_routes() {
        let mut state = State::default();
        function(
            &mut state,
            "shop",
            json!({ "host": "shop.org", "routes": [
                { "path": "/cart", "methods": ["GET", "POST"] },
                { "host": "Pay.org", "path": "/pay", "pathType": "Exact" },
            ] }),
        );
        function(&mut state, "site", json!({ "host": "shop.org" }));
        function(
            &mut state,
            "bare",
            json!({ "routes": [{ "methods": ["PUT"] }] }),
        );
        let routes = Routes::of(&state);
        for (host, path, expected) in [
            ("shop.org", "/cart/1", Some("shop")),
            ("shop.org", "/", Some("site")),
            ("pay.org", "/pay", Some("shop")),
            ("pay.org", "/pay/1", None),
            // Its routes are all that it answers.
            ("shop.default.localhost", "/", None),
        ] {
            assert_eq!(found(&routes, host, path), expected, "{host}{path}");
        }
        let put = routes.find("shop.org", &Method::PUT, "/cart");
        assert!(matches!(put, Chosen::One((_, Backend::Function(it))) if it.function == "site"));
        let cart = routes.find("shop.org", &Method::GET, "/cart/1");
        assert!(matches!(cart, Chosen::One(("/cart", _))));
        let get = routes.find("bare.default.localhost", &Method::GET, "/");
        assert_eq!(get, Chosen::OtherMethods("PUT".into()));
    }

    #[test]
    fn only_ready_assignments_receive_requests() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        assignment(&mut state, "hello.0", "hello", "pi", "True");
        assignment(&mut state, "hello.1", "hello", "phone", "Unknown");
        assignment(&mut state, "hello.2", "hello", "laptop", "True");
        let routes = Routes::of(&state);
        let backend = backend_at(&routes, "hello.default.localhost").unwrap();
        assert_eq!(backend.stable.nodes, ["laptop", "pi"]);
        assert_eq!(backend.canary, None);
    }

    #[test]
    fn a_copy_that_moves_is_asked_where_it_was_until_it_answers() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        assignment(&mut state, "hello.0", "hello", "pi", "True");
        let mut follower = Follower::of(&state);
        let mut nodes = |change: &dyn Fn(&mut Value)| {
            let key = Key::new(Resource::Assignment, "default", "hello.0");
            let mut body = state.get(&key).unwrap().body().clone();
            change(&mut body);
            let (body, expect) = (body.into(), None);
            state.apply(Command::Replace { key, body, expect }).unwrap();
            follower.follow(&state);
            let routes = follower.routes();
            assert_eq!(routes, Routes::of(&state));
            let backend = backend_at(&routes, "hello.default.localhost").unwrap();
            backend.stable.nodes.clone()
        };
        let ready = |body: &mut Value, ready: &str| {
            body["status"]["conditions"][0]["status"] = json!(ready);
        };
        let moved = nodes(&|body| {
            body["spec"]["previous"] = json!({ "nodeName": "pi" });
            body["spec"]["nodeName"] = json!("phone");
            ready(body, "False");
        });
        assert_eq!(moved, ["pi"]);
        assert_eq!(nodes(&|body| ready(body, "True")), ["phone"]);
        let settled = nodes(&|body| drop(body["spec"]["previous"].take()));
        assert_eq!(settled, ["phone"]);
    }

    #[test]
    fn a_version_that_is_tried_gets_its_share_and_moves_no_route() {
        let mut state = State::default();
        let key = |resource, name: &str| Key::new(resource, "default", name);
        let body =
            |resource, name: &str, extra| objects::fresh(&key(resource, name), json!({}), extra);
        let before = json!({ "artifact": { "sha256": "00" }, "http": { "host": "old.org" } });
        let steps = json!([{ "setWeight": 10 }, { "pause": {} }]);
        let headers = json!([{ "name": "x-canary", "value": "yes" }]);
        let time = "2026-01-01T00:00:00Z";
        let rollout = json!({
            "observedGeneration": 2, "phase": "Progressing", "startTime": time, "phaseTime": time,
            "canary": { "step": 1, "weight": 10, "stepTime": time },
        });
        let function = json!({
            "spec": {
                "artifact": { "sha256": "11" }, "http": { "host": "new.org" }, "timeout": "1s",
                "strategy": { "type": "Canary", "canary": { "steps": steps, "match": { "headers": headers } } },
            },
            "status": { "currentRevision": "hello-1", "updateRevision": "hello-2", "rollout": rollout },
        });
        put(
            &mut state,
            Resource::ControllerRevision,
            "hello-1",
            json!({ "data": { "spec": before } }),
        );
        put(&mut state, Resource::Function, "hello", function.clone());
        assignment(&mut state, "hello.0", "hello", "pi", "True");
        let mut follower = Follower::of(&state);
        let trial = json!({
            "spec": { "functionName": "hello", "nodeName": "pi", "canary": true, "revision": "hello-2" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        put(&mut state, Resource::Assignment, "hello.c0", trial);
        assert!(follower.follow(&state));
        let routes = follower.routes();
        let backend = backend_at(&routes, "old.org").unwrap();
        assert_eq!(backend.stable.nodes, ["pi"]);
        assert_eq!(backend.timeout, Duration::from_secs(30));
        let canary = backend.canary.as_ref().unwrap();
        assert_eq!(
            (&canary.share.nodes[..], canary.weight),
            (&["pi".to_owned()][..], 10)
        );
        assert_eq!(canary.share.revision.as_ref().unwrap(), "hello-2");
        assert_eq!(canary.headers[0].0, "x-canary");
        assert!(backend_at(&routes, "new.org").is_none());

        // All steps are done.
        let mut over = body(Resource::Function, "hello", function);
        over["status"]["rollout"]["canary"]["step"] = json!(2);
        let command = Command::Replace {
            key: key(Resource::Function, "hello"),
            body: over.into(),
            expect: None,
        };
        state.apply(command).unwrap();
        assert!(follower.follow(&state));
        let routes = follower.routes();
        assert!(backend_at(&routes, "new.org").unwrap().canary.is_some());
        assert_eq!(routes, Routes::of(&state));
    }

    #[test]
    fn of_two_functions_with_one_route_the_older_keeps_it() {
        let mut state = State::default();
        for (name, created) in [
            ("b-old", "2020-01-01T00:00:00Z"),
            ("a-new", "2024-01-01T00:00:00Z"),
        ] {
            let key = Key::new(Resource::Function, "default", name);
            let extra =
                json!({ "spec": { "artifact": { "sha256": "00" }, "http": { "host": "x.org" } } });
            let mut body = objects::fresh(&key, json!({}), extra);
            body["metadata"]["creationTimestamp"] = json!(created);
            state
                .apply(Command::Create {
                    key,
                    body: body.into(),
                })
                .unwrap();
        }
        let mut follower = Follower::of(&state);
        assert_eq!(found(&follower.routes(), "x.org", "/"), Some("b-old"));
        let [old, new] = ["b-old", "a-new"].map(|it| Key::new(Resource::Function, "default", it));
        assert_eq!(follower.lost(&old), None);
        let why = "x.org/ is answered by function default/b-old, which is older";
        assert_eq!(follower.lost(&new).as_deref(), Some(why));
        let (expect, uid) = (None, None);
        let key = old;
        state.apply(Command::Delete { key, expect, uid }).unwrap();
        assert!(follower.follow(&state));
        assert_eq!(follower.lost(&new), None);
    }

    #[test]
    fn only_what_moves_a_route_makes_another_table() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        assignment(&mut state, "hello.0", "hello", "pi", "False");
        let mut follower = Follower::of(&state);
        let mut change = |resource, name: &str, path: &str, value: Value| {
            let key = Key::new(resource, "default", name);
            let mut body = state.get(&key).unwrap().body().clone();
            *body.pointer_mut(path).unwrap() = value;
            let command = Command::Replace {
                key,
                body: body.into(),
                expect: None,
            };
            state.apply(command).unwrap();
            let any = follower.follow(&state);
            assert_eq!(follower.routes(), Routes::of(&state));
            any
        };
        let conditions = |ready: &str, message: &str| json!([{ "type": "Ready", "status": ready, "message": message }]);
        let (f, a) = (Resource::Function, Resource::Assignment);
        assert!(change(f, "hello", "/spec/http", json!({ "host": "a.b" })));
        assert!(!change(f, "hello", "/metadata/uid", json!("other")));
        let path = "/status/conditions";
        assert!(!change(a, "hello.0", path, conditions("False", "x")));
        assert!(change(a, "hello.0", path, conditions("True", "")));
        assert!(!change(a, "hello.0", path, conditions("True", "x")));
        assert!(change(a, "hello.0", "/spec/nodeName", json!("phone")));
    }

    #[test]
    fn the_domain_is_a_setting_of_the_swarm() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let body = objects::fresh(
            &key,
            json!({}),
            json!({ "data": { "domain": "swarm.example" } }),
        );
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
        let routes = Routes::of(&state);
        assert_eq!(
            found(&routes, "hello.default.swarm.example", "/"),
            Some("hello")
        );
    }

    /// What may happen in a swarm of few names, so that they meet.
    #[derive(Clone, Debug)]
    enum Happening {
        /// Function, host (its own, or one of two), path, when it was made.
        Function(u8, u8, u8, u8),
        NoFunction(u8),
        /// Tunnel, host, which function it leads to if it does, when it was made.
        Tunnel(u8, u8, u8, u8),
        NoTunnel(u8),
        /// Slot, function, node, whether it is ready.
        Assignment(u8, u8, u8, bool),
        NoAssignment(u8),
        Domain(u8),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => (0u8..4, 0u8..3, 0u8..4, 0u8..3)
                .prop_map(|(f, host, path, made)| Happening::Function(f, host, path, made)),
            1 => (0u8..4).prop_map(Happening::NoFunction),
            2 => (0u8..3, 0u8..3, 0u8..6, 0u8..3)
                .prop_map(|(t, host, f, made)| Happening::Tunnel(t, host, f, made)),
            1 => (0u8..3).prop_map(Happening::NoTunnel),
            4 => (0u8..6, 0u8..4, 0u8..3, any::<bool>())
                .prop_map(|(slot, f, node, ready)| Happening::Assignment(slot, f, node, ready)),
            1 => (0u8..6).prop_map(Happening::NoAssignment),
            1 => (0u8..2).prop_map(Happening::Domain),
        ]
    }

    fn set(state: &mut State, key: Key, extra: Value, made: u8) {
        let mut body = objects::fresh(&key, json!({}), extra);
        body["metadata"]["creationTimestamp"] = json!(format!("202{made}-01-01T00:00:00Z"));
        let body = body.into();
        let command = match state.get(&key) {
            Some(_) => Command::Replace {
                key,
                body,
                expect: None,
            },
            None => Command::Create { key, body },
        };
        state.apply(command).unwrap();
    }

    fn delete(state: &mut State, key: Key) {
        if state.get(&key).is_some() {
            let command = Command::Delete {
                key,
                uid: None,
                expect: None,
            };
            state.apply(command).unwrap();
        }
    }

    fn happen(state: &mut State, what: Happening) {
        let named = |resource, name: String| Key::new(resource, "default", &name);
        let function = |f: u8| named(Resource::Function, format!("f{f}"));
        let tunnel = |t: u8| named(Resource::Tunnel, format!("t{t}"));
        let slot = |slot: u8| named(Resource::Assignment, format!("s{slot}"));
        match what {
            Happening::Function(f, host, path, made) => {
                let path = ["/", "/a", "/a/", "/a/b"][usize::from(path)];
                let http = match host {
                    0 if made == 2 => json!({ "routes": [
                        { "path": path, "methods": ["GET"] }, { "path": "/", "host": "H1.org" },
                    ] }),
                    0 => json!({ "path": path }),
                    host => json!({ "path": path, "host": format!("H{host}.org") }),
                };
                let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
                set(state, function(f), json!({ "spec": spec }), made);
            }
            Happening::NoFunction(f) => delete(state, function(f)),
            Happening::Tunnel(t, host, f, made) => {
                let http = (host > 0).then(|| json!({ "host": format!("h{host}.org") }));
                let mut spec = json!({ "http": http });
                match f < 4 {
                    true => spec["function"] = json!(format!("f{f}")),
                    false => spec["targets"] = json!([{ "node": "n0", "port": f }]),
                }
                set(state, tunnel(t), json!({ "spec": spec }), made);
            }
            Happening::NoTunnel(t) => delete(state, tunnel(t)),
            Happening::Assignment(name, f, node, ready) => {
                let ready = if ready { "True" } else { "False" };
                let body = json!({
                    "spec": { "functionName": format!("f{f}"), "nodeName": format!("n{node}") },
                    "status": { "conditions": [{ "type": "Ready", "status": ready }] },
                });
                set(state, slot(name), body, 0);
            }
            Happening::NoAssignment(name) => delete(state, slot(name)),
            Happening::Domain(domain) => {
                let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
                let data = json!({ "data": { "domain": format!("d{domain}") } });
                set(state, key, data, 0);
            }
        }
    }

    proptest! {
        /// Whatever changes between two looks, the table that follows is the one that is made anew.
        #[test]
        fn a_table_that_follows_is_the_one_made_anew(
            looks in prop::collection::vec(prop::collection::vec(happening(), 0..6), 0..12),
        ) {
            let mut state = State::default();
            let mut follower = Follower::of(&state);
            for happenings in looks {
                let before = follower.routes();
                for happening in happenings {
                    happen(&mut state, happening);
                }
                let any = follower.follow(&state);
                let routes = follower.routes();
                prop_assert_eq!(&routes, &Routes::of(&state));
                prop_assert!(any || routes == before);
            }
        }
    }
}
