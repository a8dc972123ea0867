//! Patches: a parsed one turns a body into another. Pure, and bounded in what it may make of it.

use hive_manifests::Resource;
use json_patch::{Patch as JsonPatch, PatchOperation};
use serde_json::Value;

use super::errors::ApiError;
use super::limits::MAX_OBJECT_REQUEST_BYTES;
use super::media::PatchKind;

/// Operations of one JSON patch; Kubernetes' own limit.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one JSON patch may copy together: without a bound thirty of
/// them would double a field a billion times.
const MAX_COPIED_BYTES: usize = MAX_OBJECT_REQUEST_BYTES;

#[derive(Debug)]
pub(super) enum Patch {
    Merge(Value),
    Json(JsonPatch),
}

impl Patch {
    pub fn parse(kind: PatchKind, resource: Resource, body: &[u8]) -> Result<Self, ApiError> {
        let malformed = |error: serde_json::Error| {
            ApiError::BadRequest(format!("the patch can't be read: {error}"))
        };
        match kind {
            PatchKind::Json => {
                let patch: JsonPatch = serde_json::from_slice(body).map_err(malformed)?;
                if patch.0.len() > MAX_OPERATIONS {
                    return Err(ApiError::TooLarge(format!(
                        "the patch has {} operations; the limit is {MAX_OPERATIONS}",
                        patch.0.len()
                    )));
                }
                Ok(Self::Json(patch))
            }
            PatchKind::Merge | PatchKind::Strategic => {
                let patch: Value = serde_json::from_slice(body).map_err(malformed)?;
                if !patch.is_object() {
                    return Err(ApiError::BadRequest(
                        "a merge patch is a JSON object".into(),
                    ));
                }
                if kind == PatchKind::Strategic {
                    refuse_strategic(resource, &patch)?;
                }
                Ok(Self::Merge(patch))
            }
        }
    }

    /// # Errors
    /// When an operation does not fit: a path that isn't there, a `test` that fails.
    pub fn apply(&self, body: &mut Value) -> Result<(), String> {
        match self {
            Self::Merge(patch) => {
                json_patch::merge(body, patch);
                Ok(())
            }
            Self::Json(JsonPatch(operations)) => apply_operations(body, operations),
        }
    }
}

fn apply_operations(body: &mut Value, operations: &[PatchOperation]) -> Result<(), String> {
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation
            && let Some(source) = body.pointer(copy.from.as_str())
        {
            copied += source.to_string().len();
            if copied > MAX_COPIED_BYTES {
                return Err(format!(
                    "the patch copies more than {MAX_COPIED_BYTES} bytes by operation {index}"
                ));
            }
        }
        // One at a time on a copy that is dropped on failure: no roll-back is needed.
        json_patch::patch_unsafe(body, std::slice::from_ref(operation))
            .map_err(|error| format!("operation {index} ({}): {}", operation.path(), error.kind))?;
    }
    Ok(())
}

/// A strategic patch merges lists by keys that only Kubernetes' own types declare. Without lists
/// and directives it is a merge patch.
fn refuse_strategic(resource: Resource, patch: &Value) -> Result<(), ApiError> {
    let advice = "use application/merge-patch+json or application/json-patch+json";
    if !resource.group().is_empty() {
        return Err(ApiError::UnsupportedMediaType(format!(
            "strategic merge patches are for core kinds only: {advice}"
        )));
    }
    if holds_list_or_directive(patch) {
        return Err(ApiError::UnsupportedMediaType(format!(
            "strategic merge patches with lists or directives are not supported: {advice}"
        )));
    }
    Ok(())
}

fn holds_list_or_directive(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.starts_with('$') || holds_list_or_directive(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn json_patch(operations: Value) -> Patch {
        Patch::parse(
            PatchKind::Json,
            Resource::Function,
            operations.to_string().as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let patch = Patch::parse(
            PatchKind::Merge,
            Resource::Function,
            br#"{"spec":{"replicas":2,"timeout":null}}"#,
        )
        .unwrap();
        let mut body = json!({ "spec": { "replicas": 1, "timeout": "1s", "env": [] } });
        patch.apply(&mut body).unwrap();
        assert_eq!(body, json!({ "spec": { "replicas": 2, "env": [] } }));
    }

    #[test]
    fn a_json_patch_says_which_operation_failed() {
        let patch = json_patch(json!([
            { "op": "replace", "path": "/a", "value": 2 },
            { "op": "test", "path": "/a", "value": 3 },
        ]));
        let error = patch.apply(&mut json!({ "a": 1 })).unwrap_err();
        assert_eq!(error, "operation 1 (/a): value did not match");
    }

    #[test]
    fn copies_are_bounded() {
        let copies: Vec<Value> = (0..40)
            .map(|n| json!({ "op": "copy", "from": "", "path": format!("/c{n}") }))
            .collect();
        let error = json_patch(json!(copies))
            .apply(&mut json!({ "a": "x" }))
            .unwrap_err();
        assert!(error.starts_with("the patch copies more than"), "{error}");
    }

    #[test]
    fn strategic_patches_pass_where_they_mean_a_merge() {
        let strategic = |resource, patch: Value| {
            Patch::parse(PatchKind::Strategic, resource, patch.to_string().as_bytes()).is_ok()
        };
        assert!(strategic(
            Resource::ConfigMap,
            json!({ "data": { "a": "b" } })
        ));
        assert!(!strategic(
            Resource::ConfigMap,
            json!({ "data": { "$patch": "replace" } })
        ));
        assert!(!strategic(
            Resource::Namespace,
            json!({ "metadata": { "finalizers": ["x"] } })
        ));
        assert!(!strategic(Resource::Function, json!({ "spec": {} })));
    }
}
