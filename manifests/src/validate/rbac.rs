//! Rules about roles and bindings, as Kubernetes has them. Whether somebody may grant what they
//! say is the server's to decide.

use serde_json::Value;

use super::findings::{Findings, quoted};
use super::names;
use crate::{FieldPath, RBAC_GROUP};

/// What the rules of one role may say at most, counted as verbs x resources x names. To find out
/// whether somebody may grant a role, it is taken apart into these.
const MAX_PARTS: usize = 10_000;

pub(super) fn check_role(value: &Value, namespaced: bool, findings: &mut Findings) {
    let rules = value.get("rules").and_then(Value::as_array);
    let mut parts = 0usize;
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let path = FieldPath::of(["rules"]).index(index);
        check_rule(rule, &path, namespaced, findings);
        parts = parts.saturating_add(count(rule));
    }
    if parts > MAX_PARTS {
        findings.invalid(
            &FieldPath::of(["rules"]),
            format!(
                "they make {parts} combinations of verb, group, resource and name; at most {MAX_PARTS} are \
                 accepted: use \"*\", or several roles"
            ),
        );
    }
    if let Some(aggregation) = value.get("aggregationRule").filter(|rule| rule.is_object())
        && aggregation
            .get("clusterRoleSelectors")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    {
        findings.required(&FieldPath::of(["aggregationRule", "clusterRoleSelectors"]));
    }
}

fn items<'a>(rule: &'a Value, field: &str) -> &'a [Value] {
    rule.get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn count(rule: &Value) -> usize {
    let some = |field| items(rule, field).len().max(1);
    ["verbs", "apiGroups", "resources", "resourceNames"]
        .into_iter()
        .map(some)
        .chain([items(rule, "nonResourceURLs").len().max(1)])
        .fold(1, usize::saturating_mul)
}

