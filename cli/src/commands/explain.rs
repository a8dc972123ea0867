//! `hivectl explain`: what a manifest may contain, from the schema of the kinds built in.

use std::fmt::Write;

use clap::Args;
use hive_manifests::{Resource, openapi_schema};
use serde_json::Value;

use crate::failure::Failure;
use crate::selection;
use crate::session::Session;
use crate::suggest;

/// Descriptions are wrapped here.
const LINE_WIDTH: usize = 80;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl explain function
  hivectl explain function.spec.http
  hivectl explain function.spec --recursive")]
pub struct Explain {
    /// RESOURCE[.FIELD…]
    #[arg(value_name = "PATH")]
    path: String,

    /// Show all fields beneath, without their descriptions
    #[arg(long)]
    recursive: bool,
}

pub fn run(explain: Explain, session: &mut Session<'_>) -> Result<(), Failure> {
    let (word, fields) = explain.path.split_once('.').unwrap_or((&explain.path, ""));
    let resource = selection::resource(word)?;
    let mut schema = openapi_schema(resource);
    let mut walked = resource.singular().to_owned();
    let mut field = None;
    for name in fields.split('.').filter(|name| !name.is_empty()) {
        schema = find(schema, name, &walked)?;
        walked = format!("{walked}.{name}");
        field = Some(name);
    }
    let text = describe(resource, field, schema, explain.recursive);
    session.world.text(text)?;
    Ok(())
}

/// The schema of a field; lists are looked through to their items.
fn find<'s>(schema: &'s Value, name: &str, walked: &str) -> Result<&'s Value, Failure> {
    let inner = items(schema);
    if let Some(found) = inner["properties"].get(name) {
        return Ok(found);
    }
    // Keys of a map are anybody's choice.
    if inner["additionalProperties"].is_object() {
        return Ok(&inner["additionalProperties"]);
    }
    let known: Vec<&str> = properties(inner).map(|(name, _)| name.as_str()).collect();
    let failure = Failure::usage(format!(
        "{walked} has no field {name:?}{}",
        suggest::did_you_mean(name, known.iter().copied())
    ));
    Err(match known.is_empty() {
        true => failure,
        false => failure.hint(format!("its fields are: {}", known.join(", "))),
    })
}

fn items(schema: &Value) -> &Value {
    match schema.get("items") {
        Some(items) => items,
        None => schema,
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn describe(resource: Resource, field: Option<&str>, schema: &Value, recursive: bool) -> String {
    let mut text = String::new();
    if !resource.group().is_empty() {
        let _ = writeln!(text, "GROUP:      {}", resource.group());
    }
    let _ = writeln!(text, "KIND:       {}", resource.kind());
    let _ = writeln!(text, "VERSION:    {}\n", resource.version());
    if let Some(field) = field {
        let _ = writeln!(text, "FIELD: {field} <{}>", type_name(schema));
        let limits = limits(schema);
        if !limits.is_empty() {
            let _ = writeln!(text, "LIMITS: {limits}");
        }
        text.push('\n');
    }
    text.push_str("DESCRIPTION:\n");
    let own = schema["description"]
        .as_str()
        .or_else(|| items(schema)["description"].as_str())
        .unwrap_or("<no description>");
    wrap(own, 4, &mut text);
    let inner = items(schema);
    if properties(inner).next().is_some() {
        text.push_str("\nFIELDS:\n");
        list(inner, recursive, 2, &mut text);
    }
    text
}

fn list(schema: &Value, recursive: bool, indent: usize, text: &mut String) {
    let required = schema["required"].as_array();
    for (name, field) in properties(schema) {
        let is_required = required.is_some_and(|names| names.iter().any(|known| known == name));
        let _ = writeln!(
            text,
            "{:indent$}{name}\t<{}>{}",
            "",
            type_name(field),
            if is_required { " -required-" } else { "" }
        );
        if recursive {
            list(items(field), true, indent + 2, text);
        } else {
            if let Some(description) = field["description"].as_str() {
                wrap(description, indent + 4, text);
            }
            let limits = limits(field);
            if !limits.is_empty() {
                wrap(&limits, indent + 4, text);
            }
            text.push('\n');
        }
    }
}

/// `string`, `[]Object`, `map[string]string`
fn type_name(schema: &Value) -> String {
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        // ["string", "null"]: the null only says that the field may be left out.
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("any"),
        _ if schema["x-kubernetes-int-or-string"] == true => "integer or string",
        _ => "any",
    };
    match kind {
        "array" => format!("[]{}", type_name(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map[string]{}", type_name(&schema["additionalProperties"]))
        }
        "object" => "Object".into(),
        other => other.to_owned(),
    }
}

/// `default: 1, at least 0, at most 1000, one of: a, b`
fn limits(schema: &Value) -> String {
    let mut parts = Vec::new();
    for (key, label) in [
        ("default", "default:"),
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("pattern", "matches"),
    ] {
        match &schema[key] {
            Value::Null => {}
            Value::String(value) => parts.push(format!("{label} {value}")),
            // 1000.0 is how schemas spell 1000.
            value => match value.as_f64() {
                Some(number) => parts.push(format!("{label} {number}")),
                None => parts.push(format!("{label} {value}")),
            },
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        parts.push(format!("one of: {}", values.join(", ")));
    }
    parts.join(", ")
}

/// Breaks lines at blanks.
fn wrap(text: &str, indent: usize, out: &mut String) {
    for paragraph in text.split("\n\n") {
        let mut line = " ".repeat(indent);
        for word in paragraph.split_whitespace() {
            let begun = line.len() > indent;
            if begun && line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
                out.push_str(&line);
                out.push('\n');
                line = " ".repeat(indent);
            } else if begun {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
}
