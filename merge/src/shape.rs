//! What a schema says of how a value is merged.
//!
//! A value that is not of the type that its schema names is a leaf: whoever validates will say so.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::path::{PathElement, Scalar};

/// An object with no fields, for one that is absent.
static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

#[derive(Clone, Copy)]
pub(crate) enum Shape<'s> {
    /// Replaced whole: a scalar, an atomic list, an atomic map.
    Leaf,
    /// Merged field by field.
    Fields(Fields<'s>),
    /// A list merged item by item.
    Items(Items<'s>),
}

#[derive(Clone, Copy)]
pub(crate) struct Fields<'s> {
    named: Option<&'s Map<String, Value>>,
    others: Option<&'s Value>,
}

#[derive(Clone, Copy)]
pub(crate) struct Items<'s> {
    /// The fields that tell items apart; of a set, none.
    keys: Option<&'s [Value]>,
    pub schema: Option<&'s Value>,
}

impl<'s> Shape<'s> {
    /// Where a schema says nothing, objects are merged by field and lists replaced.
    pub fn of(schema: Option<&'s Value>) -> Self {
        let open = Self::Fields(Fields {
            named: None,
            others: None,
        });
        let Some(schema) = schema else {
            return open;
        };
        match schema["type"].as_str() {
            Some("object") if schema["x-kubernetes-map-type"] == "atomic" => Self::Leaf,
            Some("object") => Self::Fields(Fields {
                named: schema["properties"].as_object(),
                others: schema.get("additionalProperties").filter(|s| s.is_object()),
            }),
            Some("array") => {
                let keys = match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => None,
                    Some("map") => schema["x-kubernetes-list-map-keys"]
                        .as_array()
                        .map(Vec::as_slice),
                    _ => return Self::Leaf,
                };
                Self::Items(Items {
                    keys,
                    schema: schema.get("items"),
                })
            }
            None if schema.get("x-kubernetes-int-or-string").is_none() => open,
            _ => Self::Leaf,
        }
    }
}

impl<'s> Fields<'s> {
    pub fn schema(&self, name: &str) -> Option<&'s Value> {
        self.named.and_then(|named| named.get(name)).or(self.others)
    }

    /// True for a field that the type has, in contrast to a key of a map.
    pub fn is_named(&self, name: &str) -> bool {
        self.named.is_some_and(|named| named.contains_key(name))
    }
}

impl Items<'_> {
    pub fn is_set(&self) -> bool {
        self.keys.is_none()
    }

    /// What tells an item from the others. Where it leaves a key out, the schema's default stands for it.
    pub fn identify(&self, item: &Value) -> Option<PathElement> {
        let Some(keys) = self.keys else {
            return Scalar::of(item).map(PathElement::Value);
        };
        let fields = item.as_object()?;
        let defaults = self.schema.map(|schema| &schema["properties"]);
        PathElement::key(keys.iter().filter_map(Value::as_str).filter_map(|key| {
            let said = fields.get(key).filter(|value| !value.is_null());
            let default = || defaults.and_then(|fields| fields.get(key)?.get("default"));
            Some((key, said.or_else(default)?))
        }))
    }

    /// Every item with what identifies it. `None` when one can't be identified: then the list is a leaf.
    pub fn identified<'v>(&self, items: &'v [Value]) -> Option<Vec<(PathElement, &'v Value)>> {
        items
            .iter()
            .map(|item| Some((self.identify(item)?, item)))
            .collect()
    }
}

/// The fields of an object; of what is absent or null, none. `None` for anything else.
pub(crate) fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(&NOTHING),
        Some(Value::Object(fields)) => Some(fields),
        Some(_) => None,
    }
}

/// The items of a list; of what is absent or null, none. `None` for anything else.
pub(crate) fn items(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}
