//! Which function a request is for, and where it is ready: pure functions of the state.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hive_manifests::function::Http;
use hive_manifests::{Function, Resource};
use http::HeaderValue;

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::state::{Change, Key, Object, Placed, State};

/// Where the swarm's settings are: a ConfigMap in the system's namespace.
pub const SETTINGS: &str = "swarm";

/// Functions without a host of their own answer at `<name>.<namespace>.<domain>`. Names under
/// `localhost` resolve to the loopback address everywhere, without any DNS (RFC 6761).
const DEFAULT_DOMAIN: &str = "localhost";

/// The domain of the swarm.
pub fn domain(state: &State) -> &str {
    state
        .get(&Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS))
        .and_then(|settings| settings.body()["data"]["domain"].as_str())
        .unwrap_or(DEFAULT_DOMAIN)
}

/// The host and the path prefix at which a function answers.
pub fn route_of(name: &str, namespace: &str, http: &Http, domain: &str) -> (String, String) {
    let host = match &http.host {
        Some(host) => host.to_ascii_lowercase(),
        None => format!("{name}.{namespace}.{domain}"),
    };
    (host, http.path.clone())
}

/// One function that answers requests.
#[derive(Debug)]
pub struct Backend {
    pub namespace: HeaderValue,
    pub function: HeaderValue,
    /// Nodes with a ready assignment, sorted.
    pub nodes: Vec<String>,
    /// How long the function may take, as its node counts it.
    pub timeout: Duration,
}

/// Which assignments serve, read once for each change of one: a swarm has many, and they change at
/// every step of a deployment.
#[derive(Debug, Default)]
pub struct Serving(BTreeMap<Key, Placed>);

impl Serving {
    pub fn of(state: &State) -> Self {
        let assignments = state.list(Resource::Assignment, None);
        Self(
            assignments
                .filter_map(|object| Some((object.key().clone(), serving(object)?)))
                .collect(),
        )
    }

    /// Takes a change over; true if it was one.
    fn note(&mut self, change: &Change) -> bool {
        if change.key.resource != Resource::Assignment {
            return false;
        }
        let now = change.after.as_deref().and_then(serving);
        if self.0.get(&change.key) == now.as_ref() {
            return false;
        }
        match now {
            Some(placed) => self.0.insert(change.key.clone(), placed),
            None => self.0.remove(&change.key),
        };
        true
    }

    /// Brings it from revision `seen` to a state's; true if any route can have changed since.
    pub fn follow(&mut self, state: &State, seen: u64) -> bool {
        let Ok(changes) = state.changes_since(seen) else {
            *self = Self::of(state);
            return true;
        };
        let mut any = false;
        for change in changes {
            // Each has to be noted.
            any |= self.note(change) | matters(change);
        }
        any
    }

    /// Nodes that serve, by function.
    fn nodes(&self) -> HashMap<Key, Vec<String>> {
        let mut nodes: HashMap<Key, Vec<String>> = HashMap::new();
        for (key, placed) in &self.0 {
            let function = Key::new(
                Resource::Function,
                key.namespace.clone(),
                placed.function.clone(),
            );
            nodes.entry(function).or_default().push(placed.node.clone());
        }
        for nodes in nodes.values_mut() {
            nodes.sort();
            nodes.dedup();
        }
        nodes
    }
}

fn serving(assignment: &Object) -> Option<Placed> {
    Placed::of(assignment).filter(|placed| placed.ready)
}

/// All routes of the swarm at one revision.
#[derive(Debug, Default)]
pub struct Routes {
    /// By host; longest path first.
    hosts: HashMap<String, Vec<(String, Key)>>,
    backends: HashMap<Key, Backend>,
}

impl Routes {
    pub fn of(state: &State) -> Self {
        Self::with(state, &Serving::of(state))
    }

