//! Patches: a parsed one turns a body into another. Pure, and bounded in what it may make of it.

use hive_manifests::resource::GROUP;
use hive_manifests::{FieldPath, Resource, openapi_schema};
use hive_merge::strategic;
use json_patch::{Patch as JsonPatch, PatchOperation};
use serde_json::Value;

use super::errors::ApiError;
use super::limits::MAX_OBJECT_REQUEST_BYTES;
use super::media::{PatchKind, parse_json};

/// Operations of one JSON patch; Kubernetes' own limit.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one JSON patch may copy together: without a bound thirty of
/// them would double a field a billion times.
const MAX_COPIED_BYTES: usize = MAX_OBJECT_REQUEST_BYTES;

/// Levels of what a JSON patch makes: what a JSON parser takes. Thousands of operations could nest
/// an object so deep that to drop it, or to write it down, takes more stack than a thread has; and
/// what is a little too deep would be stored, and never be read again.
const MAX_LEVELS: usize = 127;

/// Values that the operations of one JSON patch may look at or shift together. Without a bound each
/// of ten thousand could shift a list of a million.
const MAX_STEPS: usize = 32 << 20;

#[derive(Debug)]
pub(super) enum Patch {
    Merge(Value),
    Json(JsonPatch),
    Strategic(Resource, Value),
}

