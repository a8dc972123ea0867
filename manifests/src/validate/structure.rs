//! Compares an object with its kind's schema: unknown fields, wrong types, missing fields, limits.
//!
//! Walks schema and value together; the depth is that of the schema, so no object can make it
//! recurse further. Understands the structural subset that our types produce, nothing more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::{Reason, suggest};
use crate::FieldPath;
use crate::schema::properties;

const UNKNOWN: &str = "unknown field";

/// Fields that a message names. The spec of a function has 30, which is the most of our own kinds.
const MAX_NAMED: usize = 40;

/// What a value is, in words.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Adds what is wrong with the shape of `value`. Absent and null are the same for a field, as in
/// Kubernetes.
pub(super) fn check(schema: &Value, value: &Value, path: &FieldPath, findings: &mut Findings) {
    if findings.is_full() {
        return;
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        if !value.is_string() && !value.is_number() {
            wrong_type("text or a number", value, path, findings);
        }
        return;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => match value {
            Value::Object(fields) => check_object(schema, fields, path, findings),
            other => wrong_type("an object", other, path, findings),
        },
        Some("array") => match value {
            Value::Array(items) => {
                let Some(item_schema) = schema.get("items") else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    check(item_schema, item, &path.index(index), findings);
                }
            }
            other => wrong_type("a list", other, path, findings),
        },
        Some("string") => match value {
            Value::String(text) => check_text(schema, text, path, findings),
            other => wrong_text(other, path, findings),
        },
        Some("integer") => match value {
            Value::Number(number) if !number.is_f64() => {
                // Beyond i64 and u64 a JSON number is a float, so i128 holds what is left.
                let number = number
                    .as_i64()
                    .map(i128::from)
                    .or_else(|| number.as_u64().map(i128::from));
                check_limits(schema, number.unwrap_or(i128::MAX), path, findings);
            }
            Value::Number(_) => wrong_type_found("a whole number", "a fraction", path, findings),
            other => wrong_type("a whole number", other, path, findings),
        },
        Some("number") if !value.is_number() => wrong_type("a number", value, path, findings),
        Some("boolean") if !value.is_boolean() => {
            wrong_type("true or false", value, path, findings);
        }
        _ => {}
    }
}

fn check_object(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let known = properties(schema);
    let others = schema.get("additionalProperties").filter(|s| s.is_object());
    // An object of which the schema says nothing may hold anything.
    let closed = known.is_some()
        && others.is_none()
        && schema.get("x-kubernetes-preserve-unknown-fields").is_none();
    for (name, value) in fields {
        if let Some(schema) = known.and_then(|known| known.get(name)) {
            if !value.is_null() {
                check(schema, value, &path.field(name), findings);
            }
        } else if let Some(schema) = others {
            check(schema, value, &path.field(name), findings);
        } else if closed && !findings.is_full() {
            let suggestion = known.and_then(|known| suggestion(name, known, fields));
            let message = match (&suggestion, known) {
                (None, Some(known)) => unknown(name, known),
                _ => UNKNOWN.to_owned(),
            };
            findings.suggest(&path.field(name), Reason::Unknown, message, suggestion);
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            findings.required(&path.field(name));
        }
    }
}

/// What is called otherwise here, since functions are no pods.
const IN_KUBERNETES: [(&str, &str); 3] = [
    ("podAffinity", "functionAffinity"),
    ("podAntiAffinity", "functionAntiAffinity"),
    ("podAffinityTerm", "functionAffinityTerm"),
];

/// The nearest field that is not set yet, or the same name one level further down.
fn suggestion(
    name: &str,
    known: &Map<String, Value>,
    present: &Map<String, Value>,
) -> Option<String> {
    if let Some((_, ours)) = IN_KUBERNETES.iter().find(|(theirs, _)| *theirs == name)
        && known.contains_key(*ours)
    {
        return Some((*ours).to_owned());
    }
    let free = known.keys().map(String::as_str);
    if let Some(near) = suggest::nearest(name, free.filter(|k| !present.contains_key(*k))) {
        return Some(near.to_owned());
    }
    known.iter().find_map(|(parent, schema)| {
        properties(schema)?
            .contains_key(name)
            .then(|| format!("{parent}.{name}"))
    })
}

