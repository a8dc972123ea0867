//! Values together with the lines they stand on.
//!
//! One pass of serde fills a [`Tree`]: [`Placed`] from YAML, whose reader knows places, [`Unplaced`]
//! from any other format. It is then split into a JSON value and [`Lines`] of the same shape.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::{FieldPath, Segment};

/// A value and the lines inside it. Without `PLACES` every line is unknown.
pub(super) struct Tree<const PLACES: bool> {
    value: Value,
    inner: Inner,
}

pub(super) type Placed = Spanned<Tree<true>>;
pub(super) type Unplaced = Tree<false>;

/// Where a value stands, and what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lines {
    /// From 1; 0 when it is not known.
    line: u32,
    inner: Inner,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Inner {
    #[default]
    Scalar,
    /// Fields stand where their key stands.
    Object(BTreeMap<String, Lines>),
    List(Vec<Lines>),
}

impl Lines {
    /// What is around a place stands where the first place in it does.
    pub(super) fn of(places: &[(FieldPath, usize)]) -> Self {
        let mut all = Self {
            line: 1,
            inner: Inner::Scalar,
        };
        for (path, line) in places {
            let line = u32::try_from(*line).unwrap_or(0);
            all.place(path.segments(), line);
        }
        all
    }

    fn place(&mut self, path: &[Segment], line: u32) {
        let Some((first, rest)) = path.split_first() else {
            self.line = line;
            return;
        };
        let fresh = || Self {
            line,
            inner: Inner::Scalar,
        };
        let inside = match first {
            Segment::Field(name) => {
                if !matches!(self.inner, Inner::Object(_)) {
                    self.inner = Inner::Object(BTreeMap::new());
                }
                match &mut self.inner {
                    Inner::Object(fields) => fields.entry(name.clone()).or_insert_with(fresh),
                    _ => return,
                }
            }
            Segment::Index(index) => {
                if !matches!(self.inner, Inner::List(_)) {
                    self.inner = Inner::List(Vec::new());
                }
                match &mut self.inner {
                    Inner::List(items) => {
                        if items.len() <= *index {
                            items.resize_with(index + 1, fresh);
                        }
                        &mut items[*index]
                    }
                    _ => return,
                }
            }
        };
        inside.place(rest, line);
    }

    pub(super) fn line(&self) -> Option<usize> {
        (self.line > 0).then_some(self.line as usize)
    }

    /// The line of the deepest part of `path` that is there.
    pub(super) fn line_of(&self, path: &[Segment]) -> Option<usize> {
        let inside = match (path.first(), &self.inner) {
            (Some(Segment::Field(name)), Inner::Object(fields)) => fields.get(name),
            (Some(Segment::Index(index)), Inner::List(items)) => items.get(*index),
            _ => None,
        };
        match inside {
            Some(lines) => lines.line_of(&path[1..]),
            None => self.line(),
        }
    }

    /// Takes the lines of one entry out of the field `items`.
    pub(super) fn take_item(&mut self, index: usize) -> Lines {
        let Inner::Object(fields) = &mut self.inner else {
            return Lines::default();
        };
        match fields.get_mut("items").map(|items| &mut items.inner) {
            Some(Inner::List(items)) => {
                items.get_mut(index).map(std::mem::take).unwrap_or_default()
            }
            _ => Lines::default(),
        }
    }
}

impl<const PLACES: bool> Tree<PLACES> {
    /// Splits what was read into its value and its lines.
    pub(super) fn split(self, line: u32) -> (Value, Lines) {
        let inner = self.inner;
        (self.value, Lines { line, inner })
    }
}

/// A line as [`Lines`] keeps it.
pub(super) fn line(location: Location) -> u32 {
    u32::try_from(location.line()).unwrap_or(0)
}

impl<'de, const PLACES: bool> Deserialize<'de> for Tree<PLACES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor::<PLACES>)
    }
}

struct TreeVisitor<const PLACES: bool>;

fn scalar<const PLACES: bool, E>(value: impl Into<Value>) -> Result<Tree<PLACES>, E> {
    Ok(Tree {
        value: value.into(),
        inner: Inner::Scalar,
    })
}

impl<'de, const PLACES: bool> Visitor<'de> for TreeVisitor<PLACES> {
    type Value = Tree<PLACES>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        scalar(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        scalar(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        let number = Number::from_f64(value)
            .ok_or_else(|| E::custom("a number that is not finite has no place in a manifest"))?;
        scalar(number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        scalar(value)
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        let mut items = Vec::new();
        loop {
            let item = if PLACES {
                seq.next_element::<Placed>()?
                    .map(|item| item.value.split(line(item.referenced)))
            } else {
                seq.next_element::<Unplaced>()?.map(|item| item.split(0))
            };
            let Some((value, lines)) = item else { break };
            values.push(value);
            items.push(lines);
        }
        Ok(Tree {
            value: Value::Array(values),
            inner: Inner::List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Map::new();
        let mut fields = BTreeMap::new();
        loop {
            // A field stands where its key stands.
            let entry = if PLACES {
                map.next_entry::<Spanned<String>, Tree<true>>()?
                    .map(|(key, tree)| (key.value, tree.split(line(key.referenced))))
            } else {
                map.next_entry::<String, Unplaced>()?
                    .map(|(key, tree)| (key, tree.split(0)))
            };
            let Some((key, (value, lines))) = entry else {
                break;
            };
            // The YAML reader finds duplicates itself; JSON's does not.
            if values.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            fields.insert(key, lines);
        }
        Ok(Tree {
            value: Value::Object(values),
            inner: Inner::Object(fields),
        })
    }
}
