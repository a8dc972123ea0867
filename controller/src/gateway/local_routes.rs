//! What a node's own address answers. Pure.
//!
//! Of functions on the node that claim one route the oldest has it, as at an ingress: the others are sent without
//! it. So nothing but what is in a conflict is sent in another way.

use std::collections::{BTreeMap, BTreeSet};

use hive_proto::routes::Pattern;
use hive_proto::v1::{Assignment, Route};

use crate::ingress::routes::Claimant;

/// A function's namespace and name.
type Name = (String, String);

/// `claimant` says how old a function is; those of which it does not say come last.
pub fn give_to_oldest(
    assignments: &mut [Assignment],
    claimant: impl Fn(&Name) -> Option<Claimant>,
) {
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
            let oldest = by.into_iter().min_by_key(|name| {
                let claimant = claimant(name);
                (claimant.is_none(), claimant)
            })?;
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
        give_to_oldest(&mut assignments, |(namespace, name)| {
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
}
