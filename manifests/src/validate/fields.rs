//! Reads fields of a spec by their JSON type, and checks the forms that many kinds have: lengths of time,
//! amounts of bytes.
//!
//! Whatever has the wrong type is passed over: the schema has reported it.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use crate::FieldPath;
use crate::duration::GoDuration;
use crate::quantity::Bytes;

pub(super) fn object<'a>(
    parent: &'a Map<String, Value>,
    name: &str,
) -> Option<&'a Map<String, Value>> {
    parent.get(name).and_then(Value::as_object)
}

pub(super) fn text<'a>(parent: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    parent.get(name).and_then(Value::as_str)
}

pub(super) fn list<'a>(parent: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    parent
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(super) fn present(parent: &Map<String, Value>, name: &str) -> bool {
    parent.get(name).is_some_and(|value| !value.is_null())
}

/// Nothing is said, not even under a misspelt name, which the schema reports.
pub(super) fn is_empty(fields: &Map<String, Value>) -> bool {
    fields.values().all(Value::is_null)
}

/// A quantity as its JSON says it: text or a number.
pub(super) fn amount(parent: &Map<String, Value>, name: &str) -> Option<String> {
    match parent.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Adds an error unless the field is a length of time within `range`, or not there.
pub(super) fn check_duration(
    fields: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<Duration>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let Some(text) = text(fields, name) else {
        return;
    };
    let path = path.field(name);
    match text.parse::<GoDuration>() {
        Err(error) => findings.invalid(&path, format!("{}: {error}", quoted(text))),
        Ok(GoDuration(duration)) if !range.contains(&duration) => {
            let (least, most) = range.into_inner();
            let message = format!(
                "{} is not between {} and {}",
                quoted(text),
                GoDuration(least),
                GoDuration(most)
            );
            findings.invalid(&path, message);
        }
        Ok(_) => {}
    }
}

/// Adds an error unless the field is an amount of bytes within `range`, or not there.
pub(super) fn check_size(
    fields: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<Bytes>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let Some(text) = amount(fields, name) else {
        return;
    };
    let path = path.field(name);
    match text.parse::<Bytes>() {
        Err(error) => findings.invalid(&path, format!("{}: {error}", quoted(&text))),
        Ok(size) if !range.contains(&size) => {
            let (least, most) = range.into_inner();
            let message = format!("{} is not between {least} and {most}", quoted(&text));
            findings.invalid(&path, message);
        }
        Ok(_) => {}
    }
}
