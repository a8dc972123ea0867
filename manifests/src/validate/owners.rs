//! Rules about `metadata.ownerReferences`; Kubernetes' own.

use serde_json::Value;

use super::findings::{Findings, quoted};
use crate::FieldPath;

pub(super) fn check(references: &[Value], path: &FieldPath, findings: &mut Findings) {
    let mut controller: Option<&str> = None;
    for (index, reference) in references.iter().enumerate() {
        let path = path.index(index);
        let text = |name: &str| reference.get(name).and_then(Value::as_str);
        for name in ["apiVersion", "kind", "name", "uid"] {
            // One that is missing is reported by the schema.
            if text(name) == Some("") {
                findings.required(&path.field(name));
            }
        }
        if text("apiVersion") == Some("v1") && text("kind") == Some("Event") {
            findings.invalid(
                &path,
                "an Event can own nothing: it goes by itself in an hour",
            );
        }
        if reference.get("controller") == Some(&Value::Bool(true)) {
            let name = text("name").unwrap_or_default();
            match controller {
                None => controller = Some(name),
                Some(first) => findings.invalid(
                    &path.field("controller"),
                    format!(
                        "only one owner can be the controller, and {} is already",
                        quoted(first)
                    ),
                ),
            }
        }
    }
}
