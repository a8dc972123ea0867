//! Lays a declaration over an object: what it says replaces, what it does not mention stays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::path::PathElement;
use crate::shape::{Fields, Items, Shape, fields, items};

/// The object with the fields of the declaration. Nothing is removed.
pub fn merge(schema: &Value, live: &Value, declared: &Value) -> Value {
    merged(Some(schema), Some(live), Some(declared)).unwrap_or_default()
}

fn merged(schema: Option<&Value>, live: Option<&Value>, declared: Option<&Value>) -> Option<Value> {
    match Shape::of(schema) {
        Shape::Leaf => None,
        Shape::Fields(shape) => merged_fields(shape, live, declared),
        Shape::Items(shape) => merged_items(shape, live, declared),
    }
    .or_else(|| declared.or(live).cloned())
}

/// `None` when one replaces the other as a whole.
fn merged_fields(
    shape: Fields<'_>,
    live: Option<&Value>,
    declared: Option<&Value>,
) -> Option<Value> {
    let (live, declared) = (fields(live)?, fields(declared)?);
    if live.is_empty() && declared.is_empty() {
        return None;
    }
    let names: BTreeSet<&String> = live.keys().chain(declared.keys()).collect();
    let fields: Map<String, Value> = names
        .into_iter()
        .filter_map(|name| {
            let field = merged(shape.schema(name), live.get(name), declared.get(name))?;
            Some((name.clone(), field))
        })
        .collect();
    Some(Value::Object(fields))
}

/// Items that both have stand in the order of the declaration; those of the object alone keep
/// their place between them, and those of the declaration alone follow what they follow there.
fn merged_items(shape: Items<'_>, live: Option<&Value>, declared: Option<&Value>) -> Option<Value> {
    let (live, declared) = (items(live)?, items(declared)?);
    if live.is_empty() && declared.is_empty() {
        return None;
    }
    let live = shape.identified(live)?;
    let declared = shape.identified(declared)?;
    let mut of_live: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, item) in &live {
        of_live.entry(element).or_insert(item);
    }
    let of_declared: BTreeSet<&PathElement> = declared.iter().map(|(element, _)| element).collect();
    let mut shared = declared
        .iter()
        .map(|(element, _)| element)
        .filter(|element| of_live.contains_key(element))
        .peekable();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut result = Vec::with_capacity(live.len().max(declared.len()));
    let (mut theirs, mut ours) = (live.iter().peekable(), declared.iter().peekable());
    loop {
        if let Some((element, item)) = theirs.peek() {
            if !of_declared.contains(element) {
                result.extend(merged(shape.schema, Some(item), None));
                theirs.next();
                continue;
            }
            // Its turn comes, or came, where the declaration has it.
            if done.contains(element)
                || (ours.peek().is_some_and(|(next, _)| next != element)
                    && shared.peek().is_some_and(|next| *next != element))
            {
                theirs.next();
                continue;
            }
        }
        let Some((element, item)) = ours.next() else {
            break;
        };
        if done.insert(element) {
            let known = of_live.get(element).copied();
            result.extend(merged(shape.schema, known, Some(item)));
        }
        if shared.peek() == Some(&element) {
            shared.next();
        }
    }
    Some(Value::Array(result))
}
