//! Routes that follow the state: a change costs what it concerns, however many functions there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hive_manifests::{Function, Resource};
use http::HeaderValue;

use super::{Backend, Claim, Routes, SETTINGS, domain, route_of};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::state::{Change, Key, Object, Placed, State};

/// A table of routes, and what is needed to know what a change does to it.
#[derive(Debug)]
pub struct Follower {
    routes: Routes,
    domain: String,
    /// By function.
    claims: HashMap<Key, Claim>,
    /// The assignments that serve.
    serving: HashMap<Key, Placed>,
    /// By function, how many of its assignments serve on each node.
    nodes: HashMap<Key, BTreeMap<String, usize>>,
    /// The revision of the state that it follows.
    seen: u64,
}

impl Follower {
    pub fn of(state: &State) -> Self {
        let mut follower = Self {
            routes: Routes::default(),
            domain: domain(state).to_owned(),
            claims: HashMap::new(),
            serving: HashMap::new(),
            nodes: HashMap::new(),
            seen: state.revision(),
        };
        for assignment in state.list(Resource::Assignment, None) {
            follower.place(assignment.key(), Some(assignment));
        }
        for function in state.list(Resource::Function, None) {
            follower.answer(function.key(), Some(function));
        }
        follower
    }

    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Goes on to a later state; true if the routes are others than before.
    pub fn follow(&mut self, state: &State) -> bool {
        let Ok(changes) = state.changes_since(self.seen) else {
            *self = Self::of(state);
            return true;
        };
        self.seen = state.revision();
        let mut functions = BTreeSet::new();
        for change in changes {
            match change.key.resource {
                Resource::Function => {
                    functions.insert(change.key.clone());
                }
                Resource::Assignment => {
                    let touched = self.place(&change.key, change.after.as_deref());
                    functions.extend(touched.into_iter().flatten());
                }
                // The domain is in all routes.
                _ if is_settings(change) && domain(state) != self.domain => {
                    *self = Self::of(state);
                    return true;
                }
                _ => {}
            }
        }
        let mut any = false;
        for function in functions {
            any |= self.answer(&function, state.get(&function).map(|object| &**object));
        }
        any
    }

    /// Takes over where an assignment serves now. Returned are the functions that have a copy less, and
    /// one more.
    fn place(&mut self, key: &Key, assignment: Option<&Object>) -> [Option<Key>; 2] {
        let now = assignment
            .and_then(Placed::of)
            .filter(|placed| placed.ready);
        if self.serving.get(key) == now.as_ref() {
            return [None, None];
        }
        let function_of =
            |placed: &Placed| Key::new(Resource::Function, &key.namespace, &placed.function);
        let left = self.serving.remove(key).map(|placed| {
            let function = function_of(&placed);
            self.remove_copy(&function, &placed.node);
            function
        });
        let joined = now.map(|placed| {
            let function = function_of(&placed);
            let nodes = self.nodes.entry(function.clone()).or_default();
            *nodes.entry(placed.node.clone()).or_default() += 1;
            self.serving.insert(key.clone(), placed);
            function
        });
        [left, joined]
    }

    fn remove_copy(&mut self, function: &Key, node: &str) {
        let Some(nodes) = self.nodes.get_mut(function) else {
            return;
        };
        if let Some(copies) = nodes.get_mut(node) {
            *copies -= 1;
            if *copies == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.nodes.remove(function);
        }
    }

    /// Takes over how a function answers now; true if that is another way than before.
    fn answer(&mut self, key: &Key, function: Option<&Object>) -> bool {
        let (claim, backend) = function.and_then(|object| self.read(object)).unzip();
        let mut any = false;
        if self.claims.get(key) != claim.as_ref() {
            if let Some(before) = self.claims.remove(key) {
                self.routes.remove(&before);
            }
            if let Some(claim) = claim {
                self.routes.add(&claim);
                self.claims.insert(key.clone(), claim);
            }
            any = true;
        }
        if self.routes.backend(key) != backend.as_ref() {
            match backend {
                Some(backend) => self.routes.backends.insert(key.clone(), Arc::new(backend)),
                None => self.routes.backends.remove(key),
            };
            any = true;
        }
        any
    }

    /// `None` of what this version of the program cannot read: it answers nothing.
    fn read(&self, object: &Object) -> Option<(Claim, Backend)> {
        let key = object.key();
        let function: Function = object.parse().ok()?;
        let created = function.metadata.creation_timestamp.as_ref()?.0.to_string();
        let (host, path) = route_of(&key.name, &key.namespace, &function.spec.http, &self.domain);
        let nodes = self.nodes.get(key);
        let backend = Backend {
            namespace: HeaderValue::from_str(&key.namespace).ok()?,
            function: HeaderValue::from_str(&key.name).ok()?,
            nodes: nodes
                .into_iter()
                .flat_map(BTreeMap::keys)
                .cloned()
                .collect(),
            timeout: function.spec.timeout.0,
        };
        Some((Claim::new(host, &path, created, key.clone()), backend))
    }
}

/// Whether a change can touch a route. What a function or an assignment reports of itself often does
/// not: [`Follower`] finds out by reading that one.
pub fn may_matter(change: &Change) -> bool {
    matches!(
        change.key.resource,
        Resource::Function | Resource::Assignment
    ) || is_settings(change)
}

fn is_settings(change: &Change) -> bool {
    let key = &change.key;
    key.resource == Resource::ConfigMap && key.namespace == SYSTEM_NAMESPACE && key.name == SETTINGS
}
