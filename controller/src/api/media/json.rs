//! JSON in which a field may be named twice: the last one counts, and each such field is told.
//!
//! `serde_json` alone would keep silent about what the author of a body has most likely overlooked.

use std::cell::RefCell;
use std::fmt;

use hive_manifests::FieldPath;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Fields that are told of at most: nobody reads more at once.
const MAX_REPEATED: usize = 64;

/// A value, and the fields in it that were there more than once.
pub(in crate::api) fn parse(text: &[u8]) -> serde_json::Result<(Value, Vec<FieldPath>)> {
    let repeated = RefCell::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = At {
        place: Place::Root,
        repeated: &repeated,
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, repeated.into_inner()))
}

/// Where the reader is. Made into a path only for what is told.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn path(&self) -> FieldPath {
        match self {
            Self::Root => FieldPath::root(),
            Self::Field(parent, name) => parent.path().field(name),
            Self::Item(parent, index) => parent.path().index(*index),
        }
    }
}

/// Reads the value at a place.
struct At<'a> {
    place: Place<'a>,
    repeated: &'a RefCell<Vec<FieldPath>>,
}

impl At<'_> {
    fn tell(&self, name: &str) {
        let mut repeated = self.repeated.borrow_mut();
        let path = self.place.path().field(name);
        if repeated.len() < MAX_REPEATED && !repeated.contains(&path) {
            repeated.push(path);
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(At {
            place: Place::Item(&self.place, values.len()),
            repeated: self.repeated,
        })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(At {
                place: Place::Field(&self.place, &name),
                repeated: self.repeated,
            })?;
            match values.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    self.tell(entry.key());
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(text: &str) -> (Value, Vec<String>) {
        let (value, repeated) = parse(text.as_bytes()).unwrap();
        (value, repeated.iter().map(FieldPath::to_string).collect())
    }

    #[test]
    fn what_is_named_twice_is_told_and_the_last_counts() {
        let text =
            r#"{"a": 1, "b": [{"c": 1}, {"c": 1, "c": {"d": 2}, "c": 3}], "a": {"e": 0, "e": 1}}"#;
        let (value, repeated) = told(text);
        assert_eq!(
            value,
            json!({ "a": { "e": 1 }, "b": [{ "c": 1 }, { "c": 3 }] })
        );
        assert_eq!(repeated, ["b[1].c", "a.e", "a"]);
        let many: Vec<String> = (0..200).map(|n| format!(r#""{n}":0,"{n}":1"#)).collect();
        let (_, repeated) = told(&format!("{{{}}}", many.join(",")));
        assert_eq!(repeated.len(), MAX_REPEATED);
    }

    #[test]
    fn what_is_no_json_is_refused_as_ever() {
        for text in ["", "{", "[1,]", "{} {}", "{\"a\" 1}", &"[".repeat(10_000)] {
            let error = parse(text.as_bytes()).unwrap_err();
            let expected = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(error.to_string(), expected.to_string(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn the_value_is_what_everybody_reads(text in r#"(\[|\{|\}|\]|,|:|"a"|"b\\n"|1|-2.5e3|18446744073709551615|true|null| ){0,24}"#) {
            let expected = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(parse(text.as_bytes()).ok().map(|(value, _)| value), expected);
        }
    }
}
