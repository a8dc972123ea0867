//! What one rule of a role allows, and what a list of rules covers of another. Pure.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::attributes::{Attributes, ResourceAttributes};

const ALL: &str = "*";

/// Whether the rule allows it. The namespace is the binding's affair.
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    match attributes {
        Attributes::Path { verb, path } => {
            holds(&rule.verbs, verb)
                && list(&rule.non_resource_urls)
                    .iter()
                    .any(|url| url_covers(url, path))
        }
        Attributes::Resource(asked) => {
            holds(&rule.verbs, asked.verb)
                && holds(list(&rule.api_groups), asked.group)
                && resource_matches(list(&rule.resources), asked)
                && name_matches(list(&rule.resource_names), asked.name)
        }
    }
}

/// Whether the rule allows everything with every resource.
pub fn is_everything(rule: &PolicyRule) -> bool {
    let all = |items: &[String]| items.iter().any(|item| item == ALL);
    all(&rule.verbs)
        && all(list(&rule.api_groups))
        && all(list(&rule.resources))
        && list(&rule.resource_names).is_empty()
}

/// An absent list is an empty one.
pub fn list(items: &Option<Vec<String>>) -> &[String] {
    items.as_deref().unwrap_or_default()
}

fn holds(items: &[String], wanted: &str) -> bool {
    items.iter().any(|item| item == ALL || item == wanted)
}

fn resource_matches(resources: &[String], asked: &ResourceAttributes<'_>) -> bool {
    resources.iter().any(|rule| {
        if rule == ALL {
            return true;
        }
        match (rule.split_once('/'), asked.subresource) {
            (None, None) => rule == asked.resource,
            // `*/scale`: the subresource of everything.
            (Some((resource, subresource)), Some(wanted)) => {
                subresource == wanted && (resource == ALL || resource == asked.resource)
            }
            _ => false,
        }
    })
}

/// A rule that names objects says nothing of requests that name none, such as lists.
fn name_matches(names: &[String], asked: Option<&str>) -> bool {
    names.is_empty() || asked.is_some_and(|asked| names.iter().any(|name| name == asked))
}

/// `/metrics` covers itself, `/healthz/*` all below, `*` everything.
fn url_covers(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

/// The parts of `wanted` that `held` does not cover; empty when all is held.
///
/// Each rule is taken apart into what cannot be taken apart further, since what one rule grants may
/// be held by several. How many parts a role may have is bounded by its validation.
pub fn uncovered<'a>(held: &[&PolicyRule], wanted: &'a [PolicyRule]) -> Vec<&'a PolicyRule> {
    wanted
        .iter()
        .filter(|rule| !is_covered(held, rule))
        .collect()
}

