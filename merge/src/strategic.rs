//! Strategic merge patches: a merge patch that knows which lists are merged, and has directives.
//!
//! Which list is merged by what is read from the same annotations as server-side apply reads.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::path::PathElement;
use crate::shape::{Items, Shape};

/// Says what is to be done with the object, or the item of a list, that it stands in.
const PATCH: &str = "$patch";
/// Fields of an object that stay; all others go.
const RETAIN_KEYS: &str = "$retainKeys";
/// Before the name of a list: the order of its items.
const SET_ORDER: &str = "$setElementOrder/";
/// Before the name of a list of texts: those that go.
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";

/// Why a strategic merge patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    #[error("{directive}: {message}")]
    Directive {
        directive: String,
        message: &'static str,
    },
    #[error("an item of the list {list:?} lacks the fields that tell its items apart")]
    Unidentified { list: String },
}

/// What a patch wants done with an object.
enum Wish {
    Merge,
    Replace,
    Delete,
}

/// The object as the patch makes it.
pub fn apply(schema: &Value, object: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let empty = Map::new();
    let Value::Object(patch) = patch else {
        return Ok(patch.clone());
    };
    let object = object.as_object().unwrap_or(&empty);
    let patched = patched_object(Some(schema), object, patch)?;
    Ok(Value::Object(patched.unwrap_or_default()))
}

fn bad(directive: &str, message: &'static str) -> StrategicError {
    StrategicError::Directive {
        directive: directive.to_owned(),
        message,
    }
}

fn wish(patch: &Map<String, Value>) -> Result<Wish, StrategicError> {
    match patch.get(PATCH) {
        None => Ok(Wish::Merge),
        Some(Value::String(text)) => match text.as_str() {
            "merge" => Ok(Wish::Merge),
            "replace" => Ok(Wish::Replace),
            "delete" => Ok(Wish::Delete),
            _ => Err(bad(PATCH, "must be merge, replace or delete")),
        },
        Some(_) => Err(bad(PATCH, "must be merge, replace or delete")),
    }
}

/// `None` when the patch deletes the object.
fn patched_object(
    schema: Option<&Value>,
    object: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, StrategicError> {
    let mut result = match wish(patch)? {
        Wish::Merge => object.clone(),
        Wish::Replace => Map::new(),
        Wish::Delete => return Ok(None),
    };
    let retained = names(patch, RETAIN_KEYS)?;
    if let Some(retained) = &retained {
        result.retain(|name, _| retained.contains(name.as_str()));
    }
    // Strategic patches know no atomic maps: they come to the field, whoever owns the whole.
    let open = Value::Null;
    let child = |name: &str| -> Option<&Value> {
        let schema = schema.unwrap_or(&open);
        let named = schema["properties"].get(name);
        named.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
    };
    for (directive, list) in patch {
        if let Some(name) = directive.strip_prefix(DELETE_ITEMS) {
            let gone = list
                .as_array()
                .ok_or_else(|| bad(directive, "must be a list"))?;
            if let Some(Value::Array(items)) = result.get_mut(name) {
                items.retain(|item| !gone.contains(item));
            }
        }
    }
    for (name, value) in patch {
        if name.starts_with('$') {
            if name != PATCH
                && name != RETAIN_KEYS
                && !name.starts_with(SET_ORDER)
                && !name.starts_with(DELETE_ITEMS)
            {
                return Err(bad(name, "no such directive"));
            }
            continue;
        }
        let before = result.get(name);
        let after = match value {
            Value::Null => None,
            Value::Object(patch) => {
                let empty = Map::new();
                let before = before.and_then(Value::as_object).unwrap_or(&empty);
                patched_object(child(name), before, patch)?.map(Value::Object)
            }
            Value::Array(patch) => {
                let before = before
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice);
                Some(Value::Array(patched_list(
                    child(name),
                    name,
                    before,
                    patch,
                )?))
            }
            scalar => Some(scalar.clone()),
        };
        match after {
            Some(after) => result.insert(name.clone(), after),
            None => result.remove(name),
        };
    }
    for (directive, order) in patch {
        if let Some(name) = directive.strip_prefix(SET_ORDER) {
            let order = order
                .as_array()
                .ok_or_else(|| bad(directive, "must be a list"))?;
            if let (Shape::Items(shape), Some(Value::Array(items))) =
                (Shape::of(child(name)), result.get_mut(name))
            {
                sort(shape, items, order);
            }
        }
    }
    Ok(Some(result))
}

