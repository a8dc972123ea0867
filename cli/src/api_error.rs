//! What the server refused, shown at the line of the manifest that caused it.
//!
//! Pure: a Status and the document that was sent flow in, a failure with `file:line: field:
//! message` for each cause flows out.

use hive_manifests::{FieldPath, Resource};
use kube::core::Status;
use serde_json::Value;

use crate::cluster::RequestError;
use crate::failure::Failure;
use crate::manifest::Manifest;

/// The failure for a request that carried this manifest.
pub fn locate(error: RequestError, manifest: &Manifest) -> Failure {
    let Some(status) = error.status() else {
        return Failure::from(error);
    };
    if let Some(located) = locate_status(status, manifest) {
        return located;
    }
    let no_namespace = status.is_not_found()
        && status
            .details
            .as_ref()
            .is_some_and(|details| details.kind == Resource::Namespace.plural());
    let failure = Failure::from(error).context(manifest.place(&FieldPath::root()));
    match no_namespace {
        true => failure.hint("declare it in a manifest of kind Namespace: it is applied first"),
        false => failure,
    }
}

fn locate_status(status: &Status, manifest: &Manifest) -> Option<Failure> {
    let causes = &status.details.as_ref()?.causes;
    let located: Vec<Failure> = causes
        .iter()
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| {
            let path = written(parse(&cause.field, &manifest.document.value), manifest);
            Failure::new(format_args!(
                "{}: {}: {}",
                manifest.place(&path),
                cause.field,
                cause.message
            ))
        })
        .collect();
    (!located.is_empty()).then(|| Failure::several(located))
}

/// The place in the manifest that stands for a field of the object sent: a component that is sent
/// by digest was written as a path.
fn written(path: FieldPath, manifest: &Manifest) -> FieldPath {
    let by_path = FieldPath::of(["spec", "artifact", "path"]);
    let is_digest = path == FieldPath::of(["spec", "artifact", "sha256"]);
    match is_digest && manifest.document.value["spec"]["artifact"]["path"].is_string() {
        true => by_path,
        false => path,
    }
}

/// A field path as servers write it: `spec.env[1].value`, `metadata.labels[example.com/role]`.
fn parse(text: &str, object: &Value) -> FieldPath {
    let mut path = FieldPath::root();
    let mut value = object;
    let mut rest = text;
    while !rest.is_empty() {
        let name = if let Some(inside) = rest.strip_prefix('[') {
            let (name, tail) = inside.split_once(']').unwrap_or((inside, ""));
            rest = tail;
            name
        } else {
            let word = rest.strip_prefix('.').unwrap_or(rest);
            let end = word.find(['.', '[']).unwrap_or(word.len());
            rest = &word[end..];
            &word[..end]
        };
        match (value, name.parse::<usize>()) {
            (Value::Array(items), Ok(index)) => {
                path = path.index(index);
                value = items.get(index).unwrap_or(&Value::Null);
            }
            _ => {
                path = path.field(name.trim_matches('"'));
                value = value.get(name.trim_matches('"')).unwrap_or(&Value::Null);
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use hive_manifests::document;
    use serde_json::json;

    use super::*;

    #[test]
    fn causes_point_at_lines() {
        let text = "apiVersion: hive.dev/v1\nkind: Function\nmetadata:\n  name: hello\nspec:\n  artifact:\n    path: a.wasm\n  env:\n  - name: A\n  - name: B\n";
        let manifest = Manifest {
            resource: Resource::Function,
            namespace: Some("default".into()),
            document: document::parse(text, "f.yaml").unwrap().remove(0),
            directory: PathBuf::new(),
        };
        let status: Status = serde_json::from_value(json!({
            "status": "Failure", "reason": "Invalid", "code": 422,
            "message": "Function.hive.dev \"hello\" is invalid",
            "details": {"causes": [
                {"field": "spec.env[1].name", "message": "taken", "reason": "FieldValueDuplicate"},
                {"field": "spec.artifact.sha256", "message": "not a component", "reason": "FieldValueInvalid"},
            ]}
        }))
        .unwrap();
        let failure = locate(RequestError::Status(Box::new(status)), &manifest);
        assert_eq!(
            failure.to_string(),
            "f.yaml:10: spec.env[1].name: taken\nf.yaml:7: spec.artifact.sha256: not a component"
        );
    }

    #[test]
    fn field_paths_are_read_as_they_are_written() {
        let object = json!({"a": [{"b": 1}], "m": {"1": {}}});
        for text in ["a[0].b", "m[1]", "x.y[example.com/z].w", "spec"] {
            let shown = parse(text, &object).to_string();
            assert_eq!(shown.replace(".1", "[1]"), text);
        }
    }
}
