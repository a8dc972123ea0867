//! The text of a description: labelled lines, nested fields, small tables.
//!
//! Pure: values flow in, lines flow out. Keys become words (`nodeSelector` -> `Node Selector`).

use jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::object::{self, LAST_APPLIED};
use crate::table::{Columns, harmless};

/// Where values begin.
const LABEL_WIDTH: usize = 16;

#[derive(Default)]
pub struct Description(String);

/// A scalar as text; nothing where there is nothing.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

impl Description {
    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn line(&mut self, label: &str, value: &str) {
        let label = format!("{label}:");
        let value = if value.is_empty() { "<none>" } else { value };
        self.0.push_str(&format!("{label:LABEL_WIDTH$} {value}\n"));
    }

    pub fn list(&mut self, label: &str, values: &[String]) {
        let mut label = label;
        if values.is_empty() {
            self.line(label, "");
        }
        for value in values {
            match label {
                "" => self.0.push_str(&format!("{:LABEL_WIDTH$} {value}\n", "")),
                label => self.line(label, value),
            }
            label = "";
        }
    }

    pub fn metadata(&mut self, object: &Value) {
        self.line("Name", object::name(object));
        if let Some(namespace) = object::namespace(object) {
            self.line("Namespace", namespace);
        }
        let metadata = &object["metadata"];
        let pairs = |map: &Value| -> Vec<String> {
            map.as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != LAST_APPLIED)
                .map(|(key, value)| format!("{key}={}", plain(value)))
                .collect()
        };
        self.list("Labels", &pairs(&metadata["labels"]));
        self.list("Annotations", &pairs(&metadata["annotations"]));
        let created = plain(&metadata["creationTimestamp"]);
        let ago = age::since(&created, Timestamp::now())
            .map(|age| format!("{created} ({age} ago)"))
            .unwrap_or(created);
        self.line("Created", &ago);
        if let Some(deleted) = metadata["deletionTimestamp"].as_str() {
            self.line("Deleting", &format!("since {deleted}"));
            self.field("Finalizers", &metadata["finalizers"]);
        }
    }

    /// A field with everything in it, nested by indentation.
    pub fn field(&mut self, label: &str, value: &Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                self.0.push_str(&format!("{label}:\n"));
                self.nested(value, 2);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                self.0.push_str(&format!("{label}:\n"));
                self.nested(value, 2);
            }
            Value::Array(items) => {
                let texts: Vec<String> = items.iter().map(plain).collect();
                self.line(label, &texts.join(", "));
            }
            Value::Object(_) => self.line(label, ""),
            scalar => self.line(label, &plain(scalar)),
        }
    }

    fn nested(&mut self, value: &Value, indent: usize) {
        let blanks = " ".repeat(indent);
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::Object(_) | Value::Array(_) => {
                            self.0.push_str(&format!("{blanks}{}:\n", words(key)));
                            self.nested(value, indent + 2);
                        }
                        scalar => {
                            self.0
                                .push_str(&format!("{blanks}{}: {}\n", words(key), plain(scalar)))
                        }
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 && item.is_object() {
                        self.0.push('\n');
                    }
                    self.nested(item, indent);
                }
            }
            scalar => self.0.push_str(&format!("{blanks}{}\n", plain(scalar))),
        }
    }

    /// Everything but what `metadata` showed.
    pub fn rest(&mut self, object: &Value) {
        for (key, value) in object.as_object().into_iter().flatten() {
            if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                self.field(&words(key), value);
            }
        }
    }

    pub fn environment(&mut self, env: &Value) {
        let lines: Vec<String> = env
            .as_array()
            .into_iter()
            .flatten()
            .map(|variable| {
                let name = plain(&variable["name"]);
                let from = &variable["valueFrom"];
                if let Some(reference) = from["secretKeyRef"].as_object() {
                    format!(
                        "{name}: <key {} of secret {}>",
                        plain(&reference["key"]),
                        plain(&reference["name"])
                    )
                } else if let Some(reference) = from["configMapKeyRef"].as_object() {
                    format!(
                        "{name}: <key {} of configmap {}>",
                        plain(&reference["key"]),
                        plain(&reference["name"])
                    )
                } else {
                    format!("{name}: {}", plain(&variable["value"]))
                }
            })
            .collect();
        if !lines.is_empty() {
            self.list("Environment", &lines);
        }
    }

    /// Whether a line ends with a sentence: it is not to be read twice.
    pub fn says(&self, sentence: &str) -> bool {
        self.0.lines().any(|line| line.ends_with(sentence))
    }

    /// With the messages that were not told above.
    pub fn conditions(&mut self, object: &Value) {
        let now = Timestamp::now();
        let rows = object::conditions(object)
            .iter()
            .map(|condition| {
                let since = condition["lastTransitionTime"]
                    .as_str()
                    .and_then(|time| age::since(time, now))
                    .unwrap_or_default();
                let mut message = plain(&condition["message"]);
                if self.says(&message) {
                    message.clear();
                }
                vec![
                    plain(&condition["type"]),
                    plain(&condition["status"]),
                    since,
                    plain(&condition["reason"]),
                    message,
                ]
            })
            .collect();
        self.table(
            "Conditions",
            &["Type", "Status", "Since", "Reason", "Message"],
            rows,
        );
    }

    pub fn table(&mut self, label: &str, headers: &[&str], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            self.line(label, "");
            return;
        }
        let mut lines = vec![headers.iter().map(|header| (*header).to_owned()).collect()];
        lines.extend(rows);
        for line in &mut lines {
            let first: &mut Vec<String> = line;
            if let Some(cell) = first.first_mut() {
                cell.insert_str(0, "  ");
            }
        }
        self.0.push_str(&format!("{label}:\n"));
        self.0.push_str(&Columns::default().lay_out(&lines));
    }
}

/// `nodeSelector` as `Node Selector`; keys that aren't camel case stay as they are.
fn words(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut text = String::new();
    for (index, c) in key.char_indices() {
        if index == 0 {
            text.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() {
                text.push(' ');
            }
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_does_not_say_again_what_was_told_above() {
        let object = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "reason": "HostTaken", "message": "the host is taken" },
            { "type": "CertificateReady", "status": "False", "reason": "HostTaken", "message": "the host is taken" },
            { "type": "Else", "status": "True", "reason": "Fine", "message": "all is fine" },
        ] } });
        let mut description = Description::default();
        description.line("Status", "Not ready (HostTaken): the host is taken");
        description.conditions(&object);
        let text = description.text();
        assert_eq!(text.matches("the host is taken").count(), 1, "{text}");
        assert_eq!(text.matches("HostTaken").count(), 3, "{text}");
        assert!(text.contains("all is fine"), "{text}");
    }

    #[test]
    fn nested_fields_are_indented() {
        let mut description = Description::default();
        description.field("Resources", &json!({"memory": "64Mi", "cpu": "100m"}));
        description.field("Allowed Hosts", &json!(["a", "b"]));
        description.field("Tolerations", &json!([{"key": "a"}, {"key": "b"}]));
        description.field("Timeout", &json!("30s"));
        description.table("Rows", &["A", "B"], vec![vec!["1".into(), "2".into()]]);
        assert_eq!(
            description.text(),
            "Resources:\n  Cpu: 100m\n  Memory: 64Mi\nAllowed Hosts:   a, b\nTolerations:\n  Key: a\n\n  Key: b\nTimeout:         30s\nRows:\n  A   B\n  1   2\n"
        );
        assert_eq!(words("nodeSelector"), "Node Selector");
        assert_eq!(words("example.com/x"), "example.com/x");
    }
}