fn is_covered(held: &[&PolicyRule], rule: &PolicyRule) -> bool {
    // The common case, and the one where there is most to take apart.
    if held.contains(&rule) {
        return true;
    }
    let names: Vec<Option<&str>> = match list(&rule.resource_names) {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let of_resources = rule.verbs.iter().all(|verb| {
        list(&rule.api_groups).iter().all(|group| {
            list(&rule.resources).iter().all(|resource| {
                names.iter().all(|name| {
                    held.iter()
                        .any(|held| covers_resource(held, verb, group, resource, *name))
                })
            })
        })
    });
    let of_urls = rule.verbs.iter().all(|verb| {
        list(&rule.non_resource_urls).iter().all(|url| {
            held.iter().any(|held| {
                holds(&held.verbs, verb)
                    && list(&held.non_resource_urls)
                        .iter()
                        .any(|own| url_covers(own, url))
            })
        })
    });
    of_resources && of_urls
}

fn covers_resource(
    held: &PolicyRule,
    verb: &str,
    group: &str,
    resource: &str,
    name: Option<&str>,
) -> bool {
    // A wildcard that is wanted is covered by the same wildcard only.
    let resources = list(&held.resources).iter().any(|own| {
        own == ALL
            || own == resource
            || match (own.split_once('/'), resource.split_once('/')) {
                (Some((ALL, own)), Some((_, wanted))) => own == wanted,
                _ => false,
            }
    });
    let names = list(&held.resource_names);
    holds(&held.verbs, verb)
        && holds(list(&held.api_groups), group)
        && resources
        && (names.is_empty() || name.is_some_and(|name| names.iter().any(|own| own == name)))
}

/// A rule as Kubernetes prints it where it refuses a grant.
pub fn describe(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    for (name, items) in [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("ResourceNames", list(&rule.resource_names)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("Verbs", rule.verbs.as_slice()),
    ] {
        if !items.is_empty() {
            parts.push(format!("{name}:{items:?}"));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use serde_json::{Value, json};

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    fn ask<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        name: Option<&'a str>,
    ) -> Attributes<'a> {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (resource, None),
        };
        Attributes::Resource(ResourceAttributes {
            verb,
            group,
            resource,
            subresource,
            namespace: None,
            name,
        })
    }

    #[test]
    fn rules_allow_as_kubernetes_reads_them() {
        let of = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| {
            rule(
                json!({ "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names }),
            )
        };
        let table = [
            (
                of(&["get"], &[""], &["secrets"], &[]),
                ask("get", "", "secrets", None),
                true,
            ),
            (
                of(&["get"], &[""], &["secrets"], &[]),
                ask("list", "", "secrets", None),
                false,
            ),
            (
                of(&["*"], &[""], &["secrets"], &[]),
                ask("list", "", "secrets", None),
                true,
            ),
            (
                of(&["get"], &[""], &["functions"], &[]),
                ask("get", "hive.dev", "functions", None),
                false,
            ),
            (
                of(&["get"], &["*"], &["functions"], &[]),
                ask("get", "hive.dev", "functions", None),
                true,
            ),
            (
                of(&["get"], &["*"], &["*"], &[]),
                ask("get", "hive.dev", "functions/scale", None),
                true,
            ),
            (
                of(&["get"], &["*"], &["functions"], &[]),
                ask("get", "hive.dev", "functions/scale", None),
                false,
            ),
            (
                of(&["get"], &["*"], &["functions/*"], &[]),
                ask("get", "hive.dev", "functions/scale", None),
                false,
            ),
            (
                of(&["get"], &["*"], &["functions/scale"], &[]),
                ask("get", "hive.dev", "functions/scale", None),
                true,
            ),
            (
                of(&["get"], &["*"], &["functions/scale"], &[]),
                ask("get", "hive.dev", "functions", None),
                false,
            ),
            (
                of(&["get"], &["*"], &["*/scale"], &[]),
                ask("get", "hive.dev", "functions/scale", None),
                true,
            ),
            (
                of(&["get"], &["*"], &["*/scale"], &[]),
                ask("get", "hive.dev", "functions/status", None),
                false,
            ),
            (
                of(&["get"], &[""], &["secrets"], &["a"]),
                ask("get", "", "secrets", Some("a")),
                true,
            ),
            (
                of(&["get"], &[""], &["secrets"], &["a"]),
                ask("get", "", "secrets", Some("b")),
                false,
            ),
            (
                of(&["list"], &[""], &["secrets"], &["a"]),
                ask("list", "", "secrets", None),
                false,
            ),
            (
                of(&["create"], &[""], &["secrets"], &["a"]),
                ask("create", "", "secrets", None),
                false,
            ),
        ];
        for (rule, asked, expected) in table {
            assert_eq!(allows(&rule, &asked), expected, "{rule:?} {asked:?}");
        }
        let urls = rule(json!({ "verbs": ["get"], "nonResourceURLs": ["/metrics", "/healthz/*"] }));
        for (path, expected) in [
            ("/metrics", true),
            ("/metrics/x", false),
            ("/healthz/ping", true),
            ("/healthz", false),
        ] {
            let asked = Attributes::Path { verb: "get", path };
            assert_eq!(allows(&urls, &asked), expected, "{path}");
        }
        assert!(!allows(&urls, &ask("get", "", "metrics", None)));
    }

    #[test]
    fn a_grant_is_covered_by_several_rules_together() {
        let held = [
            rule(
                json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets", "configmaps"] }),
            ),
            rule(
                json!({ "verbs": ["update"], "apiGroups": ["hive.dev"], "resources": ["*/scale"] }),
            ),
            rule(
                json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["*"], "resourceNames": ["a", "b"] }),
            ),
            rule(json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz/*"] })),
        ];
        let held: Vec<&PolicyRule> = held.iter().collect();
        let table = [
            (
                json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"] }),
                true,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"] }),
                true,
            ),
            (
                json!({ "verbs": ["*"], "apiGroups": [""], "resources": ["secrets"] }),
                false,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": ["*"], "resources": ["secrets"] }),
                false,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["*"] }),
                false,
            ),
            (
                json!({ "verbs": ["update"], "apiGroups": ["hive.dev"], "resources": ["functions/scale"] }),
                true,
            ),
            (
                json!({ "verbs": ["update"], "apiGroups": ["hive.dev"], "resources": ["functions"] }),
                false,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"], "resourceNames": ["b"] }),
                true,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"] }),
                false,
            ),
            (
                json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"], "resourceNames": ["b", "c"] }),
                false,
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz/ping"] }),
                true,
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz/*"] }),
                true,
            ),
            (json!({ "verbs": ["get"], "nonResourceURLs": ["*"] }), false),
        ];
        for (wanted, expected) in table {
            let wanted = [rule(wanted)];
            assert_eq!(uncovered(&held, &wanted).is_empty(), expected, "{wanted:?}");
        }
    }

    const VERBS: [&str; 4] = ["get", "list", "update", "*"];
    const GROUPS: [&str; 3] = ["", "hive.dev", "*"];
    const RESOURCES: [&str; 5] = ["secrets", "functions", "functions/scale", "*/scale", "*"];
    const NAMES: [&str; 2] = ["a", "b"];

    prop_compose! {
        fn any_rule()(
            verbs in subsequence(&VERBS[..], 1..3),
            groups in subsequence(&GROUPS[..], 1..3),
            resources in subsequence(&RESOURCES[..], 1..3),
            names in subsequence(&NAMES[..], 0..2),
        ) -> PolicyRule {
            rule(json!({ "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names }))
        }
    }

    proptest! {
        /// The point of it all: who may hand rules on gains nothing by it.
        #[test]
        fn what_is_covered_allows_nothing_new(
            held in prop::collection::vec(any_rule(), 0..4),
            wanted in prop::collection::vec(any_rule(), 0..3),
            verb in select(vec!["get", "list", "update", "delete"]),
            group in select(vec!["", "hive.dev", "other"]),
            resource in select(vec!["secrets", "functions", "functions/scale", "nodes/scale", "nodes"]),
            name in select(vec![None, Some("a"), Some("b"), Some("c")]),
        ) {
            let held: Vec<&PolicyRule> = held.iter().collect();
            let asked = ask(verb, group, resource, name);
            if uncovered(&held, &wanted).is_empty() && wanted.iter().any(|rule| allows(rule, &asked)) {
                prop_assert!(held.iter().any(|rule| allows(rule, &asked)));
            }
        }

        #[test]
        fn rules_cover_themselves(rules in prop::collection::vec(any_rule(), 0..4)) {
            let held: Vec<&PolicyRule> = rules.iter().collect();
            prop_assert!(uncovered(&held, &rules).is_empty());
        }
    }
}
