//! One place inside an object, named so that it stays the same place when a list is reordered.

use std::fmt;

use serde_json::{Map, Value};

/// A text, number or truth value as its JSON text, so that it can be ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(String);

impl Scalar {
    /// `None` for null, lists and objects, which identify nothing.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(Self(value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// One step. The order of the variants is that in which Kubernetes sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathElement {
    Field(String),
    /// The item of a keyed list whose key fields have these values; sorted by field.
    Key(Vec<(String, Scalar)>),
    /// A member of a set.
    Value(Scalar),
    /// An item by its place. Only read, for the sake of what others wrote: no schema here asks for it.
    Index(u64),
}

impl PathElement {
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// As a key of FieldsV1: `f:name`, `k:{"name":"x"}`, `v:"x"`, `i:0`.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), value.0))
                    .collect();
                format!("k:{{{}}}", fields.join(","))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// `None` when the text is none of the forms of [`PathElement::encode`].
    pub fn decode(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("f", name) => Some(Self::field(name)),
            ("k", fields) => {
                let fields: Map<String, Value> = serde_json::from_str(fields).ok()?;
                Self::key(fields.iter().map(|(name, value)| (name.as_str(), value)))
            }
            ("v", value) => Scalar::of(&serde_json::from_str(value).ok()?).map(Self::Value),
            ("i", index) => index.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// `None` when no field is named or one has no scalar value.
    pub(crate) fn key<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> Option<Self> {
        let mut fields = fields
            .map(|(name, value)| Some((name.to_owned(), Scalar::of(value)?)))
            .collect::<Option<Vec<_>>>()?;
        fields.sort();
        (!fields.is_empty()).then_some(Self::Key(fields))
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.0))
                    .collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A place from the root of an object: `.spec.env[name="A"].value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub Vec<PathElement>);

impl Path {
    pub fn fields<const N: usize>(names: [&str; N]) -> Self {
        Self(names.map(PathElement::field).into())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}
