//! Label selectors: `app=web`, `tier!=cache`, `env in (a,b)`, `!legacy`.
//!
//! Pure. The server selects for `get`; this is for what only the client has: the objects of a
//! manifest that `apply --prune -l` narrows.

use std::str::FromStr;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is not a label selector; write app=web, app!=web, 'app in (a,b)', 'app notin (a,b)', app or '!app'"
)]
pub struct SelectorError {
    part: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        split_requirements(text)
            .into_iter()
            .map(|part| {
                requirement(part.trim()).ok_or_else(|| SelectorError {
                    part: part.trim().to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Splits at commas outside parentheses.
fn split_requirements(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Absent(word(key)?));
    }
    if let Some((key, set)) = part.split_once(" notin ") {
        return Some(Requirement::NotIn(word(key)?, values(set)?));
    }
    if let Some((key, set)) = part.split_once(" in ") {
        return Some(Requirement::In(word(key)?, values(set)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(
            word(key)?,
            vec![value.trim().to_owned()],
        ));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(word(key)?, vec![value.trim().to_owned()]));
    }
    Some(Requirement::Exists(word(part)?))
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(plain)).then(|| text.to_owned())
}

fn values(set: &str) -> Option<Vec<String>> {
    let inside = set.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(
        inside
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect(),
    )
}

impl Selector {
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &String| object["metadata"]["labels"][key].as_str();
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::In(key, values) => {
                label(key).is_some_and(|found| values.iter().any(|value| value == found))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|found| values.iter().all(|value| value != found))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select() {
        let object = json!({"metadata": {"labels": {"app": "web", "hive.dev/tier": "front"}}});
        let table = [
            ("app=web", true),
            ("app==web,hive.dev/tier=front", true),
            ("app=api", false),
            ("app!=api", true),
            ("other!=x", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("app", true),
            ("!app", false),
            ("!other", true),
        ];
        for (text, expected) in table {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_said() {
        for text in ["", "app in web", "=x", "a b", "app=web,,b"] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
    }
}
