//! The object that a manifest asks for, in the form in which it is sent.
//!
//! Pure. What only the server sets is left out, so that what `get -o yaml` printed can be applied;
//! the artifact is named by digest; and the manifest is remembered in an annotation, from which
//! the next apply learns what was removed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use serde_json::{Map, Value, json};

use crate::manifest::Manifest;
use crate::object::LAST_APPLIED;

/// Metadata that the server sets; in a manifest it is a leftover of printing the object.
const SET_BY_SERVER: [&str; 7] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];

/// With the annotation that remembers it.
pub fn of(manifest: &Manifest, sha256: Option<&str>) -> Value {
    let mut object = declared(manifest, sha256);
    let remembered = remembered(manifest.resource, &object).to_string();
    object["metadata"]["annotations"][LAST_APPLIED] = remembered.into();
    object
}

/// What the manifest says and no more.
pub fn declared(manifest: &Manifest, sha256: Option<&str>) -> Value {
    let mut object = manifest.document.value.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| !SET_BY_SERVER.contains(&key.as_str()));
        if let Some(namespace) = &manifest.namespace {
            metadata.insert("namespace".into(), namespace.as_str().into());
        }
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
        }
    }
    if let Some(sha256) = sha256 {
        object["spec"]["artifact"] = json!({ "sha256": sha256 });
    }
    if manifest.resource == Resource::Secret {
        encode_string_data(&mut object);
    }
    object
}

/// The manifest that was applied last, as the live object's annotation remembers it.
pub fn last_applied(live: &Value) -> Option<Value> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(text).ok()
}

/// What the annotation holds. It serves to find removed fields, for which the keys of data are
/// enough: secrets must not be copied where they are not looked for, and large ones wouldn't fit.
fn remembered(resource: Resource, object: &Value) -> Value {
    let mut object = object.clone();
    if matches!(resource, Resource::Secret | Resource::ConfigMap) {
        for field in ["data", "binaryData"] {
            for (_, value) in object
                .get_mut(field)
                .and_then(Value::as_object_mut)
                .into_iter()
                .flatten()
            {
                *value = "".into();
            }
        }
    }
    object
}

/// `stringData` becomes `data`, as the server would do; otherwise a key that leaves stringData
/// would not be seen to be gone.
fn encode_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret
        .as_object_mut()
        .and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    let data = secret
        .as_object_mut()
        .map(|fields| fields.entry("data").or_insert_with(|| Map::new().into()));
    if let Some(Value::Object(data)) = data {
        for (key, text) in texts {
            let encoded = BASE64.encode(text.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use hive_manifests::document;

    use super::*;

    fn manifest(resource: Resource, value: Value) -> Manifest {
        Manifest {
            resource,
            namespace: Some("default".into()),
            document: document::parse(&value.to_string(), "x").unwrap().remove(0),
            directory: PathBuf::new(),
        }
    }

    #[test]
    fn secrets_are_not_copied_into_the_annotation() {
        let secret = manifest(
            Resource::Secret,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
                   "data": {"a": "b2xk"}, "stringData": {"b": "hunter2"}}),
        );
        let object = of(&secret, None);
        assert_eq!(object["data"], json!({"a": "b2xk", "b": "aHVudGVyMg=="}));
        assert_eq!(object.get("stringData"), None);
        assert_eq!(
            last_applied(&object).unwrap()["data"],
            json!({"a": "", "b": ""})
        );
    }

    #[test]
    fn a_printed_object_can_be_applied() {
        let function = manifest(
            Resource::Function,
            json!({"apiVersion": "hive.dev/v1", "kind": "Function",
                   "metadata": {"name": "f", "uid": "1", "resourceVersion": "7", "generation": 2,
                                "annotations": {LAST_APPLIED: "{}", "mine": "x"}},
                   "spec": {"artifact": {"path": "a.wasm"}}, "status": {"replicas": 1}}),
        );
        let object = of(&function, Some("abc"));
        let remembered = last_applied(&object).unwrap();
        assert_eq!(
            remembered,
            json!({"apiVersion": "hive.dev/v1", "kind": "Function",
                   "metadata": {"name": "f", "namespace": "default", "annotations": {"mine": "x"}},
                   "spec": {"artifact": {"sha256": "abc"}}})
        );
        assert_eq!(object["metadata"]["annotations"]["mine"], "x");
        assert_eq!(object["metadata"].get("resourceVersion"), None);
    }
}
