//! What an object must be before it is proposed: complete, valid, in a living namespace, and for a
//! Function, about a component that the controllers hold and can run.

mod autoscaling;
mod later_fields;
mod limit_ranges;

use std::fmt::Display;

use hive_functions::{InspectError, InspectLimits};
use hive_manifests::quantity::Bytes;
use hive_manifests::validate::{FieldError, Reason, validate_stored};
use hive_manifests::{FieldPath, Resource, Segment};
use serde_json::Value;

use super::Api;
use super::errors::{ApiError, Cause, error_chain};
use super::metadata::{invalid, merge_string_data};
use super::query::FieldValidation;
use crate::access::tokens::{SYSTEM_NAMESPACE, TOKEN_TYPE, Token};
use crate::artifacts::InspectArtifactError;
use crate::state::{Key, Object, State, level};

/// Fills what was left out and says what is wrong. `repeated` are fields that the client named more
/// than once. Returns warnings.
pub(super) fn complete(
    state: &State,
    key: &Key,
    body: &mut Value,
    repeated: &[FieldPath],
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    if key.resource == Resource::Secret {
        merge_string_data(body);
        if body["type"].as_str().is_none_or(str::is_empty) {
            body["type"] = "Opaque".into();
        }
    }
    // Before the defaults: a name that they have filled in is no longer suggested for a misspelt one.
    let (unknown, wrong): (Vec<FieldError>, Vec<FieldError>) = validate_stored(key.resource, body)
        .into_iter()
        .partition(|error| error.reason == Reason::Unknown);
    let strictly: Vec<Cause> = unknown
        .iter()
        .map(cause)
        .chain(repeated.iter().map(named_twice))
        .collect();
    if validation == FieldValidation::Strict && !strictly.is_empty() {
        return Err(ApiError::Strict {
            resource: key.resource,
            causes: strictly,
        });
    }
    for error in &unknown {
        remove(body, &error.path);
    }
    let warnings = match validation {
        FieldValidation::Warn => strictly.iter().map(Cause::strictly).collect(),
        FieldValidation::Strict | FieldValidation::Ignore => Vec::new(),
    };
    let mut causes: Vec<Cause> = wrong.iter().map(cause).collect();
    causes.extend(token_problem(key, body));
    if !causes.is_empty() {
        return Err(ApiError::Invalid {
            resource: key.resource,
            name: key.name.clone(),
            causes,
        });
    }
    limit_ranges::fill(state, key, body);
    later_fields::check(state, key, body)?;
    autoscaling::admit(state, key, body);
    hive_manifests::apply_defaults(key.resource, body);
    Ok(warnings)
}

/// Refuses a kind that some controller cannot read yet.
pub(super) fn check_level(state: &State, resource: Resource) -> Result<(), ApiError> {
    if state.level() >= level::of_kind(resource) {
        return Ok(());
    }
    Err(ApiError::Unavailable(format!(
        "{resource} are stored once all controllers run a version that knows of them: \
         `hivectl get controllers` shows what they run"
    )))
}

fn cause(error: &FieldError) -> Cause {
    Cause {
        field: error.path.to_string(),
        reason: match error.reason {
            Reason::Required => "FieldValueRequired",
            Reason::Unknown => "FieldValueUnknown",
            Reason::WrongType => "FieldValueTypeInvalid",
            Reason::Invalid => "FieldValueInvalid",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Forbidden => "FieldValueForbidden",
        },
        message: error.detail(),
    }
}

fn named_twice(path: &FieldPath) -> Cause {
    Cause {
        field: path.to_string(),
        reason: "FieldValueDuplicate",
        message: "duplicate field".into(),
    }
}

/// Removes a field that no schema knows, as Kubernetes prunes.
fn remove(body: &mut Value, path: &FieldPath) {
    let Some((last, parents)) = path.segments().split_last() else {
        return;
    };
    let parent = parents
        .iter()
        .try_fold(body, |value, segment| match segment {
            Segment::Field(name) => value.get_mut(name.as_str()),
            Segment::Index(index) => value.get_mut(*index),
        });
    if let (Some(Value::Object(fields)), Segment::Field(name)) = (parent, last) {
        fields.remove(name.as_str());
    }
}

/// A token that nobody could ever use would be a surprise at the worst time.
fn token_problem(key: &Key, body: &Value) -> Option<Cause> {
    let is_token = key.resource == Resource::Secret
        && key.namespace == SYSTEM_NAMESPACE
        && body["type"] == TOKEN_TYPE;
    let object = Object::new(key.clone(), body.clone(), 0);
    if !is_token || Token::read(&object).is_some() {
        return None;
    }
    Some(Cause {
        field: "data".into(),
        reason: "FieldValueInvalid",
        message: format!(
            "not a token of type {TOKEN_TYPE}: it holds hash, kind (join, controller-join or api), and \
             where they apply role (admin, edit or view), expiry (RFC 3339) and usesLeft; make one with `hivectl token create`"
        ),
    })
}