impl Patch {
    /// Also the fields that the patch names more than once.
    pub fn parse(
        kind: PatchKind,
        resource: Resource,
        body: &[u8],
    ) -> Result<(Self, Vec<FieldPath>), ApiError> {
        let malformed = |error: serde_json::Error| {
            ApiError::BadRequest(format!("the patch can't be read: {error}"))
        };
        let object = |body: &[u8]| {
            let patch = parse_json(body).map_err(malformed)?;
            match patch.value.is_object() {
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
                Ok((Self::Json(patch), Vec::new()))
            }
            PatchKind::Merge => {
                let patch = object(body)?;
                Ok((Self::Merge(patch.value), patch.repeated))
            }
            PatchKind::Strategic => {
                refuse_strategic(resource)?;
                let patch = object(body)?;
                Ok((Self::Strategic(resource, patch.value), patch.repeated))
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
    let mut steps = 0;
    for (index, operation) in operations.iter().enumerate() {
        steps += shifted(body, operation);
        let levels = levels_made(body, operation, &mut steps);
        if levels > MAX_LEVELS {
            return Err(format!(
                "operation {index} ({}) makes the object more than {MAX_LEVELS} levels deep",
                operation.path()
            ));
        }
        if steps > MAX_STEPS {
            return Err(format!(
                "the patch moves more than {MAX_STEPS} values by operation {index}"
            ));
        }
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
        if is_absent_as_expected(body, operation) {
            continue;
        }
        // One at a time on a copy that is dropped on failure: no roll-back is needed.
        json_patch::patch_unsafe(body, std::slice::from_ref(operation))
            .map_err(|error| format!("operation {index} ({}): {}", operation.path(), error.kind))?;
    }
    Ok(())
}

/// How deep the place is at which an operation puts something, with what it puts there. Nothing that
/// stays where it is gets deeper.
fn levels_made(body: &Value, operation: &PatchOperation, steps: &mut usize) -> usize {
    let depth = |pointer: &str| pointer.matches('/').count();
    let below = match operation {
        PatchOperation::Add(add) => levels(&add.value, steps),
        PatchOperation::Replace(replace) => levels(&replace.value, steps),
        PatchOperation::Copy(copy) => there(body, copy.from.as_str(), steps),
        PatchOperation::Move(moved) => match depth(moved.path.as_str()) {
            // It was deeper before.
            higher if higher <= depth(moved.from.as_str()) => return 0,
            _ => there(body, moved.from.as_str(), steps),
        },
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return 0,
    };
    depth(operation.path().as_str()) + below
}

fn there(body: &Value, pointer: &str, steps: &mut usize) -> usize {
    body.pointer(pointer)
        .map_or(0, |value| levels(value, steps))
}

/// 0 for what holds nothing else. As deep as the value, which is bounded here.
fn levels(value: &Value, steps: &mut usize) -> usize {
    *steps += 1;
    let below = match value {
        Value::Array(items) => items.iter().map(|item| levels(item, steps)).max(),
        Value::Object(fields) => fields.values().map(|field| levels(field, steps)).max(),
        _ => return 0,
    };
    1 + below.unwrap_or(0)
}

/// Items of lists that may have to make room.
fn shifted(body: &Value, operation: &PatchOperation) -> usize {
    let list = |pointer: &str| {
        let (parent, _) = pointer.rsplit_once('/')?;
        body.pointer(parent)?.as_array().map(Vec::len)
    };
    let at = list(operation.path().as_str());
    let from = match operation {
        PatchOperation::Move(moved) => list(moved.from.as_str()),
        _ => None,
    };
    match operation {
        PatchOperation::Test(_) | PatchOperation::Replace(_) => 0,
        _ => at.unwrap_or(0) + from.unwrap_or(0),
    }
}

/// As Kubernetes has it: a field that is not there is `null`. Controllers begin so when they add the
/// first finalizer.
fn is_absent_as_expected(body: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else {
        return false;
    };
    let path = test.path.as_str();
    let parent = path.rsplit_once('/').map(|(parent, _)| parent);
    test.value.is_null()
        && body.pointer(path).is_none()
        && parent.is_some_and(|parent| body.pointer(parent).is_some_and(Value::is_object))
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
        .0
    }

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let (patch, repeated) = Patch::parse(
            PatchKind::Merge,
            Resource::Function,
            br#"{"spec":{"replicas":1,"replicas":2,"timeout":null}}"#,
        )
        .unwrap();
        assert_eq!(repeated, [FieldPath::of(["spec", "replicas"])]);
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
    fn what_is_not_there_is_null_for_a_test() {
        for (path, value, passes) in [
            ("/metadata/finalizers", Value::Null, true),
            ("/metadata/finalizers", json!([]), false),
            ("/metadata/name", Value::Null, false),
            ("/data", Value::Null, true),
            ("/spec/none", Value::Null, false),
            ("/list/3", Value::Null, false),
        ] {
            let patch = json_patch(json!([{ "op": "test", "path": path, "value": value }]));
            let mut body = json!({ "metadata": { "name": "a" }, "data": null, "list": [] });
            assert_eq!(patch.apply(&mut body).is_ok(), passes, "{path}");
        }
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

    /// Each operation is harmless; together they would nest the object a hundred thousand times, and
    /// whatever looks at it afterwards would need more stack than there is.
    #[test]
    fn what_operations_nest_is_bounded() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |below, _| json!({ "a": below }));
        let deepest = "/a".repeat(100);
        let adds = (0..100).map(|n| {
            let path = format!("/a{}", deepest.repeat(n));
            json!({ "op": "add", "path": path, "value": nested(100) })
        });
        // The whole is put into something new, again and again.
        let moves = (0..1000).flat_map(|n| {
            let into = format!("/{}", n + 1);
            [
                json!({ "op": "add", "path": into, "value": nested(100) }),
                json!({ "op": "move", "from": format!("/{n}"), "path": format!("{into}{deepest}") }),
            ]
        });
        for operations in [adds.collect::<Vec<_>>(), moves.collect()] {
            let mut body = json!({ "0": {} });
            let error = json_patch(json!(operations)).apply(&mut body).unwrap_err();
            assert!(error.contains("127 levels deep"), "{error}");
        }
        // As deep as a parser takes.
        let path = "/a".repeat(27);
        let fits = json!([
            { "op": "add", "path": "/a", "value": nested(100) },
            { "op": "copy", "from": "/a", "path": "/b" },
            { "op": "remove", "path": format!("/a{path}") },
            { "op": "move", "from": "/b", "path": format!("/a{path}") },
        ]);
        let mut body = json!({});
        let error = json_patch(fits.clone()).apply(&mut body).unwrap_err();
        assert!(error.starts_with("operation 3"), "{error}");
        let mut body = json!({});
        json_patch(json!([fits[0], fits[1], fits[2]]))
            .apply(&mut body)
            .unwrap();
        assert!(serde_json::from_str::<Value>(&body.to_string()).is_ok());
    }

    #[test]
    fn what_operations_shift_is_bounded() {
        let list = vec![0; 100_000];
        let first = [json!({ "op": "add", "path": "/list", "value": list })];
        let more = (0..1000).map(|n| json!({ "op": "add", "path": "/list/0", "value": n }));
        let operations: Vec<Value> = first.into_iter().chain(more).collect();
        let error = json_patch(json!(operations))
            .apply(&mut json!({}))
            .unwrap_err();
        assert!(error.starts_with("the patch moves more than"), "{error}");
    }

    #[test]
    fn strategic_patches_are_for_the_kinds_of_kubernetes() {
        let strategic = |resource| Patch::parse(PatchKind::Strategic, resource, b"{}").is_ok();
        assert!(strategic(Resource::ConfigMap));
        assert!(strategic(Resource::RoleBinding));
        assert!(!strategic(Resource::Function));
    }
}
