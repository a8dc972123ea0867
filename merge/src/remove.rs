//! Takes places out of an object.

use serde_json::{Map, Value};

use crate::field_set::FieldSet;
use crate::path::PathElement;
use crate::shape::Shape;

/// The object without the places of the set. What becomes empty by that goes too; leaves go only
/// as a whole.
pub fn remove_items(schema: &Value, object: &Value, places: &FieldSet) -> Value {
    remove(schema, object, places, &FieldSet::default())
}

/// As [`remove_items`], but what is a member of `kept` stays when it becomes empty.
pub(crate) fn remove(schema: &Value, object: &Value, places: &FieldSet, kept: &FieldSet) -> Value {
    without(Some(schema), object, places, kept).unwrap_or_else(|| Value::Object(Map::new()))
}

/// `None` when it became empty.
fn without(
    schema: Option<&Value>,
    value: &Value,
    places: &FieldSet,
    kept: &FieldSet,
) -> Option<Value> {
    match (Shape::of(schema), value) {
        (Shape::Fields(shape), Value::Object(fields)) => {
            let fields: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, value)| {
                    let element = PathElement::field(name);
                    let value = stays(shape.schema(name), value, places, kept, &element)?;
                    Some((name.clone(), value))
                })
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (Shape::Items(shape), Value::Array(items)) => {
            let Some(identified) = shape.identified(items) else {
                return Some(value.clone());
            };
            let items: Vec<Value> = identified
                .into_iter()
                .filter_map(|(element, item)| stays(shape.schema, item, places, kept, &element))
                .collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        _ => Some(value.clone()),
    }
}

fn stays(
    schema: Option<&Value>,
    value: &Value,
    places: &FieldSet,
    kept: &FieldSet,
    element: &PathElement,
) -> Option<Value> {
    let nothing = FieldSet::default();
    let Some(node) = places.0.get(element) else {
        return Some(value.clone());
    };
    // Who declared an empty map does not own what others put into it since. An item of a list goes
    // with all that is in it.
    let is_shared = matches!(element, PathElement::Field(_)) && holds_something(schema, value);
    if node.member && !is_shared {
        return None;
    }
    let kept = kept.0.get(element);
    let below = kept.map_or(&nothing, |kept| &kept.below);
    without(schema, value, &node.below, below).or_else(|| {
        let empty = match value {
            Value::Array(_) => Value::Array(Vec::new()),
            _ => Value::Object(Map::new()),
        };
        kept.is_some_and(|kept| kept.member).then_some(empty)
    })
}

fn holds_something(schema: Option<&Value>, value: &Value) -> bool {
    match (Shape::of(schema), value) {
        (Shape::Fields(_), Value::Object(fields)) => !fields.is_empty(),
        (Shape::Items(_), Value::Array(items)) => !items.is_empty(),
        _ => false,
    }
}
