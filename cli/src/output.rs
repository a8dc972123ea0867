//! `-o`: the forms in which objects are printed.
//!
//! JSON values flow in, text flows out. Tables come laid out by the server (see `table`); the
//! forms here show objects as they are.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::jsonpath::{Template, scalar_text};
use crate::object;
use crate::suggest;
use crate::table;

#[derive(Clone, Debug)]
pub enum Format {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(Box<Template>),
    CustomColumns(Vec<(String, Template)>),
}

const NAMES: [&str; 6] = [
    "json",
    "yaml",
    "name",
    "wide",
    "jsonpath=",
    "custom-columns=",
];

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => return Ok(Self::Table { wide: false }),
            "wide" => return Ok(Self::Table { wide: true }),
            "json" => return Ok(Self::Json),
            "yaml" => return Ok(Self::Yaml),
            "name" => return Ok(Self::Name),
            _ => {}
        }
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return template
                .parse()
                .map(|template| Self::JsonPath(Box::new(template)))
                .map_err(|error| crate::failure::chain(&error));
        }
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            return custom_columns(columns).map(Self::CustomColumns);
        }
        let near = suggest::did_you_mean(text, NAMES);
        Err(format!(
            "unknown output form{near}; known are json, yaml, name, wide, jsonpath=TEMPLATE and custom-columns=HEADER:PATH,…"
        ))
    }
}

fn custom_columns(text: &str) -> Result<Vec<(String, Template)>, String> {
    text.split(',')
        .map(|column| {
            let (header, path) = column
                .split_once(':')
                .filter(|(header, path)| !header.is_empty() && !path.is_empty())
                .ok_or_else(|| {
                    format!(
                        "custom column {column:?}: write HEADER:PATH, such as NAME:.metadata.name"
                    )
                })?;
            let template = path
                .parse()
                .map_err(|error| crate::failure::chain(&error))?;
            Ok((header.to_owned(), template))
        })
        .collect()
}

impl Format {
    /// One object, or a list of them.
    pub fn render(&self, value: &Value, headers: bool) -> Result<String, Failure> {
        match self {
            Self::Json | Self::Table { .. } => json_text(value),
            Self::Yaml => yaml(value),
            Self::Name => Ok(items(value)
                .into_iter()
                .map(|item| match object::resource(item) {
                    Some(resource) => {
                        format!("{}\n", object::reference(resource, object::name(item)))
                    }
                    None => format!("{}\n", object::name(item)),
                })
                .collect()),
            Self::JsonPath(template) => Ok(template.render(value)),
            Self::CustomColumns(columns) => Ok(table::simple(
                &columns
                    .iter()
                    .map(|(header, _)| header.as_str())
                    .collect::<Vec<_>>(),
                items(value)
                    .into_iter()
                    .map(|item| columns.iter().map(|(_, path)| column(path, item)).collect())
                    .collect(),
                headers,
            )),
        }
    }
}

fn column(path: &Template, item: &Value) -> String {
    let found = path.select(item);
    if found.is_empty() {
        return "<none>".into();
    }
    let texts: Vec<String> = found.into_iter().map(scalar_text).collect();
    table::harmless(&texts.join(","))
}

/// The items of a list, or the one object.
pub fn items(value: &Value) -> Vec<&Value> {
    match value["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    }
}

/// What `get` prints for several objects.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// The object, or the list of them, without who owns which field: longer than all the rest, and
/// rarely asked for.
pub fn without_managed_fields(mut value: Value) -> Value {
    let hide = |object: &mut Value| {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    };
    match value.get_mut("items") {
        Some(Value::Array(items)) => items.iter_mut().for_each(hide),
        _ => hide(&mut value),
    }
    value
}

pub fn json_text(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| format!("{text}\n"))
        .map_err(|error| Failure::new(format_args!("cannot print as JSON: {error}")))
}

pub fn yaml(value: &Value) -> Result<String, Failure> {
    let options = serde_saphyr::ser_options! {
        // One long line, such as a digest or an annotation, stays one: people search and copy it.
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(value, options)
        .map(|text| match text.ends_with('\n') {
            true => text,
            false => format!("{text}\n"),
        })
        .map_err(|error| Failure::new(format_args!("cannot print as YAML: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn forms() {
        let value = list(vec![json!({
            "apiVersion": "hive.dev/v1", "kind": "Function",
            "metadata": {"name": "hello", "labels": {"on": "yes"}}, "spec": {"replicas": 2}
        })]);
        let render = |form: &str| {
            form.parse::<Format>()
                .unwrap()
                .render(&value, true)
                .unwrap()
        };
        assert_eq!(render("name"), "function.hive.dev/hello\n");
        assert_eq!(render("jsonpath={.items[0].spec.replicas}"), "2");
        assert_eq!(
            render("custom-columns=NAME:.metadata.name,N:.spec.replicas,X:.x"),
            "NAME    N     X\nhello   2     <none>\n"
        );
        assert!(render("json").ends_with("}\n"));
        // YAML that a YAML 1.1 reader, such as kubectl's, takes for the same text.
        assert!(
            render("yaml").contains("\"yes\"") || render("yaml").contains("'yes'"),
            "{}",
            render("yaml")
        );
    }

    proptest::proptest! {
        #[test]
        fn yaml_says_what_the_value_is(
            texts in proptest::collection::vec("\\PC{0,12}|[ \n\t:#'\"a-b|>-]{0,12}", 1..4),
        ) {
            let value = json!({"data": {"a": texts, "b": texts[0]}, "empty": {}});
            let text = yaml(&value).unwrap();
            let read = hive_manifests::document::parse(&text, "x").unwrap();
            proptest::prop_assert_eq!(&read[0].value, &value, "{}", text);
        }
    }

    #[test]
    fn an_unknown_form_gets_a_suggestion() {
        let error = "yml".parse::<Format>().unwrap_err();
        assert!(error.contains("did you mean \"yaml\"?"), "{error}");
        assert!("custom-columns=NAME".parse::<Format>().is_err());
    }
}