fn names<'p>(
    patch: &'p Map<String, Value>,
    directive: &str,
) -> Result<Option<BTreeSet<&'p str>>, StrategicError> {
    let Some(list) = patch.get(directive) else {
        return Ok(None);
    };
    list.as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect())
        .map(Some)
        .ok_or_else(|| bad(directive, "must be a list of names"))
}

fn patched_list(
    schema: Option<&Value>,
    name: &str,
    before: &[Value],
    patch: &[Value],
) -> Result<Vec<Value>, StrategicError> {
    let Shape::Items(shape) = Shape::of(schema) else {
        return replaced(patch);
    };
    let unidentified = || StrategicError::Unidentified {
        list: name.to_owned(),
    };
    let mut result = before.to_vec();
    for item in patch {
        let wish = match item {
            Value::Object(fields) if !shape.is_set() => wish(fields)?,
            _ => Wish::Merge,
        };
        let identity = shape.identify(item);
        let place = identity.as_ref().and_then(|identity| {
            result
                .iter()
                .position(|known| shape.identify(known).as_ref() == Some(identity))
        });
        match (wish, place, item) {
            // On an item without keys, it is about the list.
            (Wish::Replace, None, _) if identity.is_none() => {
                let rest: Vec<Value> = patch
                    .iter()
                    .filter(|other| *other != item)
                    .cloned()
                    .collect();
                return replaced(&rest);
            }
            (_, None, _) if identity.is_none() => return Err(unidentified()),
            (Wish::Delete, place, _) => {
                if let Some(place) = place {
                    result.remove(place);
                }
            }
            (_, Some(place), Value::Object(patch)) => {
                let empty = Map::new();
                let known = result[place].as_object().unwrap_or(&empty);
                if let Some(patched) = patched_object(shape.schema, known, patch)? {
                    result[place] = Value::Object(patched);
                }
            }
            (_, Some(_), _) => {}
            (_, None, Value::Object(patch)) => {
                let patched = patched_object(shape.schema, &Map::new(), patch)?;
                result.extend(patched.map(Value::Object));
            }
            (_, None, item) => result.push(item.clone()),
        }
    }
    Ok(result)
}

/// A list that is replaced: nothing is merged in it, but the directives do not stay in it.
fn replaced(patch: &[Value]) -> Result<Vec<Value>, StrategicError> {
    let mut items = Vec::with_capacity(patch.len());
    for item in patch {
        match item {
            Value::Object(fields) => {
                let directive_only = fields.len() == 1 && fields.contains_key(PATCH);
                if !directive_only {
                    let item = patched_object(None, &Map::new(), fields)?;
                    items.extend(item.map(Value::Object));
                }
            }
            other => items.push(other.clone()),
        }
    }
    Ok(items)
}

