//! What a node's own address answers. Pure.
//!
//! Who has which host, and which route, is decided as at an ingress, among the functions on the node alone: it answers
//! nothing for others. The rest are sent without it, so nothing but what is in a conflict is sent in another way.

use std::collections::{BTreeMap, BTreeSet};

use hive_proto::routes::Pattern;
use hive_proto::v1::{Assignment, Route};

use crate::ingress::routes::{Claimant, home};

/// A function's namespace and name.
type Name = (String, String);

/// `claimant` says how old a function is; those of which it does not say come last. `domain` is the swarm's.
pub fn give_to_oldest(
    assignments: &mut [Assignment],
    domain: &str,
    claimant: impl Fn(&Name) -> Option<Claimant>,
) {
    keep_to_own_hosts(assignments, domain, &claimant);
    let mut claims: BTreeMap<(String, Pattern), BTreeSet<Name>> = BTreeMap::new();
    for assignment in assignments.iter() {
        for route in &assignment.routes {
            for pattern in Pattern::of(route) {
                let claim = (route.host.clone(), pattern);
                claims.entry(claim).or_default().insert(name_of(assignment));
            }
        }
    }
    claims.retain(|_, by| by.len() > 1);
    if claims.is_empty() {
        return;
    }
    let owners: BTreeMap<(String, Pattern), Name> = claims
        .into_iter()
        .filter_map(|(claim, by)| {
            let oldest = oldest(by, &claimant)?;
            Some((claim, oldest))
        })
        .collect();
    for assignment in assignments {
        let name = name_of(assignment);
        let has = |route: &Route, pattern: Pattern| {
            let owner = owners.get(&(route.host.clone(), pattern));
            owner.is_none_or(|owner| *owner == name)
        };
        assignment.routes.retain_mut(|route| {
            if route.methods.is_empty() {
                return Pattern::of(route).into_iter().all(|it| has(route, it));
            }
            let mut left = Vec::new();
            for method in std::mem::take(&mut route.methods) {
                let one = Route {
                    methods: vec![method],
                    ..route.clone()
                };
                if Pattern::of(&one).into_iter().all(|it| has(&one, it)) {
                    left.extend(one.methods);
                }
            }
            route.methods = left;
            // Without any it would be a route for all.
            !route.methods.is_empty()
        });
    }
}

/// Takes away what is at hosts of other namespaces.
fn keep_to_own_hosts(
    assignments: &mut [Assignment],
    domain: &str,
    claimant: &impl Fn(&Name) -> Option<Claimant>,
) {
    let mut claims: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
    for assignment in assignments.iter() {
        for route in &assignment.routes {
            let by = claims.entry(route.host.clone()).or_default();
            by.insert(name_of(assignment));
        }
    }
    let owners: BTreeMap<String, String> = claims
        .into_iter()
        .filter_map(|(host, by)| {
            let owner = match home(&host, domain) {
                Some(namespace) => namespace.to_owned(),
                // In order of namespace: all are of one, as nearly always.
                None if by.first()?.0 == by.last()?.0 => return None,
                None => oldest(by, claimant)?.0,
            };
            Some((host, owner))
        })
        .collect();
    for assignment in assignments {
        let own = &assignment.namespace;
        assignment.routes.retain(|route| {
            let owner = owners.get(&route.host);
            owner.is_none_or(|owner| owner == own)
        });
    }
}

fn oldest(by: BTreeSet<Name>, claimant: &impl Fn(&Name) -> Option<Claimant>) -> Option<Name> {
    by.into_iter().min_by_key(|name| {
        let claimant = claimant(name);
        (claimant.is_none(), claimant)
    })
}

fn name_of(assignment: &Assignment) -> Name {
    (assignment.namespace.clone(), assignment.function.clone())
}

#[cfg(test)]
mod tests {
    use hive_manifests::Resource;

    use super::*;
    use crate::state::Key;

    fn assignment(function: &str, routes: &[(&str, &[&str])]) -> Assignment {
        let route = |(path, methods): &(&str, &[&str])| Route {
            host: "h".into(),
            path: (*path).to_owned(),
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            exact: false,
        };
        Assignment {
            namespace: "default".into(),
            function: function.into(),
            routes: routes.iter().map(route).collect(),
            ..Assignment::default()
        }
    }

    /// The younger a function, the later its name.
    fn given(mut assignments: Vec<Assignment>) -> Vec<Assignment> {
        give_to_oldest(&mut assignments, "localhost", |(namespace, name)| {
            let key = Key::new(Resource::Function, namespace, name);
            Some((name.replace("new", "2026").replace("old", "2020"), key))
        });
        assignments
    }

    #[test]
    fn of_several_functions_the_oldest_has_a_route() {
        let without = vec![
            assignment("a-new", &[("/a", &[])]),
            assignment("old", &[("/", &[])]),
            assignment("old", &[("/", &[])]),
        ];
        assert_eq!(given(without.clone()), without);

        let all = given(vec![
            assignment(
                "new",
                &[("/a/", &[]), ("/new", &[]), ("/m", &["GET", "PUT"])],
            ),
            assignment(
                "old",
                &[("/a", &[]), ("/m", &["GET", "POST"]), ("/n", &["GET"])],
            ),
            assignment("newer", &[("/a", &[]), ("/n", &["GET"])]),
        ]);
        let expected = vec![
            assignment("new", &[("/new", &[]), ("/m", &["PUT"])]),
            assignment(
                "old",
                &[("/a", &[]), ("/m", &["GET", "POST"]), ("/n", &["GET"])],
            ),
            assignment("newer", &[]),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_host_is_one_namespace_s() {
        let claim = |namespace: &str, function: &str, hosts: &[&str]| Assignment {
            namespace: namespace.into(),
            routes: hosts
                .iter()
                .map(|host| Route {
                    host: (*host).to_owned(),
                    path: format!("/{function}"),
                    ..Route::default()
                })
                .collect(),
            ..assignment(function, &[])
        };
        let all = given(vec![
            claim("a", "new", &["x.org", "y.org", "f.b.localhost"]),
            claim("b", "old", &["x.org", "f.b.localhost"]),
            claim("b", "newer", &["x.org"]),
        ]);
        let expected = vec![
            claim("a", "new", &["y.org"]),
            claim("b", "old", &["x.org", "f.b.localhost"]),
            claim("b", "newer", &["x.org"]),
        ];
        assert_eq!(all, expected);
    }
}
