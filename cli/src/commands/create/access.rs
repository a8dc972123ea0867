//! `hivectl create role | clusterrole | rolebinding | clusterrolebinding`: from flags to their content.

use clap::Args;
use hive_manifests::{RBAC_GROUP, Resource};
use serde_json::{Value, json};

use super::How;
use crate::failure::Failure;
use crate::selection;

#[derive(Debug, Args)]
pub struct Role {
    pub name: String,

    /// What may be done, such as get,list
    #[arg(long, required = true, value_delimiter = ',', value_name = "VERB")]
    verb: Vec<String>,

    /// With what: functions, functions/scale, secrets
    #[arg(long, required = true, value_delimiter = ',', value_name = "RESOURCE")]
    resource: Vec<String>,

    /// With these objects only
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    resource_name: Vec<String>,

    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, Args)]
pub struct ClusterRole {
    pub name: String,

    /// What may be done, such as get,list
    #[arg(long, value_delimiter = ',', value_name = "VERB")]
    verb: Vec<String>,

    /// With what: nodes, functions/scale, secrets
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "RESOURCE",
        requires = "verb"
    )]
    resource: Vec<String>,

    /// With these objects only
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        requires = "resource"
    )]
    resource_name: Vec<String>,

    /// With which paths that are no resources: /metrics, /healthz/*
    #[arg(
        long = "non-resource-url",
        value_delimiter = ',',
        value_name = "PATH",
        requires = "verb",
        conflicts_with = "resource"
    )]
    urls: Vec<String>,

    /// Made of the cluster roles with these labels
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "KEY=VALUE",
        conflicts_with = "verb",
        required_unless_present = "verb"
    )]
    aggregation_rule: Vec<String>,

    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, Args)]
pub struct RoleBinding {
    pub name: String,

    /// The role of this namespace
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "clusterrole",
        required_unless_present = "clusterrole"
    )]
    role: Option<String>,

    /// The cluster role
    #[arg(long, value_name = "NAME")]
    clusterrole: Option<String>,

    #[command(flatten)]
    subjects: Subjects,

    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, Args)]
pub struct ClusterRoleBinding {
    pub name: String,

    /// The cluster role
    #[arg(long, value_name = "NAME", required = true)]
    clusterrole: String,

    #[command(flatten)]
    subjects: Subjects,

    #[command(flatten)]
    pub how: How,
}

/// Whom it is given to.
#[derive(Debug, Args)]
pub struct Subjects {
    /// A user; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    user: Vec<String>,

    /// A group; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    group: Vec<String>,

    /// A service account; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE:NAME")]
    serviceaccount: Vec<String>,
}

impl Role {
    pub fn content(&self) -> Result<Value, Failure> {
        let rules = rules(&self.verb, &self.resource, &self.resource_name)?;
        Ok(json!({ "rules": rules }))
    }
}

impl ClusterRole {
    pub fn content(&self) -> Result<Value, Failure> {
        cluster_role(self)
    }
}

impl RoleBinding {
    pub fn content(&self) -> Result<Value, Failure> {
        match (&self.role, &self.clusterrole) {
            (Some(role), _) => bound(Resource::Role, role, &self.subjects),
            (None, Some(role)) => bound(Resource::ClusterRole, role, &self.subjects),
            (None, None) => Err(Failure::usage("say --role or --clusterrole")),
        }
    }
}

impl ClusterRoleBinding {
    pub fn content(&self) -> Result<Value, Failure> {
        bound(Resource::ClusterRole, &self.clusterrole, &self.subjects)
    }
}

