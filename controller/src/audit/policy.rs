//! How much of which request is recorded: rules in the form of Kubernetes' audit policy, of which
//! the first that matches decides. Pure.

use serde::{Deserialize, Serialize};

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    None,
    /// Who, what, when and the outcome.
    Metadata,
    /// The object that was sent, too.
    Request,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: Option<&'a str>,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    },
    Path(&'a str),
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub subject: Subject<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    /// `functions`, `functions/scale`, `*/scale`, `functions/*`; all of the group when empty.
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("it is not an audit policy: {0}")]
    Malformed(String),
    #[error(
        "apiVersion {api_version:?} and kind {kind:?}: expected \"audit.k8s.io/v1\" and \"Policy\""
    )]
    OtherKind { api_version: String, kind: String },
    #[error("rules[{index}]: resources and nonResourceURLs exclude each other: make two rules")]
    Both { index: usize },
}

const READS: [&str; 3] = ["get", "list", "watch"];

impl Default for Policy {
    /// Whatever writes, and whatever touches secrets. Nothing else: reads are many and change nothing.
    fn default() -> Self {
        let rule = |level| Rule {
            level,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
        };
        let of = |group: &str, resources: &[&str]| GroupResources {
            group: group.into(),
            resources: resources.iter().map(|name| (*name).into()).collect(),
            resource_names: Vec::new(),
        };
        Self {
            api_version: "audit.k8s.io/v1".into(),
            kind: "Policy".into(),
            rules: vec![
                Rule {
                    resources: vec![of("", &["secrets"])],
                    ..rule(Level::Metadata)
                },
                // Questions about oneself, asked by clients at each turn.
                Rule {
                    resources: vec![
                        of(
                            "authorization.k8s.io",
                            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                        ),
                        of("authentication.k8s.io", &["selfsubjectreviews"]),
                    ],
                    ..rule(Level::None)
                },
                Rule {
                    verbs: READS.map(str::to_owned).to_vec(),
                    ..rule(Level::None)
                },
                rule(Level::Metadata),
            ],
        }
    }
}

impl Policy {
    pub fn parse(yaml: &str) -> Result<Self, PolicyError> {
        let policy: Self = serde_saphyr::from_str(yaml)
            .map_err(|error| PolicyError::Malformed(error.to_string()))?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(PolicyError::OtherKind {
                api_version: policy.api_version,
                kind: policy.kind,
            });
        }
        let both = |rule: &Rule| !rule.resources.is_empty() && !rule.non_resource_urls.is_empty();
        match policy.rules.iter().position(both) {
            Some(index) => Err(PolicyError::Both { index }),
            None => Ok(policy),
        }
    }

    pub fn level(&self, asked: &Asked<'_>) -> Level {
        self.rules
            .iter()
            .find(|rule| rule.matches(asked))
            .map_or(Level::None, |rule| rule.level)
    }
}

impl Rule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|x| x == name);
        let in_groups = self.user_groups.is_empty()
            || self
                .user_groups
                .iter()
                .any(|group| asked.groups.contains(group));
        named(&self.users, asked.user)
            && in_groups
            && named(&self.verbs, asked.verb)
            && self.is_about(&asked.subject)
    }

    fn is_about(&self, subject: &Subject<'_>) -> bool {
        match *subject {
            Subject::Path(path) => {
                let urls = &self.non_resource_urls;
                self.resources.is_empty()
                    && self.namespaces.is_empty()
                    && (urls.is_empty() || urls.iter().any(|url| covers(url, path)))
            }
            Subject::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                // An empty name in the list stands for what lies in no namespace.
                let namespace = namespace.unwrap_or_default();
                self.non_resource_urls.is_empty()
                    && (self.namespaces.is_empty()
                        || self.namespaces.iter().any(|n| n == namespace))
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|of| {
                            of.group == group
                                && (of.resources.is_empty()
                                    || of
                                        .resources
                                        .iter()
                                        .any(|pattern| is_resource(pattern, resource, subresource)))
                                && (of.resource_names.is_empty()
                                    || name.is_some_and(|name| {
                                        of.resource_names.iter().any(|n| n == name)
                                    }))
                        }))
            }
        }
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

