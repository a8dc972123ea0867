//! Rules about apiVersion, kind and metadata, the same for every kind but for the form of its name.

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::{FieldError, Reason, names, owners, suggest};
use crate::{FieldPath, Resource};

/// Kubernetes' limit for all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The resource that a manifest's `apiVersion` and `kind` name.
pub fn resource_of(value: &Value) -> Result<Resource, FieldError> {
    let text = |name: &str| {
        let path = FieldPath::of([name]);
        match value.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            None | Some(Value::Null) => Err(error(path, Reason::Required, "required, but missing")),
            Some(_) => Err(error(path, Reason::WrongType, "expected text")),
        }
    };
    if !value.is_object() {
        return Err(error(
            FieldPath::root(),
            Reason::WrongType,
            "expected an object with apiVersion, kind and metadata",
        ));
    }
    let api_version = text("apiVersion")?;
    let kind = text("kind")?;
    if let Some(resource) = Resource::ALL
        .into_iter()
        .find(|r| r.api_version() == api_version && r.kind() == kind)
    {
        return Ok(resource);
    }
    // The kind is what people mean; a wrong apiVersion is then the smaller mistake.
    if let Some(resource) = Resource::ALL.into_iter().find(|r| r.kind() == kind) {
        return Err(FieldError {
            suggestion: Some(resource.api_version().into()),
            ..error(
                FieldPath::of(["apiVersion"]),
                Reason::Invalid,
                format!("{} has no kind {kind}", quoted(api_version)),
            )
        });
    }
    let kinds = || Resource::ALL.into_iter().map(Resource::kind);
    Err(FieldError {
        suggestion: suggest::nearest(kind, kinds()).map(str::to_owned),
        ..error(
            FieldPath::of(["kind"]),
            Reason::Invalid,
            format!("unknown kind {}", quoted(kind)),
        )
    })
}

fn error(path: FieldPath, reason: Reason, message: impl Into<String>) -> FieldError {
    FieldError {
        path,
        reason,
        message: message.into(),
        suggestion: None,
    }
}

pub(super) fn check(resource: Resource, value: &Value, findings: &mut Findings) {
    for (name, expected) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind()),
    ] {
        let path = FieldPath::of([name]);
        match value.get(name) {
            None | Some(Value::Null) => findings.required(&path),
            Some(Value::String(text)) if text != expected => {
                findings.invalid(
                    &path,
                    format!("expected {expected}, found {}", quoted(text)),
                );
            }
            Some(_) => {}
        }
    }
    let path = FieldPath::of(["metadata"]);
    let Some(metadata) = value.get("metadata").and_then(Value::as_object) else {
        // Something other than an object is reported by the schema.
        if value.get("metadata").is_none_or(Value::is_null) {
            findings.required(&path);
        }
        return;
    };
    check_name(resource, metadata, &path, findings);
    check_namespace(resource, metadata, &path, findings);
    if let Some(labels) = metadata.get("labels").and_then(Value::as_object) {
        check_labels(labels, &path.field("labels"), findings);
    }
    if let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) {
        check_annotations(annotations, &path.field("annotations"), findings);
    }
    if let Some(references) = metadata.get("ownerReferences").and_then(Value::as_array) {
        owners::check(references, &path.field("ownerReferences"), findings);
    }
    let finalizers = metadata.get("finalizers").and_then(Value::as_array);
    for (index, finalizer) in finalizers.into_iter().flatten().enumerate() {
        if let Some(text) = finalizer.as_str()
            && let Err(why) = names::qualified(text)
        {
            let path = path.field("finalizers").index(index);
            findings.invalid(&path, format!("{} is not a name: {why}", quoted(text)));
        }
    }
}

fn check_name(
    resource: Resource,
    metadata: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let form = match resource {
        // Parts of host names: <function or tunnel>.<namespace>.<domain>; nodes are named in certificates.
        Resource::Namespace | Resource::Function | Resource::Tunnel | Resource::Node => {
            names::dns_label
        }
        Resource::ServiceAccount
        | Resource::Secret
        | Resource::ConfigMap
        | Resource::ResourceQuota
        | Resource::LimitRange
        | Resource::CertificateSigningRequest
        | Resource::Event
        | Resource::ControllerRevision
        | Resource::Assignment => names::dns_subdomain,
        // `system:node` is one: colons are how Kubernetes groups them.
        Resource::ClusterRole
        | Resource::ClusterRoleBinding
        | Resource::Role
        | Resource::RoleBinding => names::path_segment,
    };
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    match (text("name"), text("generateName")) {
        (Some(name), _) if !name.is_empty() => {
            if let Err(why) = form(name) {
                let message = format!("{} is not a name: {why}", quoted(name));
                findings.invalid(&path.field("name"), message);
            }
        }
        (_, Some(prefix)) if !prefix.is_empty() => {
            // The API appends letters and digits.
            if let Err(why) = form(&format!("{prefix}x")) {
                let message = format!("{} cannot begin a name: {why}", quoted(prefix));
                findings.invalid(&path.field("generateName"), message);
            }
        }
        _ => {
            if metadata
                .get("name")
                .is_none_or(|name| name.is_null() || name == "")
            {
                findings.required(&path.field("name"));
            }
        }
    }
}

fn check_namespace(
    resource: Resource,
    metadata: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let Some(namespace) = metadata.get("namespace").and_then(Value::as_str) else {
        return;
    };
    let path = path.field("namespace");
    if !resource.namespaced() && !namespace.is_empty() {
        findings.forbidden(
            &path,
            format!("a {} belongs to no namespace", resource.kind()),
        );
    } else if resource.namespaced()
        && !namespace.is_empty()
        && let Err(why) = names::dns_label(namespace)
    {
        findings.invalid(&path, format!("{} is not a name: {why}", quoted(namespace)));
    }
}

/// Labels, and what selects by them.
pub(super) fn check_labels(labels: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    for (key, value) in labels {
        if let Err(why) = names::qualified(key) {
            let message = format!("{} is not the key of a label: {why}", quoted(key));
            findings.invalid(path, message);
        }
        if let Some(text) = value.as_str()
            && let Err(why) = names::label_value(text)
        {
            let message = format!("{} is not the value of a label: {why}", quoted(text));
            findings.invalid(&path.field(key), message);
        }
    }
}

fn check_annotations(annotations: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Err(why) = names::qualified(key) {
            let message = format!("{} is not the key of an annotation: {why}", quoted(key));
            findings.invalid(path, message);
        }
    }
    if size > MAX_ANNOTATION_BYTES {
        findings.invalid(
            path,
            format!("annotations take {size} bytes; at most {MAX_ANNOTATION_BYTES} are kept"),
        );
    }
}
