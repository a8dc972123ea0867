//! kubectl's jsonpath templates: `{.items[*].metadata.name}`, `{range .items[*]}…{end}`, text.
//!
//! Pure. A template is parsed once and rendered against JSON values; the expressions inside the
//! braces are RFC 9535 paths, of which kubectl's dialect is nearly a subset.

use std::str::FromStr;

use serde_json::Value;
use serde_json_path::JsonPath;

#[derive(Clone, Debug)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Path(JsonPath),
    Range(JsonPath, Vec<Part>),
}

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("jsonpath {template:?}: the brace opened at character {at} is not closed")]
    OpenBrace { template: String, at: usize },
    #[error("jsonpath {template:?}: {{end}} without {{range}}")]
    StrayEnd { template: String },
    #[error("jsonpath {template:?}: {{range}} without {{end}}")]
    OpenRange { template: String },
    #[error("jsonpath expression {expression:?} at character {}: {}", .source.position(), .source.message())]
    Expression {
        expression: String,
        source: Box<serde_json_path::ParseError>,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(template: &str) -> Result<Self, TemplateError> {
        // kubectl takes a bare path too: `jsonpath=.metadata.name`.
        let braced;
        let template = if template.contains('{') || template.is_empty() {
            template
        } else {
            braced = format!("{{{template}}}");
            &braced
        };
        let mut open: Vec<(JsonPath, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inside = &rest[start + 1..];
            let end = closing_brace(inside).ok_or_else(|| TemplateError::OpenBrace {
                template: template.to_owned(),
                at: template.len() - inside.len(),
            })?;
            let expression = inside[..end].trim();
            rest = &inside[end + 1..];
            if let Some(text) = quoted(expression) {
                parts.push(Part::Text(text));
            } else if let Some(path) = expression.strip_prefix("range ") {
                open.push((parse_path(path.trim())?, std::mem::take(&mut parts)));
            } else if expression == "end" {
                let (path, outer) = open.pop().ok_or_else(|| TemplateError::StrayEnd {
                    template: template.to_owned(),
                })?;
                let inner = std::mem::replace(&mut parts, outer);
                parts.push(Part::Range(path, inner));
            } else {
                parts.push(Part::Path(parse_path(expression)?));
            }
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !open.is_empty() {
            return Err(TemplateError::OpenRange {
                template: template.to_owned(),
            });
        }
        Ok(Self(parts))
    }
}

/// Where the brace closes, quotes and nested brackets respected.
fn closing_brace(inside: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in inside.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(index),
            (None, _) => {}
        }
    }
    None
}

/// `"\n"` as the text it stands for.
fn quoted(expression: &str) -> Option<String> {
    let quote = expression
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''))?;
    let inside = expression.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut text = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            c => text.push(c),
        }
    }
    Some(text)
}

/// A path in kubectl's spelling as one in RFC 9535's: the root `$` may be left out, `@` stands for
/// it, and a dot in a key is escaped (`.metadata.annotations.hive\.dev/x`).
fn parse_path(expression: &str) -> Result<JsonPath, TemplateError> {
    let path = expression
        .strip_prefix(['$', '@'])
        .unwrap_or(expression)
        .trim();
    let mut rfc = String::from("$");
    if !path.is_empty() && !path.starts_with(['.', '[']) {
        rfc.push('.');
    }
    let mut rest = path;
    // A key with characters that RFC 9535 does not allow in shorthand becomes a quoted one.
    while let Some(c) = rest.chars().next() {
        if c == '.' && !rest.starts_with("..") && rest.len() > 1 && !rest.starts_with(".[") {
            let (key, tail) = key(&rest[1..]);
            let plain = |c: char| c.is_alphanumeric() || c == '_';
            if key == "*" || (key.chars().all(plain) && !key.is_empty()) {
                rfc.push('.');
                rfc.push_str(&key);
            } else {
                rfc.push_str(&format!("[{}]", Value::from(key)));
            }
            rest = tail;
        } else if c == '[' {
            let end = closing_bracket(rest);
            rfc.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if rest == "." || rest.starts_with(".[") {
            rest = &rest[1..];
        } else {
            rfc.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    JsonPath::parse(&rfc).map_err(|source| TemplateError::Expression {
        expression: expression.to_owned(),
        source: Box::new(source),
    })
}

/// One key and what comes after it.
fn key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => key.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (key, &text[index..]),
            c => key.push(c),
        }
    }
    (key, "")
}

/// The length of a bracketed selector, brackets in filters and quotes respected.
fn closing_bracket(text: &str) -> usize {
    let mut depth = 0;
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return index + 1;
                }
            }
            (None, _) => {}
        }
    }
    text.len()
}

impl Template {
    /// Several results of one path are separated by a blank, as kubectl does.
    pub fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render_parts(&self.0, value, &mut text);
        text
    }

    /// Everything the template's paths select: for comparisons and sorting.
    pub fn select<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0
            .iter()
            .filter_map(|part| match part {
                Part::Path(path) => Some(path.query(value).all()),
                Part::Text(_) | Part::Range(..) => None,
            })
            .flatten()
            .collect()
    }
}

fn render_parts(parts: &[Part], value: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => {
                let found = path.query(value).all();
                let texts: Vec<String> = found.into_iter().map(scalar_text).collect();
                text.push_str(&texts.join(" "));
            }
            Part::Range(path, inner) => {
                for item in path.query(value).all() {
                    render_parts(inner, item, text);
                }
            }
        }
    }
}

/// Strings without quotes, everything else as JSON.
pub fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn list() -> Value {
        json!({"items": [
            {"metadata": {"name": "a", "annotations": {"hive.dev/x": "1"}},
             "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}},
            {"metadata": {"name": "b"}, "spec": {"replicas": 3}},
        ]})
    }

    #[test]
    fn templates_render_as_kubectls() {
        let table = [
            ("{.items[*].metadata.name}", "a b"),
            (".items[0].metadata.name", "a"),
            ("{$.items[1].spec.replicas}", "3"),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{end}!",
                "a\tb\t!",
            ),
            ("{.items[0].metadata.annotations.hive\\.dev/x}", "1"),
            ("{.items[0].metadata.annotations['hive.dev/x']}", "1"),
            (
                "{.items[0].status.conditions[?(@.type==\"Ready\")].status}",
                "True",
            ),
            ("{.items[1].spec}", "{\"replicas\":3}"),
            ("name: {.items[1].metadata.name}", "name: b"),
            ("{..name}", "a b"),
            ("{.nothing.here}", ""),
            ("{@.items[1].metadata.name}", "b"),
            ("{.items[*]['metadata']['name']}", "a b"),
        ];
        for (template, expected) in table {
            assert_eq!(
                template.parse::<Template>().unwrap().render(&list()),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |template: &str| template.parse::<Template>().unwrap_err().to_string();
        assert!(error("{.a").contains("not closed"));
        assert!(error("{end}").contains("without {range}"));
        assert!(error("{range .a[*]}x").contains("without {end}"));
        assert!(
            error("{.a[}").starts_with("jsonpath expression \".a[\""),
            "{}",
            error("{.a[}")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(template in ".*") {
            let _ = template.parse::<Template>();
        }
    }
}
