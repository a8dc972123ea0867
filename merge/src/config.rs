//! What a declaration must fulfil before it can be merged: in it, each item of a list is one place.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::path::{Path, PathElement};
use crate::shape::{Fields, Items, Shape};

/// Why a declaration cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{0}: an item of this list must be an object that has the fields which tell items apart"
    )]
    Unidentified(Path),
    #[error("{0}: listed twice")]
    Duplicate(Path),
}

/// Nulls say nothing in a declaration: the field is not mentioned.
pub(crate) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

pub(crate) fn check(schema: &Value, declared: &Value) -> Result<(), ConfigError> {
    walk(Some(schema), declared, &mut Path::default())
}

fn walk(schema: Option<&Value>, value: &Value, path: &mut Path) -> Result<(), ConfigError> {
    match (Shape::of(schema), value) {
        (Shape::Fields(shape), Value::Object(fields)) => of_fields(shape, fields, path),
        (Shape::Items(shape), Value::Array(items)) => of_items(shape, items, path),
        _ => Ok(()),
    }
}

fn of_fields(
    shape: Fields<'_>,
    fields: &serde_json::Map<String, Value>,
    path: &mut Path,
) -> Result<(), ConfigError> {
    for (name, value) in fields {
        path.0.push(PathElement::field(name));
        walk(shape.schema(name), value, path)?;
        path.0.pop();
    }
    Ok(())
}

fn of_items(shape: Items<'_>, items: &[Value], path: &mut Path) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for (index, item) in (0..).zip(items) {
        let Some(element) = shape.identify(item) else {
            path.0.push(PathElement::Index(index));
            return Err(ConfigError::Unidentified(path.clone()));
        };
        path.0.push(element.clone());
        if !seen.insert(element) {
            return Err(ConfigError::Duplicate(path.clone()));
        }
        walk(shape.schema, item, path)?;
        path.0.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hive_manifests::{Resource, openapi_schema};
    use serde_json::json;

    use super::*;

    #[test]
    fn items_that_are_not_one_place_each_are_named() {
        let check = |spec: Value| {
            let declared = json!({ "spec": spec });
            check(openapi_schema(Resource::Function), &declared).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(json!({ "env": [{ "name": "A" }, { "name": "B" }] })),
            Ok(())
        );
        for (spec, message) in [
            (
                json!({ "env": [{ "name": "A" }, { "name": "A" }] }),
                ".spec.env[name=\"A\"]: listed twice",
            ),
            (
                json!({ "env": [{ "value": "x" }] }),
                ".spec.env[0]: an item of this list must be an object that has the fields which tell items apart",
            ),
            (
                json!({ "allowedHosts": ["a.example", "a.example"] }),
                ".spec.allowedHosts[=\"a.example\"]: listed twice",
            ),
        ] {
            assert_eq!(check(spec), Err(message.to_owned()));
        }
    }
}
