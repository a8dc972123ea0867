//! Routes that follow the state: a change costs what it concerns, however many functions and tunnels there
//! are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hive_manifests::rollout::RolloutPhase;
use hive_manifests::{Function, FunctionSpec, Resource, Tunnel};
use http::HeaderValue;

use super::claims::{Claim, Lost, claimant, claims_of, claims_of_tunnel, hosts_of};
use super::tunnels::Led;
use super::{FunctionBackend, Routes, SETTINGS, domain};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::split::{Canary, Share, Turn};
use crate::reconcile::rollout::template_of;
use crate::state::{Change, Key, Object, Placed, State};

/// The revision that an assignment tries, if it does, and its node.
type Place = (Option<String>, String);

/// A table of routes, and what is needed to know what a change does to it.
#[derive(Debug)]
pub struct Follower {
    routes: Routes,
    /// By function and tunnel.
    claims: HashMap<Key, Vec<Claim>>,
    /// The functions of the assignments that serve, and where.
    serving: HashMap<Key, (Key, Place)>,
    /// By function, how many of its assignments serve at each place.
    places: HashMap<Key, BTreeMap<Place, usize>>,
    /// The revision of the state that it follows.
    seen: u64,
}

impl Follower {
    pub fn of(state: &State) -> Self {
        let mut follower = Self {
            routes: Routes {
                domain: domain(state).into(),
                ..Routes::default()
            },
            claims: HashMap::new(),
            serving: HashMap::new(),
            places: HashMap::new(),
            seen: state.revision(),
        };
        for assignment in state.list(Resource::Assignment, None) {
            follower.place(assignment.key(), Some(assignment));
        }
        for function in state.list(Resource::Function, None) {
            follower.answer(state, function.key());
        }
        for tunnel in state.list(Resource::Tunnel, None) {
            follower.lead(state, tunnel.key());
        }
        follower
    }

    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Why a host is not for what is in a namespace, if it is another one's.
    pub fn held_elsewhere(&self, host: &str, namespace: &str) -> Option<Lost> {
        self.routes.held_elsewhere(host, namespace)
    }

    /// Why a function or a tunnel does not have one of its routes or names, if it has not.
    pub fn lost(&self, key: &Key) -> Option<Lost> {
        let mut claims = self.claims.get(key)?.iter();
        claims.find_map(|claim| self.routes.lost(claim))
    }

