//! Label and field selectors: which objects a list, a watch or a deletion is about.
//!
//! Pure: a selector is parsed from its text and asked about objects, nothing else.

use std::collections::BTreeSet;

use hive_manifests::Resource;
use serde_json::Value;

use crate::state::Object;

/// A conjunction of requirements on labels; empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSelector(Vec<LabelRequirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRequirement {
    Exists(String),
    Absent(String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectorError {
    #[error(
        "{0:?} is not a requirement: write key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)"
    )]
    Requirement(String),
    #[error("a parenthesis is missing in {0:?}")]
    Parenthesis(String),
    #[error("field label not supported: {label}; {plural} can be selected by {supported}")]
    Field {
        label: String,
        plural: &'static str,
        supported: String,
    },
}

impl LabelSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        split_outside_parentheses(text)?
            .into_iter()
            .map(LabelRequirement::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects what has no labels.
    pub fn matches_unlabelled(&self) -> bool {
        self.0.iter().all(|requirement| {
            matches!(
                requirement,
                LabelRequirement::Absent(_) | LabelRequirement::NotIn(..)
            )
        })
    }

    pub fn matches(&self, object: &Object) -> bool {
        if self.is_empty() {
            return true;
        }
        let labels = object.labels();
        self.0.iter().all(|requirement| match requirement {
            LabelRequirement::Exists(key) => labels.contains_key(&**key),
            LabelRequirement::Absent(key) => !labels.contains_key(&**key),
            LabelRequirement::In(key, values) => labels
                .get(&**key)
                .is_some_and(|value| values.contains(&**value)),
            LabelRequirement::NotIn(key, values) => labels
                .get(&**key)
                .is_none_or(|value| !values.contains(&**value)),
        })
    }
}

impl LabelRequirement {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let bad = || SelectorError::Requirement(text.to_owned());
        let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
        let key = |key: &str| {
            let key = key.trim();
            let valid = !key.is_empty()
                && key
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
            valid.then(|| key.to_owned()).ok_or_else(bad)
        };
        if let Some(head) = text.strip_suffix(')') {
            let (head, values) = head.split_once('(').ok_or_else(bad)?;
            let values: BTreeSet<String> = values
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect();
            let mut words = head.split_whitespace();
            return match (words.next(), words.next(), words.next()) {
                (Some(name), Some("in"), None) => Ok(Self::In(key(name)?, values)),
                (Some(name), Some("notin"), None) => Ok(Self::NotIn(key(name)?, values)),
                _ => Err(bad()),
            };
        }
        if let Some((name, value)) = text.split_once("!=") {
            return Ok(Self::NotIn(key(name)?, one(value)));
        }
        if let Some((name, value)) = text.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            return Ok(Self::In(key(name)?, one(value)));
        }
        match text.strip_prefix('!') {
            Some(name) => Ok(Self::Absent(key(name)?)),
            None => Ok(Self::Exists(key(text)?)),
        }
    }
}

/// Splits at commas, but not at those of a value set.
fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, SelectorError> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(SelectorError::Parenthesis(text.to_owned())),
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(SelectorError::Parenthesis(text.to_owned()));
    }
    parts.push(&text[start..]);
    Ok(parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect())
}

/// A conjunction of equalities on fields; empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSelector(Vec<FieldRequirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    label: String,
    value: String,
    equal: bool,
}

/// Fields by which every kind can be selected.
const METADATA_FIELDS: &[&str] = &["metadata.name", "metadata.namespace"];

/// Fields by which objects of one kind can be selected: what people look for them by.
fn own_fields(resource: Resource) -> &'static [&'static str] {
    match resource {
        Resource::Namespace => &["status.phase"],
        Resource::Secret => &["type"],
        Resource::ServiceAccount
        | Resource::ConfigMap
        | Resource::ResourceQuota
        | Resource::LimitRange
        | Resource::ClusterRole
        | Resource::ClusterRoleBinding
        | Resource::Role
        | Resource::RoleBinding
        | Resource::Function
        | Resource::Tunnel
        | Resource::ControllerRevision => &[],
        Resource::CertificateSigningRequest => &["spec.signerName"],
        Resource::Node => &["spec.unschedulable"],
        Resource::Assignment => &[
            "spec.nodeName",
            "spec.previous.nodeName",
            "spec.functionName",
            "status.phase",
        ],
        Resource::Event => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ],
    }
}

impl FieldSelector {
    pub fn parse(resource: Resource, text: &str) -> Result<Self, SelectorError> {
        let known = [METADATA_FIELDS, own_fields(resource)].concat();
        Self::parse_known(resource.plural(), &known, text)
    }