/// Says which fields there are, unless one is near: that one is set already, and no other was meant.
fn unknown(name: &str, known: &Map<String, Value>) -> String {
    let mut names: Vec<&str> = known.keys().map(String::as_str).collect();
    if names.is_empty() || suggest::nearest(name, names.iter().copied()).is_some() {
        return UNKNOWN.to_owned();
    }
    // By their names, in whatever order the schema has them.
    names.sort_unstable();
    let more = match names.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(MAX_NAMED);
    format!("{UNKNOWN}; known here: {}{more}", names.join(", "))
}

fn check_text(schema: &Value, text: &str, path: &FieldPath, findings: &mut Findings) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        one_of(text, &allowed, path, findings);
    }
    match schema.get("format").and_then(Value::as_str) {
        Some("date-time") if text.parse::<jiff::Timestamp>().is_err() => findings.invalid(
            path,
            format!(
                "{} is not a time such as 2026-01-31T12:00:00Z",
                quoted(text)
            ),
        ),
        // The text is not repeated: it may be a secret that was not encoded.
        Some("byte") if STANDARD.decode(text).is_err() => findings.invalid(
            path,
            "not base64; write plain text under stringData, or encode it",
        ),
        _ => {}
    }
}

/// Adds an error unless `text` is one of `allowed`.
pub(super) fn one_of(text: &str, allowed: &[&str], path: &FieldPath, findings: &mut Findings) {
    if allowed.contains(&text) {
        return;
    }
    let suggestion = suggest::nearest(text, allowed.iter().copied()).map(str::to_owned);
    findings.suggest(
        path,
        Reason::Invalid,
        format!("{} is none of {}", quoted(text), allowed.join(", ")),
        suggestion,
    );
}

fn check_limits(schema: &Value, number: i128, path: &FieldPath, findings: &mut Findings) {
    let limit = |name: &str| schema.get(name).and_then(Value::as_i64).map(i128::from);
    let (format_minimum, format_maximum) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64") => (0, i128::from(u64::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let minimum = limit("minimum").unwrap_or(format_minimum);
    let maximum = limit("maximum").unwrap_or(format_maximum);
    if number < minimum {
        findings.invalid(path, format!("{number} is less than {minimum}"));
    } else if number > maximum {
        findings.invalid(path, format!("{number} is more than {maximum}"));
    }
}

/// YAML makes numbers and truth values of unquoted text: say how to keep it text.
fn wrong_text(value: &Value, path: &FieldPath, findings: &mut Findings) {
    let found = match value {
        Value::Bool(_) | Value::Number(_) => {
            format!("{}; put it in quotes", type_name(value))
        }
        other => type_name(other).to_owned(),
    };
    wrong_type_found("text", &found, path, findings);
}

fn wrong_type(expected: &str, value: &Value, path: &FieldPath, findings: &mut Findings) {
    wrong_type_found(expected, type_name(value), path, findings);
}

fn wrong_type_found(expected: &str, found: &str, path: &FieldPath, findings: &mut Findings) {
    findings.push(
        path,
        Reason::WrongType,
        format!("expected {expected}, found {found}"),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_names_a_field_that_nobody_knows_is_told_which_there_are() {
        let fields = |count: usize| -> Map<String, Value> {
            let names = (0..count).map(|number| format!("field{number:02}"));
            names.map(|name| (name, json!({}))).collect()
        };
        for (name, count, expected) in [
            ("image", 0, "unknown field"),
            ("image", 2, "unknown field; known here: field00, field01"),
            ("field0", 2, "unknown field"),
        ] {
            assert_eq!(unknown(name, &fields(count)), expected);
        }
        let told = unknown("image", &fields(MAX_NAMED));
        assert!(told.ends_with(", field39"), "{told}");
        let told = unknown("image", &fields(MAX_NAMED + 2));
        assert!(told.ends_with(", field39 and 2 more"), "{told}");
    }
}
