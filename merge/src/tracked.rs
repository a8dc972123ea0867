//! The places that a value occupies: what its owner is held to own.

use serde_json::Value;

use crate::field_set::{FieldSet, Node};
use crate::path::PathElement;
use crate::shape::{Fields, Shape};

/// All places of an object that are merged apart.
pub fn to_field_set(schema: &Value, object: &Value) -> FieldSet {
    places(Some(schema), object).below
}

fn places(schema: Option<&Value>, value: &Value) -> Node {
    let mut node = Node::default();
    match (Shape::of(schema), value) {
        (Shape::Fields(shape), Value::Object(fields)) => {
            for (name, value) in fields {
                let mut place = places(shape.schema(name), value);
                // A field of a type is there anyhow; a key of a map only because somebody set it.
                place.member |= is_nothing(value) || !shape.is_named(name);
                node.below.put(PathElement::field(name), place);
            }
        }
        (Shape::Items(shape), Value::Array(items)) => match shape.identified(items) {
            None => node.member = true,
            Some(identified) => {
                for (element, item) in identified {
                    let mut place = match shape.is_set() {
                        true => Node::leaf(),
                        false => places(shape.schema, item),
                    };
                    place.member = true;
                    node.below.put(element, place);
                }
            }
        },
        _ => node.member = true,
    }
    node
}

/// What holds nothing is a place of its own, or it could not be declared.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The set with the fields of types that are above its members: who owns `spec.replicas` has a hand
/// in `spec`. Keys of maps and items of lists are nobody's unless they are said to be.
pub(crate) fn with_named_parents(schema: &Value, set: &FieldSet) -> FieldSet {
    fn walk(schema: Option<&Value>, set: &FieldSet) -> FieldSet {
        let shape = Shape::of(schema);
        let named = |fields: &Fields<'_>, element: &PathElement| match element {
            PathElement::Field(name) => fields.is_named(name),
            _ => false,
        };
        let mut result = FieldSet::default();
        for (element, node) in &set.0 {
            let (is_named, below) = match (&shape, element) {
                (Shape::Fields(fields), PathElement::Field(name)) => {
                    (named(fields, element), fields.schema(name))
                }
                (Shape::Items(items), _) => (false, items.schema),
                _ => (false, None),
            };
            result.put(
                element.clone(),
                Node {
                    member: node.member || is_named,
                    below: walk(below, &node.below),
                },
            );
        }
        result
    }
    walk(Some(schema), set)
}