fn is_resource(pattern: &str, resource: &str, subresource: Option<&str>) -> bool {
    let is = |pattern: &str, name: &str| pattern == "*" || pattern == name;
    match (pattern.split_once('/'), subresource) {
        // `*` alone stands for everything.
        (None, _) if pattern == "*" => true,
        (None, subresource) => pattern == resource && subresource.is_none(),
        (Some((of, under)), Some(subresource)) => is(of, resource) && is(under, subresource),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked<'a>(verb: &'a str, what: &'a str, groups: &'a [String]) -> Asked<'a> {
        let subject = match what.strip_prefix('/') {
            Some(_) => Subject::Path(what),
            None => {
                // namespace:group:resource/subresource:name
                let parts: Vec<&str> = what.split(':').collect();
                let (resource, subresource) = match parts[2].split_once('/') {
                    Some((resource, subresource)) => (resource, Some(subresource)),
                    None => (parts[2], None),
                };
                Subject::Resource {
                    group: parts[1],
                    resource,
                    subresource,
                    namespace: Some(parts[0]).filter(|text| !text.is_empty()),
                    name: parts.get(3).copied(),
                }
            }
        };
        Asked {
            user: "ada",
            groups,
            verb,
            subject,
        }
    }

    #[test]
    fn the_default_records_writes_and_secrets() {
        let policy = Policy::default();
        let table = [
            ("create", "x:hive.dev:functions", Level::Metadata),
            ("update", "x:hive.dev:functions/scale:f", Level::Metadata),
            ("get", "x:hive.dev:functions:f", Level::None),
            ("watch", ":hive.dev:nodes", Level::None),
            ("get", "x::secrets:s", Level::Metadata),
            ("list", "x::secrets", Level::Metadata),
            ("get", "/openapi/v2", Level::None),
            (
                "create",
                ":authorization.k8s.io:selfsubjectaccessreviews",
                Level::None,
            ),
        ];
        for (verb, what, expected) in table {
            assert_eq!(
                policy.level(&asked(verb, what, &[])),
                expected,
                "{verb} {what}"
            );
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ["robot"]
- level: Request
  userGroups: ["interns"]
  verbs: ["delete"]
- level: None
  nonResourceURLs: ["/healthz", "/openapi*"]
- level: None
  resources:
  - group: hive.dev
    resources: ["*/log", "functions/scale"]
  - resources: ["configmaps"]
    resourceNames: ["leader"]
    "#
            .trim_end_matches(' '),
        )
        .map(|mut policy| {
            policy.rules.extend(Policy::default().rules.pop());
            policy
        })
        .unwrap();
        let interns = ["interns".to_owned()];
        let table: [(&str, &str, &[String], Level); 9] = [
            ("delete", "x::configmaps:leader", &interns, Level::Request),
            ("delete", "x::configmaps:leader", &[], Level::None),
            ("delete", "x::configmaps:other", &[], Level::Metadata),
            ("delete", "x::configmaps", &[], Level::Metadata),
            ("get", "x:hive.dev:functions/log:f", &[], Level::None),
            ("update", "x:hive.dev:functions/scale:f", &[], Level::None),
            ("update", "x:hive.dev:functions:f", &[], Level::Metadata),
            ("get", "/openapi/v3", &[], Level::None),
            ("get", "/metrics", &[], Level::Metadata),
        ];
        for (verb, what, groups, expected) in table {
            assert_eq!(
                policy.level(&asked(verb, what, groups)),
                expected,
                "{verb} {what}"
            );
        }
        let robot = Asked {
            user: "robot",
            ..asked("delete", "x::configmaps:other", &[])
        };
        assert_eq!(policy.level(&robot), Level::None);
    }

    #[test]
    fn what_is_no_policy_says_where_it_is_wrong() {
        let table = [
            ("rules: []", "apiVersion"),
            (
                "apiVersion: v1\nkind: Policy\nrules: []",
                "expected \"audit.k8s.io/v1\"",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything",
                "Everything",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  verb: [get]",
                "verb",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  nonResourceURLs: [/x]\n  resources: [{group: a}]",
                "rules[0]",
            ),
        ];
        for (yaml, expected) in table {
            let error = Policy::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