/// Puts the items that the order names into that order; the others keep their place behind those
/// that they stood behind.
fn sort(shape: Items<'_>, items: &mut Vec<Value>, order: &[Value]) {
    let ranks: Vec<PathElement> = order.iter().filter_map(|o| shape.identify(o)).collect();
    let rank = |item: &Value| {
        let identity = shape.identify(item)?;
        ranks.iter().position(|ranked| *ranked == identity)
    };
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut groups: Vec<(Option<usize>, Vec<Value>)> = vec![(None, Vec::new())];
    for item in items.drain(..) {
        match rank(&item) {
            Some(rank) => {
                named.push((rank, item));
                groups.push((Some(rank), Vec::new()));
            }
            None => {
                if let Some((_, group)) = groups.last_mut() {
                    group.push(item);
                }
            }
        }
    }
    named.sort_by_key(|(rank, _)| *rank);
    groups.sort_by_key(|(rank, _)| *rank);
    let mut named = named.into_iter();
    for (rank, group) in groups {
        if rank.is_some() {
            items.extend(named.next().map(|(_, item)| item));
        }
        items.extend(group);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_manifests::{Resource, openapi_schema};
    use serde_json::json;

    use super::*;

    fn patched(resource: Resource, object: Value, patch: Value) -> Result<Value, String> {
        apply(openapi_schema(resource), &object, &patch).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_merged_as_their_kind_says() {
        use Resource::{ConfigMap, Namespace, Role, ServiceAccount};
        let account = json!({
            "metadata": { "finalizers": ["a/a", "b/b"] },
            "secrets": [{ "name": "a", "kind": "Secret" }, { "name": "b" }],
        });
        let table = [
            (
                "fields are set and removed",
                ConfigMap,
                json!({ "data": { "a": "1", "b": "2" } }),
                json!({ "data": { "a": null, "c": "3" } }),
                json!({ "data": { "b": "2", "c": "3" } }),
            ),
            (
                "a keyed list is merged by its key",
                ServiceAccount,
                account.clone(),
                json!({ "secrets": [{ "name": "b", "namespace": "n" }, { "name": "c" }] }),
                json!({
                    "metadata": { "finalizers": ["a/a", "b/b"] },
                    "secrets": [
                        { "name": "a", "kind": "Secret" },
                        { "name": "b", "namespace": "n" },
                        { "name": "c" },
                    ],
                }),
            ),
            (
                "an item is deleted by its key",
                ServiceAccount,
                account.clone(),
                json!({ "secrets": [{ "$patch": "delete", "name": "a" }, { "$patch": "delete", "name": "x" }] }),
                json!({ "metadata": { "finalizers": ["a/a", "b/b"] }, "secrets": [{ "name": "b" }] }),
            ),
            (
                "a keyed list is replaced",
                ServiceAccount,
                account.clone(),
                json!({ "secrets": [{ "$patch": "replace" }, { "name": "z" }], "metadata": { "$patch": "replace", "name": "s" } }),
                json!({ "metadata": { "name": "s" }, "secrets": [{ "name": "z" }] }),
            ),
            (
                "a set gains members",
                ServiceAccount,
                account.clone(),
                json!({ "metadata": { "finalizers": ["b/b", "c/c"] }, "secrets": null }),
                json!({ "metadata": { "finalizers": ["a/a", "b/b", "c/c"] } }),
            ),
            (
                "a set loses members and is ordered",
                ServiceAccount,
                account,
                json!({
                    "metadata": {
                        "$deleteFromPrimitiveList/finalizers": ["a/a"],
                        "$setElementOrder/finalizers": ["c/c", "b/b"],
                        "finalizers": ["c/c"],
                    },
                    "secrets": null,
                }),
                json!({ "metadata": { "finalizers": ["c/c", "b/b"] } }),
            ),
            (
                "items are ordered, those that are not named stay behind what they followed",
                Namespace,
                json!({ "status": { "conditions": [{ "type": "A" }, { "type": "x" }, { "type": "B" }] } }),
                json!({ "status": {
                    "$setElementOrder/conditions": [{ "type": "B" }, { "type": "A" }],
                    "conditions": [{ "type": "B", "status": "True" }],
                } }),
                json!({ "status": { "conditions": [
                    { "type": "B", "status": "True" }, { "type": "A" }, { "type": "x" },
                ] } }),
            ),
            (
                "an atomic list is replaced",
                Role,
                json!({ "rules": [{ "verbs": ["get"] }] }),
                json!({ "rules": [{ "verbs": ["list"] }] }),
                json!({ "rules": [{ "verbs": ["list"] }] }),
            ),
            (
                "fields that are not retained go",
                ConfigMap,
                json!({ "data": { "a": "1", "b": "2" } }),
                json!({ "data": { "$retainKeys": ["b", "c"], "c": "3" } }),
                json!({ "data": { "b": "2", "c": "3" } }),
            ),
            (
                "an object is deleted",
                ConfigMap,
                json!({ "data": { "a": "1" }, "binaryData": {} }),
                json!({ "data": { "$patch": "delete" } }),
                json!({ "binaryData": {} }),
            ),
        ];
        for (what, resource, object, patch, expected) in table {
            assert_eq!(patched(resource, object, patch), Ok(expected), "{what}");
        }
    }

    #[test]
    fn what_is_no_strategic_patch_is_refused() {
        for (patch, message) in [
            (
                json!({ "data": { "$patch": "drop" } }),
                "$patch: must be merge, replace or delete",
            ),
            (json!({ "$else": 1 }), "$else: no such directive"),
            (
                json!({ "metadata": { "$retainKeys": "a" } }),
                "$retainKeys: must be a list of names",
            ),
            (
                json!({ "metadata": { "$setElementOrder/finalizers": {}, "finalizers": [] } }),
                "$setElementOrder/finalizers: must be a list",
            ),
            (
                json!({ "metadata": { "ownerReferences": [{ "name": "x" }] } }),
                "an item of the list \"ownerReferences\" lacks the fields that tell its items apart",
            ),
        ] {
            let error = patched(Resource::ConfigMap, json!({}), patch).unwrap_err();
            assert_eq!(error, message);
        }
    }
}