/// Refuses what would come into being where nothing may.
pub(super) async fn check_namespace(context: &Api, key: &Key) -> Result<(), ApiError> {
    if !key.resource.namespaced() {
        return Ok(());
    }
    let namespace = context
        .find(&Key::new(Resource::Namespace, "", &key.namespace))
        .await?;
    if namespace.is_being_deleted() {
        return Err(ApiError::forbidden(
            key,
            format!(
                "unable to create new content in namespace {} because it is being terminated",
                key.namespace
            ),
        ));
    }
    Ok(())
}

/// What a dry run says about the quotas of a namespace; a real write hears it when it is applied.
pub(super) fn check_quotas(
    context: &Api,
    key: &Key,
    before: Option<&Object>,
    body: &Value,
) -> Result<(), ApiError> {
    let state = context.replica.state();
    state
        .check_quotas(key, before, &body.into())
        .map_err(|exceeded| ApiError::forbidden(key, exceeded))
}

/// Refuses a change by which a host or a port would pass from another namespace: those there were first.
pub(super) fn check_taken(
    context: &Api,
    key: &Key,
    body: &Value,
    before: &Value,
) -> Result<(), ApiError> {
    let refuse = |field: &str, why: &dyn Display| {
        let message = format!("Forbidden: {why}");
        Err(invalid(key, field, "FieldValueForbidden", message))
    };
    if let Some(taken) = context.tunnels.taken_by_change(key, before, body) {
        return refuse("spec.port", &taken);
    }
    let routes = context.forwarder.routes();
    let Some(lost) = routes.taken_by_change(key, before, body) else {
        return Ok(());
    };
    refuse(host_field(body), &lost)
}

/// Where a Function or a Tunnel says its hosts.
pub(super) fn host_field(body: &Value) -> &'static str {
    match body["spec"]["protocol"] == "TLS" {
        true => "spec.serverNames",
        false => "spec.http",
    }
}

/// Refuses a Function that asks for more or less than its namespace lets it, or whose component is
/// not here, is no HTTP component, or needs more than it may have. `before` is the Function that it replaces: what ran already is not inspected again.
pub(super) async fn check_function(
    context: &Api,
    key: &Key,
    body: &Value,
    before: Option<&Value>,
) -> Result<(), ApiError> {
    if key.resource != Resource::Function {
        return Ok(());
    }
    if let Some(why) = limit_ranges::complaint(&context.replica.state(), key, body, before) {
        return Err(ApiError::forbidden(key, why));
    }
    let (artifact, memory) = (
        &body["spec"]["artifact"],
        &body["spec"]["resources"]["memory"],
    );
    if before.is_some_and(|before| {
        before["spec"]["artifact"] == *artifact && before["spec"]["resources"]["memory"] == *memory
    }) {
        return Ok(());
    }
    let refuse = |field: &str, message: String| ApiError::Invalid {
        resource: key.resource,
        name: key.name.clone(),
        causes: vec![Cause {
            field: field.to_owned(),
            reason: "FieldValueInvalid",
            message,
        }],
    };
    const FIELD: &str = "spec.artifact.sha256";
    let pulled = before.map(|before| &before["status"]["artifact"]);
    let named = match (artifact["sha256"].as_str(), pulled) {
        (None, Some(pulled)) if pulled["requested"] == artifact["oci"] => pulled["sha256"].as_str(),
        (named, _) => named,
    };
    let named = match (named, artifact["oci"].is_string()) {
        // Looked into when it is pulled.
        (None, true) => return Ok(()),
        (named, _) => named.unwrap_or_default(),
    };
    let digest: crate::artifacts::Digest = named
        .parse()
        .map_err(|error: crate::artifacts::BadDigest| refuse(FIELD, error.to_string()))?;
    let is_registered = context.replica.state().artifact(&digest.hex()).is_some()
        || context.newest().await?.artifact(&digest.hex()).is_some();
    if !is_registered {
        return Err(refuse(
            FIELD,
            format!(
                "artifact {digest} is not on the controllers: upload it first (hivectl apply does)"
            ),
        ));
    }
    // The validation named it before if it can't be read.
    let max_memory =
        serde_json::from_value::<Bytes>(memory.clone()).map_or(u64::MAX, |limit| limit.0);
    let limits = InspectLimits { max_memory };
    match context.artifacts.inspect(&digest.hex(), limits).await {
        Ok(_) => Ok(()),
        Err(InspectArtifactError::Component(InspectError::Memory { initial, limit })) => {
            Err(refuse(
                "spec.resources.memory",
                format!(
                    "the component starts with {} of memory, more than the {} that it may have",
                    Bytes(initial),
                    Bytes(limit)
                ),
            ))
        }
        Err(InspectArtifactError::Component(error)) => Err(refuse(FIELD, error_chain(&error))),
        Err(InspectArtifactError::Digest(error)) => Err(refuse(FIELD, error.to_string())),
        Err(InspectArtifactError::Fetch(error)) => Err(ApiError::Unavailable(format!(
            "the component can't be read at the moment: {}",
            error_chain(&error)
        ))),
    }
}