    /// Of what can be selected by its name only.
    pub fn by_name(plural: &'static str, text: &str) -> Result<Self, SelectorError> {
        Self::parse_known(plural, METADATA_FIELDS, text)
    }

    fn parse_known(
        plural: &'static str,
        known: &[&str],
        text: &str,
    ) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (label, value, equal) = match part.split_once("!=") {
                Some((label, value)) => (label, value, false),
                None => {
                    let (label, value) = part
                        .split_once('=')
                        .ok_or_else(|| SelectorError::Requirement(part.to_owned()))?;
                    (label, value.strip_prefix('=').unwrap_or(value), true)
                }
            };
            if !known.contains(&label) {
                return Err(SelectorError::Field {
                    label: label.to_owned(),
                    plural,
                    supported: known.join(", "),
                });
            }
            requirements.push(FieldRequirement {
                label: label.to_owned(),
                value: value.to_owned(),
                equal,
            });
        }
        Ok(Self(requirements))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of what lies in no namespace and can be selected by its name only.
    pub fn matches_name(&self, name: &str) -> bool {
        self.0.iter().all(|requirement| {
            let found = match requirement.label.as_str() {
                "metadata.name" => name,
                _ => "",
            };
            (requirement.value == found) == requirement.equal
        })
    }

    /// The only name that can be selected, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|requirement| requirement.equal && requirement.label == "metadata.name")
            .map(|requirement| requirement.value.as_str())
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|requirement| {
            let equal = match requirement.label.as_str() {
                "metadata.name" => object.key().name == requirement.value,
                "metadata.namespace" => object.key().namespace == requirement.value,
                label => field_equals(&object.to_value(), label, &requirement.value),
            };
            equal == requirement.equal
        })
    }
}

fn field_equals(body: &Value, label: &str, wanted: &str) -> bool {
    let field = label
        .split('.')
        .try_fold(body, |value, segment| value.get(segment));
    match field {
        Some(Value::String(text)) => text == wanted,
        // As Kubernetes has it: an absent field is its zero value.
        None | Some(Value::Null) => wanted.is_empty() || wanted == "false",
        Some(Value::Number(number)) => number.to_string() == wanted,
        Some(Value::Bool(flag)) => flag.to_string() == wanted,
        Some(Value::Array(_) | Value::Object(_)) => false,
    }
}

/// Both selectors of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selectors {
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Key;
    use serde_json::json;

    fn object() -> Object {
        Object::new(
            Key::new(Resource::Assignment, "default", "hello-0"),
            json!({
                "metadata": { "labels": { "app": "hello", "tier": "web" } },
                "spec": { "nodeName": "pi" },
            }),
            1,
        )
    }

    #[test]
    fn labels_select() {
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("app=hello", true),
            ("app==hello,tier=web", true),
            ("app = hello , tier", true),
            ("app!=hello", false),
            ("missing!=x", true),
            ("!app", false),
            ("!missing", true),
            ("app in (bye, hello)", true),
            ("app notin (bye,hello)", false),
            ("missing notin (a),app in (hello)", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(&object()), expected, "{selector}");
        }
        for selector in [
            "=x",
            "app in hello",
            "app in (hello",
            "app)(",
            "a b",
            "app like (x)",
        ] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn fields_select() {
        let parse = |text| FieldSelector::parse(Resource::Assignment, text);
        for (selector, expected) in [
            ("", true),
            ("metadata.name=hello-0", true),
            ("metadata.namespace!=default", false),
            ("spec.nodeName==pi", true),
            ("spec.nodeName=", false),
            ("spec.previous.nodeName=", true),
            ("spec.previous.nodeName=pi", false),
            ("status.phase=", true),
        ] {
            assert_eq!(
                parse(selector).unwrap().matches(&object()),
                expected,
                "{selector}"
            );
        }
        assert_eq!(
            parse("spec.slot=0").unwrap_err().to_string(),
            "field label not supported: spec.slot; assignments can be selected by metadata.name, \
             metadata.namespace, spec.nodeName, spec.previous.nodeName, spec.functionName, status.phase"
        );
        assert!(parse("metadata.name").is_err());
    }

    #[test]
    fn an_absent_flag_is_false() {
        let node = Object::new(Key::new(Resource::Node, "", "pi"), json!({ "spec": {} }), 1);
        let cordoned = FieldSelector::parse(Resource::Node, "spec.unschedulable=false").unwrap();
        assert!(cordoned.matches(&node));
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_fails_without_a_panic(text: String) {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(Resource::Node, &text);
        }
    }
}
