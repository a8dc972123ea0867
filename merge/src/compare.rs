//! Which places differ between two versions of an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::field_set::{FieldSet, Node};
use crate::path::PathElement;
use crate::shape::{Fields, Items, Shape, fields, items};

/// The differences of two versions of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// What whoever made the change has set.
    pub fn written(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

/// What changed from `before` to `after`, both objects of one kind.
pub fn compare(schema: &Value, before: &Value, after: &Value) -> Comparison {
    let changes = changes(Some(schema), Some(before), Some(after));
    Comparison {
        added: changes.added.below,
        modified: changes.modified.below,
        removed: changes.removed.below,
    }
}

/// The differences at and below one place.
#[derive(Default)]
struct Changes {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Changes {
    fn put(&mut self, element: PathElement, below: Changes) {
        self.added.below.put(element.clone(), below.added);
        self.modified.below.put(element.clone(), below.modified);
        self.removed.below.put(element, below.removed);
    }

    /// That something came to be there or is gone, apart from what is in it.
    fn note_existence(&mut self, before: Option<&Value>, after: Option<&Value>) {
        self.added.member = before.is_none() && after.is_some();
        self.removed.member = before.is_some() && after.is_none();
    }
}

fn changes(schema: Option<&Value>, before: Option<&Value>, after: Option<&Value>) -> Changes {
    let mut changes = match Shape::of(schema) {
        Shape::Leaf => None,
        Shape::Fields(shape) => of_fields(shape, before, after),
        Shape::Items(shape) => of_items(shape, before, after),
    }
    .unwrap_or_else(|| {
        let mut changes = Changes::default();
        changes.modified.member = before.is_some() && after.is_some() && before != after;
        changes
    });
    changes.note_existence(before, after);
    changes
}

/// `None` when the two must be compared as a whole: that keeps empty apart from absent.
fn of_fields(shape: Fields<'_>, before: Option<&Value>, after: Option<&Value>) -> Option<Changes> {
    let (old, new) = (fields(before)?, fields(after)?);
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let mut result = Changes::default();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let below = changes(shape.schema(name), old.get(name), new.get(name));
        result.put(PathElement::field(name), below);
    }
    Some(result)
}

fn of_items(shape: Items<'_>, before: Option<&Value>, after: Option<&Value>) -> Option<Changes> {
    let (old, new) = (items(before)?, items(after)?);
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let mut both: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, item) in shape.identified(old)? {
        both.entry(element).or_default().0.push(item);
    }
    for (element, item) in shape.identified(new)? {
        both.entry(element).or_default().1.push(item);
    }
    let mut result = Changes::default();
    for (element, (old, new)) in both {
        let below = match (old.as_slice(), new.as_slice()) {
            ([_, _, ..], _) | (_, [_, _, ..]) => {
                // The same item twice is an old mistake: it can't be said which of them changed.
                let mut below = Changes::default();
                below.modified.member = old != new;
                below.note_existence(old.first().copied(), new.first().copied());
                below.modified.member &= !below.added.member && !below.removed.member;
                below
            }
            (old, new) => changes(shape.schema, old.first().copied(), new.first().copied()),
        };
        result.put(element, below);
    }
    Some(result)
}
