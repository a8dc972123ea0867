//! Which of the routes below a host a request takes. Ingresses and agents keep what functions claim in
//! this order and choose by it, so that a request finds the same function wherever it comes in.
//!
//! As in Gateway API: an exact path goes before prefixes, the longest prefix first, and among equal
//! paths a route for the request's method before one for all. A route whose path fits and whose
//! methods don't leaves the request to the next.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::v1::Route;

/// A path, and perhaps one method, below a host. The order is that in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    kind: Kind,
    longest: Reverse<usize>,
    path: String,
    method: Methods,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    /// The path ends with no slash, so that "/api" stands for "/api/x" and not for "/apix".
    Prefix,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Methods {
    Only(String),
    All,
}

/// Who answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen<T> {
    One(T),
    /// The path is somebody's, for these methods only: the value of an `Allow` header.
    OtherMethods(String),
    Nobody,
}

impl Pattern {
    /// A route is one for each of its methods.
    pub fn of(route: &Route) -> Vec<Self> {
        let kind = match route.exact {
            true => Kind::Exact,
            false => Kind::Prefix,
        };
        let pattern = |method| Self::new(kind, &route.path, method);
        match &*route.methods {
            [] => vec![pattern(Methods::All)],
            some => some
                .iter()
                .map(|method| pattern(Methods::Only(method.clone())))
                .collect(),
        }
    }

    fn new(kind: Kind, path: &str, method: Methods) -> Self {
        let path = match kind {
            Kind::Exact => path,
            Kind::Prefix => path.trim_end_matches('/'),
        };
        Self {
            kind,
            longest: Reverse(path.len()),
            path: path.to_owned(),
            method,
        }
    }

    /// The same at another path.
    pub fn at(&self, path: &str) -> Self {
        Self::new(self.kind, path, self.method.clone())
    }

    /// The path as people write it.
    pub fn path(&self) -> &str {
        match &*self.path {
            "" => "/",
            path => path,
        }
    }

    fn covers(&self, path: &str) -> bool {
        match (self.kind, path.strip_prefix(&*self.path)) {
            (_, None) => false,
            (Kind::Exact, Some(rest)) => rest.is_empty(),
            (Kind::Prefix, Some(rest)) => rest.is_empty() || rest.starts_with('/'),
        }
    }
}

/// `patterns` are those below the request's host, in their order.
pub fn choose<'a, T>(
    patterns: impl IntoIterator<Item = (&'a Pattern, T)>,
    method: &str,
    path: &str,
) -> Chosen<T> {
    let mut others = BTreeSet::new();
    for (pattern, by) in patterns {
        if !pattern.covers(path) {
            continue;
        }
        match &pattern.method {
            Methods::Only(only) if only != method => {
                others.insert(only.as_str());
            }
            Methods::Only(_) | Methods::All => return Chosen::One(by),
        }
    }
    if others.is_empty() {
        return Chosen::Nobody;
    }
    Chosen::OtherMethods(others.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn route(path: &str, exact: bool, methods: &[&str]) -> Route {
        Route {
            host: "h".into(),
            path: path.into(),
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            exact,
        }
    }

    fn table<'a>(routes: &[(&'a str, Route)]) -> BTreeMap<Pattern, &'a str> {
        let patterns = |(name, route): &(&'a str, Route)| {
            let name = *name;
            Pattern::of(route)
                .into_iter()
                .map(move |pattern| (pattern, name))
        };
        routes.iter().flat_map(patterns).collect()
    }

    #[test]
    fn each_request_takes_the_most_specific_route() {
        let table = table(&[
            ("root", route("/", false, &[])),
            ("api", route("/api/", false, &["GET", "HEAD"])),
            ("post", route("/api", false, &["POST"])),
            ("v2", route("/api/v2", false, &["GET"])),
            ("ping", route("/api/v2/ping", true, &[])),
            ("slash", route("/api/v2/ping/", true, &["GET"])),
        ]);
        for (method, path, expected) in [
            ("GET", "/", "root"),
            ("GET", "/apix", "root"),
            ("GET", "/api", "api"),
            ("HEAD", "/api/", "api"),
            ("POST", "/api/v1", "post"),
            // Nobody below takes it for this method.
            ("PUT", "/api/v1", "root"),
            ("GET", "/api/v2/x", "v2"),
            ("POST", "/api/v2/x", "post"),
            ("PUT", "/api/v2/ping", "ping"),
            ("GET", "/api/v2/ping/x", "v2"),
            ("GET", "/api/v2/ping/", "slash"),
            ("POST", "/api/v2/ping/", "post"),
        ] {
            let patterns = table.iter().map(|(pattern, name)| (pattern, *name));
            let chosen = choose(patterns, method, path);
            assert_eq!(chosen, Chosen::One(expected), "{method} {path}");
        }
    }

    #[test]
    fn a_path_for_other_methods_is_told_from_nobodys() {
        let table = table(&[
            ("read", route("/a", false, &["HEAD", "GET"])),
            ("write", route("/a/b", true, &["PUT"])),
        ]);
        let choose = |method, path| {
            let patterns = table.iter().map(|(pattern, name)| (pattern, *name));
            super::choose(patterns, method, path)
        };
        assert_eq!(
            choose("POST", "/a/b"),
            Chosen::OtherMethods("GET, HEAD, PUT".into())
        );
        assert_eq!(
            choose("PUT", "/a"),
            Chosen::OtherMethods("GET, HEAD".into())
        );
        assert_eq!(choose("GET", "/b"), Chosen::Nobody);
        // Methods are told apart by case (RFC 9110, 9.1).
        assert!(matches!(choose("get", "/a"), Chosen::OtherMethods(_)));
    }

    proptest! {
        /// One more route below a path takes no request that it does not cover.
        #[test]
        fn a_route_takes_only_what_it_covers(
            routes in prop::collection::vec(("(/[ab]{0,2}){1,3}", any::<bool>(), any::<bool>()), 1..6),
            path in "(/[ab]{0,2}){1,4}",
            get in any::<bool>(),
        ) {
            let names: Vec<String> = (0..routes.len()).map(|n| n.to_string()).collect();
            let method = if get { "GET" } else { "PUT" };
            let routes: Vec<(&str, Route)> = routes
                .iter()
                .zip(&names)
                .map(|((path, exact, get), name)| {
                    let methods: &[&str] = if *get { &["GET"] } else { &[] };
                    (&**name, route(path, *exact, methods))
                })
                .collect();
            let table = table(&routes);
            let patterns = table.iter().map(|(pattern, name)| (pattern, *name));
            let fits = |route: &Route| {
                let below = format!("{}/", route.path.trim_end_matches('/'));
                let covers = match route.exact {
                    true => path == route.path,
                    false => format!("{path}/").starts_with(&below),
                };
                covers && (route.methods.is_empty() || get)
            };
            match choose(patterns, method, &path) {
                Chosen::One(name) => {
                    let (_, route) = &routes[name.parse::<usize>().unwrap()];
                    prop_assert!(fits(route), "{route:?}");
                }
                _ => prop_assert!(!routes.iter().any(|(_, route)| fits(route))),
            }
        }
    }
}