fn check_rule(rule: &Value, path: &FieldPath, namespaced: bool, findings: &mut Findings) {
    if items(rule, "verbs").is_empty() {
        findings.required(&path.field("verbs"));
    }
    let urls = items(rule, "nonResourceURLs");
    let of_resources = ["apiGroups", "resources", "resourceNames"]
        .into_iter()
        .any(|field| !items(rule, field).is_empty());
    if !urls.is_empty() {
        let at = path.field("nonResourceURLs");
        if namespaced {
            findings.invalid(
                &at,
                "namespaced rules cannot apply to non-resource URLs: use a ClusterRole",
            );
        }
        if of_resources {
            findings.invalid(
                &at,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        for (index, url) in urls.iter().enumerate() {
            let Some(url) = url.as_str() else { continue };
            let good =
                url == "*" || url.starts_with('/') && !url.trim_end_matches('*').contains('*');
            if !good {
                findings.invalid(
                    &at.index(index),
                    format!(
                        "{} is neither \"*\" nor a path, which may end with \"*\"",
                        quoted(url)
                    ),
                );
            }
        }
        return;
    }
    if items(rule, "apiGroups").is_empty() {
        let message = "resource rules must supply at least one api group; \"\" is the core group";
        findings.push(&path.field("apiGroups"), super::Reason::Required, message);
    }
    if items(rule, "resources").is_empty() {
        let message = "resource rules must supply at least one resource";
        findings.push(&path.field("resources"), super::Reason::Required, message);
    }
}

pub(super) fn check_binding(value: &Value, namespaced: bool, findings: &mut Findings) {
    if let Some(role) = value.get("roleRef").filter(|role| role.is_object()) {
        check_role_ref(role, namespaced, findings);
    }
    let subjects = value.get("subjects").and_then(Value::as_array);
    for (index, subject) in subjects.into_iter().flatten().enumerate() {
        let path = FieldPath::of(["subjects"]).index(index);
        check_subject(subject, &path, namespaced, findings);
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn check_role_ref(role: &Value, namespaced: bool, findings: &mut Findings) {
    let path = FieldPath::of(["roleRef"]);
    let kinds: &[&str] = match namespaced {
        true => &["Role", "ClusterRole"],
        false => &["ClusterRole"],
    };
    supported(role, &path, "apiGroup", &[RBAC_GROUP], findings);
    supported(role, &path, "kind", kinds, findings);
    let name = text(role, "name");
    if name.is_empty() {
        findings.required(&path.field("name"));
    } else if let Err(why) = names::path_segment(name) {
        findings.invalid(
            &path.field("name"),
            format!("{} is not a role's name: {why}", quoted(name)),
        );
    }
}

fn check_subject(subject: &Value, path: &FieldPath, namespaced: bool, findings: &mut Findings) {
    let (kind, name) = (text(subject, "kind"), text(subject, "name"));
    if name.is_empty() {
        findings.required(&path.field("name"));
    }
    match kind {
        "ServiceAccount" => {
            supported(subject, path, "apiGroup", &[""], findings);
            if !name.is_empty()
                && let Err(why) = names::dns_subdomain(name)
            {
                findings.invalid(
                    &path.field("name"),
                    format!("{} is not a service account's name: {why}", quoted(name)),
                );
            }
            // Inside a namespace, its own is meant.
            if !namespaced && text(subject, "namespace").is_empty() {
                findings.required(&path.field("namespace"));
            }
        }
        "User" | "Group" => {
            supported(subject, path, "apiGroup", &["", RBAC_GROUP], findings);
            if !text(subject, "namespace").is_empty() {
                findings.forbidden(
                    &path.field("namespace"),
                    "users and groups belong to no namespace",
                );
            }
        }
        _ => supported(
            subject,
            path,
            "kind",
            &["ServiceAccount", "User", "Group"],
            findings,
        ),
    }
}

fn supported(
    value: &Value,
    path: &FieldPath,
    field: &str,
    values: &[&str],
    findings: &mut Findings,
) {
    let found = text(value, field);
    if values.contains(&found) {
        return;
    }
    let known: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    findings.invalid(
        &path.field(field),
        format!(
            "{} is not supported here: use {}",
            quoted(found),
            known.join(" or ")
        ),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(check: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        check(&mut findings);
        findings
            .into_errors()
            .iter()
            .map(|error| error.path.to_string())
            .collect()
    }

    #[test]
    fn a_rule_is_about_resources_or_about_urls() {
        let table = [
            (
                json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"] }),
                true,
                vec![],
            ),
            (
                json!({ "verbs": ["get"] }),
                true,
                vec!["apiGroups", "resources"],
            ),
            (
                json!({ "apiGroups": [""], "resources": ["secrets"] }),
                true,
                vec!["verbs"],
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["/a", "/b/*", "*"] }),
                false,
                vec![],
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["/a"] }),
                true,
                vec!["nonResourceURLs"],
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["secrets"] }),
                false,
                vec!["nonResourceURLs"],
            ),
            (
                json!({ "verbs": ["get"], "nonResourceURLs": ["a", "/a*b"] }),
                false,
                vec!["nonResourceURLs[0]", "nonResourceURLs[1]"],
            ),
        ];
        for (rule, namespaced, expected) in table {
            let expected: Vec<String> = expected
                .into_iter()
                .map(|field| format!("rules[0].{field}"))
                .collect();
            let role = json!({ "rules": [rule] });
            let found = fields(|findings| check_role(&role, namespaced, findings));
            assert_eq!(found, expected, "{role}");
        }
    }

    #[test]
    fn a_role_has_a_bound() {
        let many: Vec<String> = (0..101).map(|n| format!("r{n}")).collect();
        let role = json!({ "rules": [{ "verbs": many, "apiGroups": [""], "resources": many }] });
        assert_eq!(
            fields(|findings| check_role(&role, true, findings)),
            ["rules"]
        );
    }

    #[test]
    fn a_binding_names_a_role_and_whom_it_is_for() {
        let group = RBAC_GROUP;
        let role = json!({ "apiGroup": group, "kind": "Role", "name": "r" });
        let cluster = json!({ "apiGroup": group, "kind": "ClusterRole", "name": "system:r" });
        let account = json!({ "kind": "ServiceAccount", "name": "a" });
        let table = [
            (
                json!({ "roleRef": role, "subjects": [account] }),
                true,
                vec![],
            ),
            (json!({ "roleRef": role }), false, vec!["roleRef.kind"]),
            (
                json!({ "roleRef": cluster, "subjects": [account] }),
                false,
                vec!["subjects[0].namespace"],
            ),
            (
                json!({ "roleRef": { "apiGroup": "", "kind": "Role", "name": "a/b" } }),
                true,
                vec!["roleRef.apiGroup", "roleRef.name"],
            ),
            (
                json!({ "roleRef": cluster, "subjects": [
                    { "kind": "User", "name": "jane" },
                    { "kind": "Group", "name": "", "apiGroup": group },
                    { "kind": "Robot", "name": "r2" },
                    { "kind": "ServiceAccount", "name": "a", "namespace": "n", "apiGroup": group },
                    { "kind": "User", "name": "joe", "namespace": "n" },
                ] }),
                false,
                vec![
                    "subjects[1].name",
                    "subjects[2].kind",
                    "subjects[3].apiGroup",
                    "subjects[4].namespace",
                ],
            ),
        ];
        for (binding, namespaced, expected) in table {
            let found = fields(|findings| check_binding(&binding, namespaced, findings));
            assert_eq!(found, expected, "{binding}");
        }
    }
}
