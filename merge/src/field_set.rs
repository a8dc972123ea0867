//! Sets of places inside an object, and FieldsV1, the form in which Kubernetes writes them down.
//!
//! A place can be a member without what is below it and the other way round: who owns
//! `spec.replicas` does not own `spec`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::path::{Path, PathElement};

/// A set of places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(pub(crate) BTreeMap<PathElement, Node>);

/// One place of a [`FieldSet`]: is it a member itself, and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub member: bool,
    pub below: FieldSet,
}

/// Why JSON is not FieldsV1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFields {
    #[error("{0:?} is none of f:<name>, k:<keys>, v:<value>, i:<index> and \".\"")]
    Element(String),
    #[error("what is below {0:?} is not an object")]
    NotAnObject(String),
}

impl Node {
    pub fn leaf() -> Self {
        Self {
            member: true,
            below: FieldSet::default(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets what is at and below a place. Nothing is not kept.
    pub(crate) fn put(&mut self, element: PathElement, node: Node) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub fn insert(&mut self, path: &Path) {
        let Some((last, parents)) = path.0.split_last() else {
            return;
        };
        let set = parents.iter().fold(self, |set, element| {
            &mut set.0.entry(element.clone()).or_default().below
        });
        set.0.entry(last.clone()).or_default().member = true;
    }

    pub fn contains(&self, path: &Path) -> bool {
        let Some((last, parents)) = path.0.split_last() else {
            return false;
        };
        parents
            .iter()
            .try_fold(self, |set, element| Some(&set.0.get(element)?.below))
            .and_then(|set| set.0.get(last))
            .is_some_and(|node| node.member)
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (element, node) in &other.0 {
            let mine = result.0.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.below = mine.below.union(&node.below);
        }
        result
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (element, node) in &self.0 {
            if let Some(theirs) = other.0.get(element) {
                result.put(
                    element.clone(),
                    Node {
                        member: node.member && theirs.member,
                        below: node.below.intersection(&theirs.below),
                    },
                );
            }
        }
        result
    }

    /// The members of this set that are not members of the other, whatever is above them there.
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (element, node) in &self.0 {
            let node = match other.0.get(element) {
                None => node.clone(),
                Some(theirs) => Node {
                    member: node.member && !theirs.member,
                    below: node.below.difference(&theirs.below),
                },
            };
            result.put(element.clone(), node);
        }
        result
    }

    /// The members that have no member below them.
    pub fn leaves(&self) -> Self {
        let mut result = Self::default();
        for (element, node) in &self.0 {
            let below = node.below.leaves();
            result.put(
                element.clone(),
                Node {
                    member: below.is_empty(),
                    below,
                },
            );
        }
        result
    }

    /// Every member, in order.
    pub fn paths(&self) -> Vec<Path> {
        fn walk(set: &FieldSet, path: &mut Path, found: &mut Vec<Path>) {
            for (element, node) in &set.0 {
                path.0.push(element.clone());
                if node.member {
                    found.push(path.clone());
                }
                walk(&node.below, path, found);
                path.0.pop();
            }
        }
        let mut found = Vec::new();
        walk(self, &mut Path::default(), &mut found);
        found
    }

    /// As FieldsV1.
    pub fn to_json(&self) -> Value {
        let fields: Map<String, Value> = self
            .0
            .iter()
            .map(|(element, node)| {
                let mut below = node.below.to_json();
                if node.member && !node.below.is_empty() {
                    below["."] = Value::Object(Map::new());
                }
                (element.encode(), below)
            })
            .collect();
        Value::Object(fields)
    }

    /// From FieldsV1. As deep as the JSON is, which its parser bounds.
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self, BadFields> {
        let mut set = Self::default();
        for (text, below) in fields {
            // Said of the place above; at the root it would own the object as such.
            if text == "." {
                continue;
            }
            let element =
                PathElement::decode(text).ok_or_else(|| BadFields::Element(text.clone()))?;
            let below = below
                .as_object()
                .ok_or_else(|| BadFields::NotAnObject(text.clone()))?;
            let node = Node {
                member: below.is_empty() || below.contains_key("."),
                below: Self::from_json(below)?,
            };
            set.put(element, node);
        }
        Ok(set)
    }
}

impl<'a> FromIterator<&'a Path> for FieldSet {
    fn from_iter<T: IntoIterator<Item = &'a Path>>(paths: T) -> Self {
        let mut set = Self::default();
        paths.into_iter().for_each(|path| set.insert(path));
        set
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> FieldSet {
        FieldSet::from_json(fields.as_object().unwrap()).unwrap()
    }

    #[test]
    fn fields_are_written_as_kubernetes_writes_them() {
        let fields = json!({
            "f:metadata": { "f:finalizers": { ".": {}, "v:\"a/b\"": {} } },
            "f:spec": {
                "f:env": {
                    "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} },
                },
                "f:replicas": {},
                "f:taints": { "k:{\"effect\":\"NoExecute\",\"key\":\"x\"}": {} },
            },
        });
        let set = set(fields.clone());
        assert_eq!(set.to_json(), fields);
        let paths: Vec<String> = set.paths().iter().map(Path::to_string).collect();
        assert_eq!(
            paths,
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=\"a/b\"]",
                ".spec.env[name=\"A\"]",
                ".spec.env[name=\"A\"].name",
                ".spec.env[name=\"A\"].value",
                ".spec.replicas",
                ".spec.taints[effect=\"NoExecute\",key=\"x\"]",
            ]
        );
    }

    #[test]
    fn what_is_not_fields_is_refused() {
        for fields in [
            json!({ "spec": {} }),
            json!({ "f:a": 1 }),
            json!({ "k:{}": {} }),
            json!({ "k:{\"a\":[]}": {} }),
            json!({ "v:null": {} }),
            json!({ "v:x": {} }),
            json!({ "i:-1": {} }),
            json!({ "f:a": { "f:b": [] } }),
        ] {
            let result = FieldSet::from_json(fields.as_object().unwrap());
            assert!(result.is_err(), "{fields}");
        }
    }

    #[test]
    fn sets_are_combined_member_by_member() {
        let a = set(json!({ "f:a": { ".": {}, "f:b": {} }, "f:c": {} }));
        let b = set(json!({ "f:a": { "f:b": {}, "f:d": {} } }));
        assert_eq!(
            a.union(&b),
            set(json!({ "f:a": { ".": {}, "f:b": {}, "f:d": {} }, "f:c": {} }))
        );
        assert_eq!(a.intersection(&b), set(json!({ "f:a": { "f:b": {} } })));
        assert_eq!(a.difference(&b), set(json!({ "f:a": {}, "f:c": {} })));
        assert_eq!(b.difference(&a), set(json!({ "f:a": { "f:d": {} } })));
        assert_eq!(a.leaves(), set(json!({ "f:a": { "f:b": {} }, "f:c": {} })));
    }
}