/// One rule for each API group, as kubectl writes it.
fn rules(verbs: &[String], resources: &[String], names: &[String]) -> Result<Vec<Value>, Failure> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for word in resources {
        let (group, resource) = spelled(word)?;
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, resources)) => resources.push(resource),
            None => groups.push((group, vec![resource])),
        }
    }
    Ok(groups
        .into_iter()
        .map(|(group, resources)| {
            let mut rule = json!({ "verbs": verbs, "apiGroups": [group], "resources": resources });
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
        .collect())
}

/// `fn/scale` is `functions/scale` of `hive.dev`. What is not stored is spelled out with its
/// group: `nodes.metrics.k8s.io`.
fn spelled(word: &str) -> Result<(String, String), Failure> {
    let (kind, subresource) = match word.split_once('/') {
        Some((kind, subresource)) => (kind, Some(subresource)),
        None => (word, None),
    };
    let (group, plural) = match (kind, selection::resource(kind)) {
        ("*", _) => ("*".to_owned(), "*".to_owned()),
        (_, Ok(resource)) => (resource.group().to_owned(), resource.plural().to_owned()),
        (kind, Err(unknown)) => match kind.split_once('.') {
            Some((plural, group)) => (group.to_owned(), plural.to_owned()),
            None => return Err(unknown),
        },
    };
    Ok(match subresource {
        Some(subresource) => (group, format!("{plural}/{subresource}")),
        None => (group, plural),
    })
}

fn cluster_role(role: &ClusterRole) -> Result<Value, Failure> {
    if !role.aggregation_rule.is_empty() {
        let mut labels = json!({});
        for pair in &role.aggregation_rule {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--aggregation-rule {pair:?} is not KEY=VALUE"))
            })?;
            labels[key] = value.into();
        }
        let selectors = json!([{ "matchLabels": labels }]);
        return Ok(
            json!({ "aggregationRule": { "clusterRoleSelectors": selectors }, "rules": [] }),
        );
    }
    if !role.urls.is_empty() {
        let rule = json!({ "verbs": role.verb, "nonResourceURLs": role.urls });
        return Ok(json!({ "rules": [rule] }));
    }
    if role.resource.is_empty() {
        return Err(Failure::usage("say --resource or --non-resource-url"));
    }
    let rules = rules(&role.verb, &role.resource, &role.resource_name)?;
    Ok(json!({ "rules": rules }))
}

fn bound(kind: Resource, role: &str, subjects: &Subjects) -> Result<Value, Failure> {
    let named =
        |kind: &str, name: &String| json!({ "apiGroup": RBAC_GROUP, "kind": kind, "name": name });
    let mut all: Vec<Value> = Vec::new();
    all.extend(subjects.user.iter().map(|name| named("User", name)));
    all.extend(subjects.group.iter().map(|name| named("Group", name)));
    for account in &subjects.serviceaccount {
        let (namespace, name) = account.split_once(':').ok_or_else(|| {
            Failure::usage(format!(
                "--serviceaccount {account:?} is not NAMESPACE:NAME"
            ))
        })?;
        all.push(json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }));
    }
    Ok(json!({
        "roleRef": { "apiGroup": RBAC_GROUP, "kind": kind.kind(), "name": role },
        "subjects": all,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resources_are_spelled_out_with_their_group() {
        for (word, group, resource) in [
            ("fn", "hive.dev", "functions"),
            ("functions/scale", "hive.dev", "functions/scale"),
            ("secret", "", "secrets"),
            ("nodes.metrics.k8s.io", "metrics.k8s.io", "nodes"),
            ("artifacts.hive.dev", "hive.dev", "artifacts"),
            ("*", "*", "*"),
        ] {
            let expected = (group.to_owned(), resource.to_owned());
            assert_eq!(spelled(word).unwrap(), expected, "{word}");
        }
        assert!(spelled("pods").is_err());
    }

    #[test]
    fn a_role_has_one_rule_for_each_group() {
        let words = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
        let rules = rules(&words("get,list"), &words("fn,nodes,cm"), &words("a")).unwrap();
        assert_eq!(
            json!(rules),
            json!([
                { "verbs": ["get", "list"], "apiGroups": ["hive.dev"],
                  "resources": ["functions", "nodes"], "resourceNames": ["a"] },
                { "verbs": ["get", "list"], "apiGroups": [""],
                  "resources": ["configmaps"], "resourceNames": ["a"] },
            ])
        );
    }
}
