//! The `/scale` of a Function: how many copies, apart from everything else.

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use super::super::errors::ApiError;
use super::super::limits::object_body;
use super::super::media::{PatchKind, parse_body};
use super::super::metadata::{self, Part};
use super::super::patch::Patch;
use super::super::path::Subresource;
use super::super::respond;
use super::super::{Api, Call};
use super::apply::{declaration, declared_over, refuse_force};
use super::write::{Options, Proposal, modify};
use crate::state::{Key, Object};

pub(super) async fn serve(
    context: &Api,
    key: &Key,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let options = Options::of(call, Some(&Subresource::Scale))?;
    let written = match call.method {
        Method::GET | Method::HEAD => {
            let state = context.state_at_least(call.query.resource_version).await?;
            let object = state.get(key).ok_or_else(|| ApiError::not_found(key))?;
            return respond::json(StatusCode::OK, &scale(object.body()));
        }
        Method::PUT => {
            let body = object_body(&call.headers, body).await?;
            let sent = parse_body(&call.headers, &body)?;
            modify(context, key, Part::Main, options, |current| {
                scaled(key, current, sent.clone()).map(Proposal::changed)
            })
            .await?
        }
        Method::PATCH => {
            let kind = PatchKind::sent(&call.headers)?;
            if kind == PatchKind::Apply {
                return apply(context, key, call, options, body).await;
            }
            refuse_force(call)?;
            let body = object_body(&call.headers, body).await?;
            let (patch, _) = Patch::parse(kind, key.resource, &body)?;
            modify(context, key, Part::Main, options, |current| {
                let mut wanted = scale(current.body());
                patch
                    .apply(&mut wanted)
                    .map_err(|message| metadata::invalid(key, "", "FieldValueInvalid", message))?;
                scaled(key, current, wanted).map(Proposal::changed)
            })
            .await?
        }
        _ => return Err(ApiError::MethodNotAllowed),
    };
    respond::json(StatusCode::OK, &scale(written.0.body()))
}

/// The number of copies as its manager declares it. It is the Function's field that is owned.
async fn apply(
    context: &Api,
    key: &Key,
    call: &Call,
    options: Options<'_>,
    body: Body,
) -> Result<Response, ApiError> {
    let wanted = declaration(call, body).await?.value;
    let force = call.query.force.unwrap_or_default();
    let (written, _) = modify(context, key, Part::Main, options, |current| {
        let scaled = scaled(key, current, wanted.clone())?;
        let declared = json!({
            "metadata": { "resourceVersion": scaled["metadata"]["resourceVersion"] },
            "spec": { "replicas": scaled["spec"]["replicas"] },
        });
        declared_over(key, current.body(), &declared, options, Part::Main, force)
    })
    .await?;
    respond::json(StatusCode::OK, &scale(written.body()))
}

/// A Function seen as a Scale.
fn scale(function: &Value) -> Value {
    let metadata = &function["metadata"];
    let (spec, status) = (&function["spec"], &function["status"]);
    let wanted = match spec["autoscaling"].is_object() && spec["replicas"].is_null() {
        true => status["replicas"].as_u64(),
        false => spec["replicas"].as_u64(),
    };
    let mut seen = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": wanted.unwrap_or(0) },
        "status": { "replicas": function["status"]["replicas"].as_u64().unwrap_or(0) },
    });
    if let Some(selector) = function["status"]["selector"].as_str() {
        seen["status"]["selector"] = json!(selector);
    }
    seen
}

/// The Function with as many copies as a Scale wants.
fn scaled(key: &Key, current: &Object, wanted: Value) -> Result<Value, ApiError> {
    let wanted: Scale = serde_json::from_value(wanted)
        .map_err(|error| ApiError::BadRequest(format!("the body is not a Scale: {error}")))?;
    let mut body = current.body().clone();
    if body["spec"]["everyNode"] == true {
        return Err(metadata::invalid(
            key,
            "spec.everyNode",
            "FieldValueForbidden",
            "the function runs on every node: it has no number of replicas to set".into(),
        ));
    }
    // As Kubernetes has it: no number is zero.
    body["spec"]["replicas"] = json!(wanted.spec.and_then(|spec| spec.replicas).unwrap_or(0));
    let revision = wanted.metadata.resource_version;
    body["metadata"]["resourceVersion"] = json!(revision.filter(|text| !text.is_empty()));
    Ok(body)
}
