//! Names a place inside an object: `spec.env[1].valueFrom`.
//!
//! Validation makes paths, documents find their lines, people read them.
//! A path says nothing about whether the place exists.

use std::fmt;

/// One step into an object or a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Field(String),
    Index(usize),
}

/// A place inside an object; empty for the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path of fields, such as `["spec", "artifact"]`.
    pub fn of<const N: usize>(fields: [&str; N]) -> Self {
        Self(fields.map(|name| Segment::Field(name.into())).into())
    }

    /// The field `name` of this place.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.then(Segment::Field(name.into()))
    }

    /// The entry `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    fn then(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }

    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names that are more than a word stand in brackets, such as the label
/// `metadata.labels[example.com/role]`.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Field(name) if is_word(name) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(name)?;
                }
                Segment::Field(name) => write!(f, "[{}]", name.escape_debug())?,
            }
        }
        Ok(())
    }
}

fn is_word(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_people_write_it() {
        let path = FieldPath::of(["spec", "env"]).index(1).field("valueFrom");
        assert_eq!(path.to_string(), "spec.env[1].valueFrom");
        let label = FieldPath::of(["metadata", "labels", "example.com/role"]);
        assert_eq!(label.to_string(), "metadata.labels[example.com/role]");
        assert_eq!(FieldPath::root().to_string(), "");
        assert_eq!(FieldPath::of(["a\nb"]).to_string(), "[a\\nb]");
    }
}
