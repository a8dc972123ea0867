//! What the server decides about an object's metadata, status and generation.
//!
//! Pure: a body and what is stored go in, the body to store comes out. Time and random ids are
//! handed in.

pub(super) mod ownership;

use hive_manifests::Resource;
use hive_manifests::resource::GROUP;
use hive_manifests::tunnel::Provider;
use serde_json::{Map, Value, json};

use super::errors::{ApiError, Cause};
use crate::deletion::finalizers;
use crate::state::{Key, Object};

/// What only the server writes; a client's values are dropped.
const DROPPED: &[&str] = &["resourceVersion", "selfLink", "managedFields"];
/// What was settled at the creation or is settled by other requests; an update keeps it.
const KEPT: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// The longest prefix that leaves room for the suffix in a name of 63 characters.
const MAX_GENERATED_PREFIX: usize = 58;

/// What the proposer puts in, so that the rest is deterministic.
pub(super) struct Stamp {
    /// RFC 3339.
    pub now: String,
    pub uid: String,
    /// Appended to `generateName`.
    pub suffix: String,
}

/// Which part of an object a write is about; the rest stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
    /// The conditions of a request for a certificate.
    Approval,
}

/// Fills apiVersion, kind, name and namespace in from the path, and refuses others.
pub(super) fn conform(
    resource: Resource,
    namespace: Option<&str>,
    name: Option<&str>,
    mut value: Value,
) -> Result<Value, ApiError> {
    let object = value
        .as_object_mut()
        .ok_or_else(|| ApiError::BadRequest("the body is not a JSON object".into()))?;
    for (field, expected) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind()),
    ] {
        agree(object, field, expected, "the URL")?;
    }
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| ApiError::BadRequest("metadata is not a JSON object".into()))?;
    match namespace {
        Some(namespace) => agree(metadata, "namespace", namespace, "the URL")?,
        // Clients may say "" for what lies in no namespace.
        None if !resource.namespaced() && metadata.get("namespace") == Some(&json!("")) => {
            metadata.remove("namespace");
        }
        None if !resource.namespaced() && metadata.contains_key("namespace") => {
            return Err(ApiError::BadRequest(format!(
                "{} lie in no namespace: remove metadata.namespace",
                resource.plural()
            )));
        }
        None => {}
    }
    if let Some(name) = name {
        agree(metadata, "name", name, "the URL")?;
    }
    Ok(value)
}

fn agree(
    object: &mut Map<String, Value>,
    field: &str,
    expected: &str,
    origin: &str,
) -> Result<(), ApiError> {
    match object.get(field) {
        None | Some(Value::Null) => {
            object.insert(field.to_owned(), expected.into());
            Ok(())
        }
        Some(Value::String(found)) if found.is_empty() => {
            object.insert(field.to_owned(), expected.into());
            Ok(())
        }
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(ApiError::BadRequest(format!(
            "the {field} in the body ({found}) is not that of {origin} (\"{expected}\")"
        ))),
    }
}

/// The key and the body of a new object.
pub(super) fn prepare_create(
    resource: Resource,
    mut body: Value,
    stamp: &Stamp,
) -> Result<(Key, Value), ApiError> {
    let metadata = body["metadata"]
        .as_object_mut()
        .expect("conform made it an object");
    let name = match text(metadata, "name") {
        Some(name) => name,
        None => match text(metadata, "generateName") {
            Some(prefix) => {
                let cut = prefix
                    .char_indices()
                    .nth(MAX_GENERATED_PREFIX)
                    .map_or(prefix.len(), |(at, _)| at);
                format!("{}{}", &prefix[..cut], stamp.suffix)
            }
            None => {
                return Err(ApiError::Invalid {
                    resource,
                    name: String::new(),
                    causes: vec![Cause {
                        field: "metadata.name".into(),
                        reason: "FieldValueRequired",
                        message: "Required value: name or generateName is required".into(),
                    }],
                });
            }
        },
    };
    for field in DROPPED {
        metadata.remove(*field);
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("name".into(), name.clone().into());
    metadata.insert("uid".into(), stamp.uid.clone().into());
    metadata.insert("creationTimestamp".into(), stamp.now.clone().into());
    if has_generation(resource) {
        metadata.insert("generation".into(), 1.into());
    } else {
        metadata.remove("generation");
    }
    let namespace = text(metadata, "namespace").unwrap_or_default();
    let object = body.as_object_mut().expect("conform made it an object");
    if resource.has_status() {
        object.remove("status");
    }
    if resource == Resource::Namespace {
        object.insert("status".into(), json!({ "phase": "Active" }));
    }
    Ok((Key::new(resource, namespace, name), body))
}

/// The body that replaces `current` when a client wants `proposed`.
pub(super) fn prepare_update(
    current: &Object,
    mut proposed: Value,
    part: Part,
) -> Result<Value, ApiError> {
    let key = current.key();
    let before = current.body();
    let uid = &proposed["metadata"]["uid"];
    if uid
        .as_str()
        .is_some_and(|uid| !uid.is_empty() && uid != current.uid())
    {
        return Err(ApiError::conflict(
            key,
            format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                uid.as_str().unwrap_or_default(),
                current.uid()
            ),
        ));
    }
    if part == Part::Status {
        let mut body = before.clone();
        ownership::take(&mut body);
        replace_field(
            &mut body,
            "status",
            proposed.get_mut("status").map(Value::take),
        );
        return Ok(body);
    }
    if part == Part::Approval {
        let mut body = before.clone();
        ownership::take(&mut body);
        let mut status = before.get("status").cloned().unwrap_or_else(|| json!({}));
        replace_field(
            &mut status,
            "conditions",
            proposed.pointer_mut("/status/conditions").map(Value::take),
        );
        replace_field(&mut body, "status", Some(status));
        return Ok(body);
    }
    let metadata = proposed["metadata"]
        .as_object_mut()
        .expect("conform made it an object");
    for field in DROPPED {
        metadata.remove(*field);
    }
    for field in KEPT {
        match before["metadata"].get(*field) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    if key.resource.has_status() {
        replace_field(&mut proposed, "status", before.get("status").cloned());
    }
    Ok(proposed)
}

/// The last of an update, when `body` is complete: what may never change has not, and the
/// generation follows the spec. Before its defaults a spec would seem to differ.
pub(super) fn settle_update(current: &Object, body: &mut Value) -> Result<(), ApiError> {
    if current.is_being_deleted() {
        refuse_new_finalizers(current, body)?;
    }
    refuse_immutable_changes(current, body)?;
    let before = current.body();
    if has_generation(current.key().resource) && body.get("spec") != before.get("spec") {
        let generation = before["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        body["metadata"]["generation"] = generation.into();
    }
    Ok(())
}

/// Core kinds have no generation in Kubernetes either.
fn has_generation(resource: Resource) -> bool {
    resource.group() == GROUP
}

fn replace_field(body: &mut Value, field: &str, value: Option<Value>) {
    let object = body
        .as_object_mut()
        .expect("a stored or conforming body is an object");
    match value {
        Some(value) if !value.is_null() => object.insert(field.to_owned(), value),
        _ => object.remove(field),
    };
}

fn text(metadata: &Map<String, Value>, field: &str) -> Option<String> {
    metadata
        .get(field)?
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn refuse_new_finalizers(current: &Object, proposed: &Value) -> Result<(), ApiError> {
    let before = finalizers(current.body());
    match finalizers(proposed)
        .into_iter()
        .find(|f| !before.contains(f))
    {
        None => Ok(()),
        Some(new) => Err(invalid(
            current.key(),
            "metadata.finalizers",
            "FieldValueForbidden",
            format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizer {new:?}"
            ),
        )),
    }
}

/// A field of a tunnel; the default is as good as nothing.
fn said<'a>(body: &'a Value, field: &str) -> Option<&'a Value> {
    let value = body.pointer(field)?;
    (!value.is_null() && *value != json!(Provider::default())).then_some(value)
}