    /// Goes on to a later state; true if the routes are others than before.
    pub fn follow(&mut self, state: &State) -> bool {
        let Ok(changes) = state.changes_since(self.seen) else {
            *self = Self::of(state);
            return true;
        };
        self.seen = state.revision();
        let (mut functions, mut tunnels) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            match change.key.resource {
                Resource::Function => {
                    functions.insert(change.key.clone());
                }
                Resource::Tunnel => {
                    tunnels.insert(change.key.clone());
                }
                Resource::Assignment => {
                    let touched = self.place(&change.key, change.after.as_deref());
                    functions.extend(touched.into_iter().flatten());
                }
                // The domain is in all routes.
                _ if is_settings(change) && *domain(state) != *self.routes.domain => {
                    *self = Self::of(state);
                    return true;
                }
                _ => {}
            }
        }
        let mut any = false;
        for function in functions {
            any |= self.answer(state, &function);
        }
        for tunnel in tunnels {
            any |= self.lead(state, &tunnel);
        }
        any
    }

    /// Takes over where an assignment serves now. Returned are the functions that have a copy less, and
    /// one more.
    fn place(&mut self, key: &Key, assignment: Option<&Object>) -> [Option<Key>; 2] {
        let now = assignment.and_then(Placed::of).and_then(|placed| {
            let node = placed.serves_on()?.to_owned();
            let function = Key::new(Resource::Function, &key.namespace, placed.function);
            Some((function, (placed.tries, node)))
        });
        if self.serving.get(key) == now.as_ref() {
            return [None, None];
        }
        let left = self.serving.remove(key).map(|(function, place)| {
            self.remove_copy(&function, &place);
            function
        });
        let joined = now.map(|(function, place)| {
            let places = self.places.entry(function.clone()).or_default();
            *places.entry(place.clone()).or_default() += 1;
            self.serving.insert(key.clone(), (function.clone(), place));
            function
        });
        [left, joined]
    }

    fn remove_copy(&mut self, function: &Key, place: &Place) {
        let Some(places) = self.places.get_mut(function) else {
            return;
        };
        if let Some(copies) = places.get_mut(place) {
            *copies -= 1;
            if *copies == 0 {
                places.remove(place);
            }
        }
        if places.is_empty() {
            self.places.remove(function);
        }
    }

    /// Takes over how a function answers now; true if that is another way than before.
    fn answer(&mut self, state: &State, key: &Key) -> bool {
        let function = state.get(key);
        let (claims, backend) = function.and_then(|object| self.read(state, object)).unzip();
        let mut any = self.claim(key, claims);
        if self.routes.function(key) != backend.as_ref() {
            if let (Some(before), Some(backend)) = (self.routes.function(key), &backend) {
                backend.go_on(before);
            }
            match backend {
                Some(backend) => self.routes.functions.insert(key.clone(), Arc::new(backend)),
                None => self.routes.functions.remove(key),
            };
            any = true;
        }
        any
    }

    /// Takes over where a tunnel leads now; true if that is elsewhere than before.
    fn lead(&mut self, state: &State, key: &Key) -> bool {
        let tunnel = state.get(key);
        let (claims, led) = tunnel.and_then(|object| self.read_tunnel(object)).unzip();
        let led = led.flatten();
        let mut any = self.claim(key, claims);
        if self.routes.tunnels.get(key) != led.as_ref() {
            match led {
                Some(led) => self.routes.tunnels.insert(key.clone(), led),
                None => self.routes.tunnels.remove(key),
            };
            any = true;
        }
        any
    }

    /// Takes over what a function or a tunnel claims now; true if that is something else than before.
    fn claim(&mut self, key: &Key, claims: Option<Vec<Claim>>) -> bool {
        if self.claims.get(key) == claims.as_ref() {
            return false;
        }
        for before in self.claims.remove(key).into_iter().flatten() {
            self.routes.remove(&before);
        }
        if let Some(claims) = claims {
            claims.iter().for_each(|claim| self.routes.add(claim));
            self.claims.insert(key.clone(), claims);
        }
        true
    }

    /// What it claims, and where it leads if it carries requests. `None` of what this version of the program cannot
    /// read, and of those that are reached by no host.
    fn read_tunnel(&self, object: &Object) -> Option<(Vec<Claim>, Option<Led>)> {
        let key = object.key();
        let Tunnel { metadata, spec, .. } = object.parse().ok()?;
        let by = claimant(key, &metadata)?;
        let claims = claims_of_tunnel(key, &spec, &by, &self.routes.domain)?;
        Some((claims, Led::of(key, &spec)))
    }

    /// `None` of what this version of the program cannot read: it answers nothing.
    fn read(&self, state: &State, object: &Object) -> Option<(Vec<Claim>, FunctionBackend)> {
        let key = object.key();
        let function: Function = object.parse().ok()?;
        let by = claimant(key, &function.metadata)?;
        let spec = &function.spec;
        let kept = kept(state, key, &function);
        let http = kept.as_ref().map_or(&spec.http, |kept| &kept.http);
        let mut claims = claims_of(key, http, &by, &self.routes.domain);
        if kept.is_some() {
            // What is declared is to answer there: it would take the host from whoever came meanwhile.
            let declared = claims_of(key, &spec.http, &by, &self.routes.domain);
            claims.extend(hosts_of(declared));
        }
        // Both versions answer.
        let timeout = kept.as_ref().map_or(spec.timeout, |kept| kept.timeout);
        let backend = FunctionBackend {
            key: key.clone(),
            namespace: HeaderValue::from_str(&key.namespace).ok()?,
            function: HeaderValue::from_str(&key.name).ok()?,
            stable: Share {
                nodes: self.nodes(key, None),
                ..Share::default()
            },
            canary: self.canary(key, &function),
            wakes: spec.autoscaling.is_some() && spec.replicas.is_none(),
            timeout: spec.timeout.max(timeout).0,
        };
        Some((claims, backend))
    }

    fn nodes(&self, function: &Key, revision: Option<&str>) -> Vec<String> {
        let places = self.places.get(function);
        places
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|(tried, _)| tried.as_deref() == revision)
            .map(|(_, node)| node.clone())
            .collect()
    }

    fn canary(&self, key: &Key, function: &Function) -> Option<Canary> {
        let status = function.status.as_ref()?;
        let weight = status.rollout.as_ref()?.canary.as_ref()?.weight;
        let revision = &status.update_revision;
        let nodes = self.nodes(key, Some(revision));
        let headers = function.spec.canary_headers().iter();
        (!nodes.is_empty()).then_some(Canary {
            share: Share {
                nodes,
                revision: HeaderValue::from_str(revision).ok(),
                turn: Turn::default(),
            },
            weight,
            headers: headers
                .filter_map(|one| Some((one.name.parse().ok()?, one.value.parse().ok()?)))
                .collect(),
            turn: Turn::default(),
        })
    }
}

/// The version that all copies run which are wanted, where that is not the newest: what that one says of its
/// route is not heeded before, but for the hosts.
fn kept(state: &State, key: &Key, function: &Function) -> Option<FunctionSpec> {
    let status = function.status.as_ref()?;
    let rollout = status.rollout.as_ref()?;
    let steps = function.spec.canary_steps().len();
    let is_tried = rollout
        .canary
        .as_ref()
        .is_some_and(|canary| (canary.step as usize) < steps);
    if !is_tried && rollout.phase != RolloutPhase::RolledBack {
        return None;
    }
    let revision = Key::new(
        Resource::ControllerRevision,
        key.namespace.clone(),
        &*status.current_revision,
    );
    template_of(state.get(&revision)?)
}

/// Whether a change can touch a route. What a function, an assignment or a tunnel reports of itself often
/// does not: [`Follower`] finds out by reading that one.
pub fn may_matter(change: &Change) -> bool {
    matches!(
        change.key.resource,
        Resource::Function | Resource::Assignment | Resource::Tunnel
    ) || is_settings(change)
}

/// Whether a change is one of the swarm's settings, such as its domain.
pub fn is_settings(change: &Change) -> bool {
    let key = &change.key;
    key.resource == Resource::ConfigMap && key.namespace == SYSTEM_NAMESPACE && key.name == SETTINGS
}
