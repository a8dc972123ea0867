//! Which part of an object a request is about, and which of its fields have owners at all.

use serde_json::{Map, Value};

use crate::field_set::FieldSet;
use crate::path::PathElement;

/// What the server alone settles, or what names the object: nobody owns it.
const METADATA_WITHOUT_OWNER: [&str; 10] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The part of an object that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything but the status.
    Main,
    /// The status and nothing else.
    Status,
}

impl Scope {
    fn covers(self, field: &str) -> bool {
        match self {
            Self::Main => !matches!(field, "apiVersion" | "kind" | "status"),
            Self::Status => field == "status",
        }
    }

    /// The part of a declaration that can be owned.
    pub(crate) fn of_object(self, object: &Value) -> Value {
        let mut part: Map<String, Value> = object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| self.covers(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(Value::Object(metadata)) = part.get_mut("metadata") {
            metadata.retain(|name, _| !METADATA_WITHOUT_OWNER.contains(&name.as_str()));
            if metadata.is_empty() {
                part.remove("metadata");
            }
        }
        Value::Object(part)
    }

    /// The places that can be owned.
    pub(crate) fn of_fields(self, set: FieldSet) -> FieldSet {
        let mut part = FieldSet::default();
        for (element, mut node) in set.0 {
            let PathElement::Field(name) = &element else {
                continue;
            };
            if !self.covers(name) {
                continue;
            }
            if name == "metadata" {
                node.member = false;
                node.below.0.retain(|element, _| match element {
                    PathElement::Field(name) => !METADATA_WITHOUT_OWNER.contains(&name.as_str()),
                    _ => false,
                });
            }
            part.put(element, node);
        }
        part
    }
}
