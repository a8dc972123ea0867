//! Which function a request is for, and which of its instances answers. Built anew at every change
//! and then only read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;

use crate::ids::FunctionId;

/// Generic so that routing can be tested without WebAssembly.
pub struct Table<I> {
    functions: BTreeMap<FunctionId, Service<I>>,
    hosts: BTreeMap<String, Paths>,
}

/// Who answers at each path, in the order in which they are tried.
type Paths = BTreeMap<Pattern, FunctionId>;

struct Service<I> {
    instances: Vec<Arc<I>>,
    /// Of versions that are being tried, by revision.
    trials: Vec<(String, Arc<I>)>,
    turn: AtomicUsize,
}

impl<I> Default for Service<I> {
    fn default() -> Self {
        Self {
            instances: Vec::new(),
            trials: Vec::new(),
            turn: AtomicUsize::new(0),
        }
    }
}

impl<I> Default for Table<I> {
    fn default() -> Self {
        Self {
            functions: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }
}

impl<I> Table<I> {
    /// Adds an instance that serves; `trial` names the revision that it tries, if it does.
    pub fn serve(&mut self, function: FunctionId, trial: Option<&str>, instance: Arc<I>) {
        let service = self.functions.entry(function).or_default();
        match trial {
            None => service.instances.push(instance),
            Some(revision) => service.trials.push((revision.to_owned(), instance)),
        }
    }

    /// Makes the function answer at a host and a path. Controllers send each route with one function; were it
    /// two, the first in order of name has it.
    pub fn add_route(&mut self, function: &FunctionId, route: &Route) {
        let paths = self
            .hosts
            .entry(route.host.to_ascii_lowercase())
            .or_default();
        for pattern in Pattern::of(route) {
            match paths.entry(pattern) {
                Entry::Occupied(mut owner) if *function < *owner.get() => {
                    owner.insert(function.clone());
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert(function.clone());
                }
            }
        }
    }

    pub fn route(&self, host: &str, method: &str, path: &str) -> Chosen<&FunctionId> {
        match self.hosts.get(host) {
            Some(paths) => choose(paths, method, path),
            None => Chosen::Nobody,
        }
    }

    /// The instance whose turn it is; `None` while none serves. One of another revision answers rather than
    /// none: a version that is being tried may be gone, or be the only one, by the time that a request comes.
    pub fn instance(&self, function: &FunctionId, revision: Option<&str>) -> Option<Arc<I>> {
        let service = self.functions.get(function)?;
        let turn = service.turn.fetch_add(1, Ordering::Relaxed);
        let trials = |wanted: Option<&str>| {
            let all = service.trials.iter();
            let mut fit = all
                .filter(|(own, _)| wanted.is_none_or(|it| it == own))
                .map(|(_, instance)| instance);
            let count = fit.clone().count();
            fit.nth(turn.checked_rem(count)?)
        };
        let asked_for = revision.and_then(|revision| trials(Some(revision)));
        asked_for
            .or_else(|| {
                let index = turn.checked_rem(service.instances.len())?;
                service.instances.get(index)
            })
            .or_else(|| trials(None))
            .cloned()
    }

    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(name: &str) -> FunctionId {
        FunctionId::new("default", name)
    }

    fn turns(table: &Table<u8>, revision: Option<&str>) -> [u8; 4] {
        [0; 4].map(|_| *table.instance(&id("f"), revision).unwrap())
    }

    fn table(routes: &[(&str, &str, &str)]) -> Table<u8> {
        let mut table = Table::default();
        for (function, host, path) in routes {
            let route = Route {
                host: (*host).into(),
                path: (*path).into(),
                ..Route::default()
            };
            table.add_route(&id(function), &route);
        }
        table
    }

    #[test]
    fn the_longest_path_below_a_host_wins() {
        let table = table(&[
            ("root", "Example.com", "/"),
            ("api", "example.com", "/api"),
            ("v2", "example.com", "/api/v2/"),
            ("other", "other.com", "/only"),
        ]);
        for (host, path, expected) in [
            ("example.com", "/", Some("root")),
            ("example.com", "/apix", Some("root")),
            ("example.com", "/api", Some("api")),
            ("example.com", "/api/v1", Some("api")),
            ("example.com", "/api/v2", Some("v2")),
            ("example.com", "/api/v2/x", Some("v2")),
            ("other.com", "/", None),
            ("nobody.com", "/", None),
        ] {
            let expected = expected.map(id);
            let expected = expected.as_ref().map_or(Chosen::Nobody, Chosen::One);
            assert_eq!(table.route(host, "GET", path), expected, "{host}{path}");
        }
        assert_eq!(
            table.hosts().collect::<Vec<_>>(),
            ["example.com", "other.com"]
        );
    }

    #[test]
    fn a_route_that_two_claim_does_not_depend_on_their_order() {
        for routes in [
            [("a", "h", "/"), ("b", "h", "")],
            [("b", "h", ""), ("a", "h", "/")],
        ] {
            let table = table(&routes);
            assert_eq!(table.route("h", "GET", "/"), Chosen::One(&id("a")));
        }
    }

    #[test]
    fn instances_take_turns() {
        let mut table = Table::default();
        assert_eq!(table.instance(&id("f"), None), None);
        table.serve(id("f"), None, Arc::new(1));
        table.serve(id("f"), None, Arc::new(2));
        assert_eq!(turns(&table, None), [1, 2, 1, 2]);
        // There is no such version here.
        assert_eq!(turns(&table, Some("f-1")), [1, 2, 1, 2]);
    }

    #[test]
    fn a_version_on_trial_answers_who_asks_for_it() {
        let mut table = Table::default();
        table.serve(id("f"), Some("f-2"), Arc::new(2));
        // It is better than nothing.
        for revision in [None, Some("f-2"), Some("f-3")] {
            assert_eq!(turns(&table, revision), [2; 4]);
        }
        table.serve(id("f"), None, Arc::new(1));
        table.serve(id("f"), Some("f-3"), Arc::new(3));
        table.serve(id("f"), Some("f-2"), Arc::new(4));
        assert_eq!(turns(&table, None), [1; 4]);
        assert_eq!(turns(&table, Some("f-2")), [2, 4, 2, 4]);
        assert_eq!(turns(&table, Some("f-3")), [3; 4]);
        assert_eq!(turns(&table, Some("f-1")), [1; 4]);
    }
}