/// What nobody may ever change on these kinds.
fn refuse_immutable_changes(current: &Object, proposed: &Value) -> Result<(), ApiError> {
    let before = current.body();
    let fields: &[&str] = match current.key().resource {
        Resource::Secret | Resource::ConfigMap => &["data", "binaryData", "immutable"],
        // Another key would be another machine, and the one that runs would be thrown out.
        Resource::Node if proposed["spec"]["key"] != before["spec"]["key"] => {
            return Err(invalid(
                current.key(),
                "spec.key",
                "FieldValueInvalid",
                "field is immutable: delete the node, and another machine may join by its name"
                    .into(),
            ));
        }
        // What was made elsewhere could not be found again, and would stay.
        Resource::Tunnel => {
            let changed = ["/spec/provider", "/spec/cloudflare/accountId"]
                .into_iter()
                .find(|field| said(proposed, field) != said(before, field));
            return match changed {
                None => Ok(()),
                Some(field) => Err(invalid(
                    current.key(),
                    &field[1..].replace('/', "."),
                    "FieldValueInvalid",
                    "field is immutable: delete the tunnel and create it anew".into(),
                )),
            };
        }
        // What was cannot become something else.
        Resource::ControllerRevision if proposed.get("data") != before.get("data") => {
            return Err(invalid(
                current.key(),
                "data",
                "FieldValueInvalid",
                "field is immutable".into(),
            ));
        }
        _ => return Ok(()),
    };
    if current.key().resource == Resource::Secret && proposed.get("type") != before.get("type") {
        return Err(invalid(
            current.key(),
            "type",
            "FieldValueInvalid",
            "field is immutable: delete the secret and create it with the other type".into(),
        ));
    }
    if before["immutable"] != json!(true) {
        return Ok(());
    }
    match fields
        .iter()
        .find(|field| proposed.get(**field) != before.get(**field))
    {
        None => Ok(()),
        Some(field) => Err(invalid(
            current.key(),
            field,
            "FieldValueForbidden",
            "Forbidden: field is immutable when `immutable` is set".into(),
        )),
    }
}

pub(super) fn invalid(key: &Key, field: &str, reason: &'static str, message: String) -> ApiError {
    ApiError::Invalid {
        resource: key.resource,
        name: key.name.clone(),
        causes: vec![Cause {
            field: field.to_owned(),
            reason,
            message,
        }],
    }
}

/// Merges `stringData` into `data`, as base64. It is write-only: never stored, never shown.
pub(super) fn merge_string_data(body: &mut Value) {
    use base64::Engine as _;
    let Some(object) = body.as_object_mut() else {
        return;
    };
    // Anything but a map of texts is left for the validation to name.
    let is_texts = |value: &Value| {
        value
            .as_object()
            .is_some_and(|map| map.values().all(Value::is_string))
    };
    if !object.get("stringData").is_some_and(is_texts) {
        return;
    }
    let Some(Value::Object(texts)) = object.remove("stringData") else {
        return;
    };
    let data = object.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = json!({});
    }
    let Some(data) = data.as_object_mut() else {
        return;
    };
    for (name, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(
            name,
            base64::engine::general_purpose::STANDARD
                .encode(text)
                .into(),
        );
    }
}

#[cfg(test)]
mod tests;
