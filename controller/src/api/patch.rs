//! Patches: a parsed one turns a body into another. Pure, and bounded in what it may make of it.

use hive_manifests::resource::GROUP;
use hive_manifests::{Resource, openapi_schema};
use hive_merge::strategic;
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
    Strategic(Resource, Value),
}

impl Patch {
    pub fn parse(kind: PatchKind, resource: Resource, body: &[u8]) -> Result<Self, ApiError> {
        let malformed = |error: serde_json::Error| {
            ApiError::BadRequest(format!("the patch can't be read: {error}"))
        };
        let object = |body: &[u8]| {
            let patch: Value = serde_json::from_slice(body).map_err(malformed)?;
            match patch.is_object() {
                true => Ok(patch),
                false => Err(ApiError::BadRequest(
                    "a merge patch is a JSON object".into(),
                )),
            }
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
            PatchKind::Merge => object(body).map(Self::Merge),
            PatchKind::Strategic => {
                refuse_strategic(resource)?;
                object(body).map(|patch| Self::Strategic(resource, patch))
            }
            PatchKind::Apply => Err(ApiError::MethodNotAllowed),
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
            Self::Strategic(resource, patch) => {
                *body = strategic::apply(openapi_schema(*resource), body, patch)
                    .map_err(|error| error.to_string())?;
                Ok(())
            }
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

/// As Kubernetes has it for custom resources; kubectl falls back to a merge patch.
fn refuse_strategic(resource: Resource) -> Result<(), ApiError> {
    match resource.group() {
        GROUP => Err(ApiError::UnsupportedMediaType(
            "strategic merge patches are for Kubernetes' own kinds only: use \
             application/merge-patch+json or application/json-patch+json"
                .into(),
        )),
        _ => Ok(()),
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
    fn strategic_patches_are_for_the_kinds_of_kubernetes() {
        let strategic = |resource| Patch::parse(PatchKind::Strategic, resource, b"{}").is_ok();
        assert!(strategic(Resource::ConfigMap));
        assert!(strategic(Resource::RoleBinding));
        assert!(!strategic(Resource::Function));
    }
}