    /// Of a state whose serving assignments are known already.
    pub fn with(state: &State, serving: &Serving) -> Self {
        let mut routes = Self::default();
        let domain = domain(state);
        let mut ready = serving.nodes();
        // Sorted by age: of two functions with the same route the older keeps it.
        let mut functions: Vec<(String, Key, Function)> = state
            .list(Resource::Function, None)
            .filter_map(|object| {
                let created = object.body()["metadata"]["creationTimestamp"].as_str()?;
                Some((
                    created.to_owned(),
                    object.key().clone(),
                    object.parse().ok()?,
                ))
            })
            .collect();
        functions.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        for (_, key, function) in functions {
            let (Ok(namespace), Ok(name)) = (
                HeaderValue::from_str(&key.namespace),
                HeaderValue::from_str(&key.name),
            ) else {
                continue;
            };
            let (host, path) = route_of(&key.name, &key.namespace, &function.spec.http, domain);
            let paths = routes.hosts.entry(host).or_default();
            if paths.iter().all(|(known, _)| *known != path) {
                paths.push((path, key.clone()));
            }
            let backend = Backend {
                namespace,
                function: name,
                nodes: ready.remove(&key).unwrap_or_default(),
                timeout: function.spec.timeout.0,
            };
            routes.backends.insert(key, backend);
        }
        for paths in routes.hosts.values_mut() {
            paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        routes
    }

    /// The function for a request; `host` may carry a port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Backend> {
        let mut host = Cow::Borrowed(without_port(host).trim_end_matches('.'));
        if host.bytes().any(|c| c.is_ascii_uppercase()) {
            host.to_mut().make_ascii_lowercase();
        }
        let (_, key) = self
            .hosts
            .get(&*host)?
            .iter()
            .find(|(prefix, _)| covers(prefix, path))?;
        self.backends.get(key)
    }

    pub fn backend(&self, key: &Key) -> Option<&Backend> {
        self.backends.get(key)
    }
}

/// Whether a change can touch a route; [`Serving`] knows it of assignments.
pub fn may_matter(change: &Change) -> bool {
    change.key.resource == Resource::Assignment || matters(change)
}

/// False when a change of something else than an assignment leaves every route as it is: what a
/// function reports of itself changes far more often than where it answers.
fn matters(change: &Change) -> bool {
    match change.key.resource {
        Resource::Function => match (&change.before, &change.after) {
            (Some(before), Some(after)) => {
                // Not what the history holds is to be kept parsed.
                let part = |function: &Object| {
                    let mut body = function.to_value().into_owned();
                    [
                        body["spec"].take(),
                        body["metadata"]["creationTimestamp"].take(),
                    ]
                };
                part(before) != part(after)
            }
            _ => true,
        },
        Resource::ConfigMap => {
            change.key.namespace == SYSTEM_NAMESPACE && change.key.name == SETTINGS
        }
        _ => false,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}

/// True when `path` is `prefix` or lies under it: "/api" covers "/api/x", not "/apix".
fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use crate::state::Command;
    use serde_json::{Value, json};

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
        Some(routes.find(host, path)?.function.to_str().unwrap())
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
    fn only_ready_assignments_receive_requests() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        assignment(&mut state, "hello.0", "hello", "pi", "True");
        assignment(&mut state, "hello.1", "hello", "phone", "Unknown");
        assignment(&mut state, "hello.2", "hello", "laptop", "True");
        let routes = Routes::of(&state);
        let backend = routes.find("hello.default.localhost", "/").unwrap();
        assert_eq!(backend.nodes, ["laptop", "pi"]);
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
        assert_eq!(found(&Routes::of(&state), "x.org", "/"), Some("b-old"));
    }

    #[test]
    fn only_what_moves_a_route_builds_them_anew() {
        let mut state = State::default();
        function(&mut state, "hello", json!({}));
        assignment(&mut state, "hello.0", "hello", "pi", "False");
        let mut serving = Serving::of(&state);
        let mut change = |resource, name: &str, path: &str, value: Value| {
            let key = Key::new(resource, "default", name);
            let seen = state.revision();
            let mut body = state.get(&key).unwrap().body().clone();
            *body.pointer_mut(path).unwrap() = value;
            let command = Command::Replace {
                key,
                body: body.into(),
                expect: None,
            };
            state.apply(command).unwrap();
            let any = serving.follow(&state, seen);
            let (followed, anew) = (serving.nodes(), Serving::of(&state).nodes());
            assert_eq!(followed, anew);
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
}
