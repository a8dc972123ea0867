//! Server-side apply: a manager declares what it wants, and owns just that.
//!
//! What a declaration means is decided in `merge`; here it becomes a creation or an update like any
//! other, admitted and written by compare-and-swap.

use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use hive_manifests::Resource;
use http::StatusCode;
use serde_json::{Value, json};

use super::super::auth;
use super::super::errors::ApiError;
use super::super::limits::object_body;
use super::super::media::{Sent, parse_declaration};
use super::super::metadata::ownership::{self, Ownership};
use super::super::metadata::{self, Part};
use super::super::path::ObjectPath;
use super::super::respond;
use super::super::{Api, Call};
use super::write::{ATTEMPTS, Options, Proposal, Written, create_once, modify, part};
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::objects;
use crate::state::{Key, Object};

/// `force` says something of an apply only.
pub(super) fn refuse_force(call: &Call) -> Result<(), ApiError> {
    match call.query.force {
        None => Ok(()),
        Some(_) => Err(ApiError::option(
            "PatchOptions",
            "force",
            "FieldValueForbidden",
            "Forbidden: may not be specified for non-apply patch",
        )),
    }
}

/// The body of an apply. Who applies must say who they are.
pub(super) async fn declaration(call: &Call, body: Body) -> Result<Sent, ApiError> {
    if call.query.field_manager.is_none() {
        return Err(ApiError::option(
            "PatchOptions",
            "fieldManager",
            "FieldValueRequired",
            "Required value: is required for apply patch",
        ));
    }
    let body = object_body(&call.headers, body).await?;
    parse_declaration(&body)
}

/// Makes the object as its manager declares it, if need be a new one.
pub(super) async fn apply(
    context: &Api,
    path: &ObjectPath,
    key: &Key,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let (shape, options) = (call.shape()?, Options::of(call, path.subresource.as_ref())?);
    let mut declared = declaration(call, body).await?;
    declared.value = path.conform(declared.value)?;
    refuse_in_declaration(&declared.value)?;
    if key.resource == Resource::Secret {
        metadata::merge_string_data(&mut declared.value);
    }
    let force = call.query.force.unwrap_or_default();
    let repeated = &declared.repeated;
    for _ in 0..ATTEMPTS {
        let (code, result) = match context.find(key).await {
            Ok(_) => {
                let change = |current: &Object| {
                    let (body, declared) = (current.body(), &declared.value);
                    let repeated = repeated.clone();
                    let proposal = declared_over(key, body, declared, options, part(path), force)?;
                    Ok(Proposal {
                        repeated,
                        ..proposal
                    })
                };
                let result = modify(context, key, part(path), options, change).await;
                (StatusCode::OK, result)
            }
            Err(ApiError::NotFound { .. }) if path.subresource.is_none() => {
                let result = apply_new(context, path, key, &declared, options).await;
                (StatusCode::CREATED, result)
            }
            Err(error) => return Err(error),
        };
        match result {
            // Somebody created or deleted it since it was looked for.
            Err(ApiError::AlreadyExists { .. } | ApiError::NotFound { .. })
                if path.subresource.is_none() && is_about(&result, key) => {}
            result => {
                let (written, warnings) = result?;
                return Ok(respond::warn(written.respond(code, shape), &warnings));
            }
        }
    }
    Err(ApiError::modified(key))
}

/// Whether an error is about this object, and not about its namespace.
fn is_about(result: &Result<(Written, Vec<String>), ApiError>, key: &Key) -> bool {
    matches!(
        result,
        Err(ApiError::AlreadyExists { resource, .. } | ApiError::NotFound { resource, .. })
            if *resource == key.resource
    )
}

fn refuse_in_declaration(declared: &Value) -> Result<(), ApiError> {
    let metadata = &declared["metadata"];
    let managed = &metadata["managedFields"];
    if !managed.is_null() && managed.as_array().is_none_or(|list| !list.is_empty()) {
        return Err(ApiError::BadRequest(
            "metadata.managedFields must be nil".into(),
        ));
    }
    if metadata["generateName"]
        .as_str()
        .is_some_and(|prefix| !prefix.is_empty())
    {
        return Err(ApiError::BadRequest(
            "metadata.generateName: an apply is about the object of one name: remove it".into(),
        ));
    }
    Ok(())
}

/// What a declaration makes of an object that is there.
pub(super) fn declared_over(
    key: &Key,
    current: &Value,
    declared: &Value,
    options: Options<'_>,
    part: Part,
    force: bool,
) -> Result<Proposal, ApiError> {
    let now = objects::timestamp(SystemTime::now());
    let author = options.author(&now);
    let applied = ownership::apply(key, current, declared, author, part, force)?;
    let mut body = applied.object;
    // Preconditions, if the declaration names them.
    for field in ["uid", "resourceVersion"] {
        if let Some(wanted) = declared["metadata"].get(field) {
            body["metadata"][field] = wanted.clone();
        }
    }
    Ok(Proposal {
        body,
        repeated: Vec::new(),
        ownership: Ownership::Declared(applied.managers),
    })
}

async fn apply_new(
    context: &Api,
    path: &ObjectPath,
    key: &Key,
    declared: &Sent,
    options: Options<'_>,
) -> Result<(Written, Vec<String>), ApiError> {
    let Sent {
        value: declared,
        repeated,
    } = declared;
    let metadata = &declared["metadata"];
    if let Some(uid) = metadata["uid"].as_str().filter(|uid| !uid.is_empty()) {
        return Err(ApiError::conflict(
            key,
            format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            ),
        ));
    }
    if metadata["resourceVersion"]
        .as_str()
        .is_some_and(|version| !version.is_empty())
    {
        return Err(ApiError::not_found(key));
    }
    // Who may patch may not therefore create.
    let creating = Attributes::Resource(ResourceAttributes {
        verb: "create",
        group: key.resource.group(),
        resource: key.resource.plural(),
        subresource: None,
        namespace: path.namespace.as_deref(),
        name: Some(&key.name),
    });
    auth::authorize(context, options.user, &creating).await?;
    let blank = path.conform(json!({}))?;
    let proposal = Proposal {
        repeated: repeated.clone(),
        ..declared_over(key, &blank, declared, options, Part::Main, false)?
    };
    create_once(context, key.resource, proposal, options).await
}
