//! Uploading artifacts by digest, and asking whether one is here.
//!
//! Bytes stream through to [`Artifacts`](crate::artifacts::Artifacts), which verifies and replicates
//! them; nothing is held here.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::errors::{ApiError, error_chain};
use super::limits::content_length;
use super::respond;
use super::{Api, Call};
use crate::artifacts::{Digest, ReceiveError, UploadError};
use hive_manifests::function::MAX_COMPONENT_BYTES;

pub(super) async fn serve(
    context: &Api,
    digest: &str,
    call: Call,
    body: Body,
) -> Result<Response, ApiError> {
    let digest: Digest = digest
        .parse()
        .map_err(|error: crate::artifacts::BadDigest| ApiError::BadRequest(error.to_string()))?;
    match call.method {
        Method::HEAD | Method::GET => describe(context, &digest).await,
        Method::PUT => upload(context, &digest, &call, body).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// What is known of an artifact: its size, never its bytes.
async fn describe(context: &Api, digest: &Digest) -> Result<Response, ApiError> {
    let hex = digest.hex();
    let mut state = context.replica.state();
    if state.artifact(&hex).is_none() {
        state = context.newest().await?;
    }
    let record = state
        .artifact(&hex)
        .ok_or_else(|| ApiError::Absent(format!("artifact {digest} is not on the controllers")))?;
    answer(StatusCode::OK, digest, record.size)
}

async fn upload(
    context: &Api,
    digest: &Digest,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let _permit = context.permits.stream()?;
    let announced = content_length(&call.headers);
    if announced.is_some_and(|length| length > MAX_COMPONENT_BYTES) {
        return Err(too_large());
    }
    let received = context
        .artifacts
        .upload(&digest.hex(), body.into_data_stream())
        .await
        .map_err(upload_error)?;
    let code = if received.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    answer(code, digest, received.size)
}

fn answer(code: StatusCode, digest: &Digest, size: u64) -> Result<Response, ApiError> {
    let body = json!({ "sha256": digest.hex(), "size": size });
    let mut response = respond::json(code, &body)?;
    response
        .headers_mut()
        .insert("x-hive-artifact-size", HeaderValue::from(size));
    Ok(response)
}

fn too_large() -> ApiError {
    ApiError::TooLarge(format!(
        "the artifact is larger than {MAX_COMPONENT_BYTES} bytes ({} MiB), which is the limit for one",
        MAX_COMPONENT_BYTES >> 20
    ))
}

fn upload_error(error: UploadError) -> ApiError {
    match error {
        UploadError::Digest(error) => ApiError::BadRequest(error.to_string()),
        UploadError::Receive(ReceiveError::TooLarge { .. }) => too_large(),
        UploadError::Receive(
            error @ (ReceiveError::Mismatch { .. } | ReceiveError::Interrupted(_)),
        ) => ApiError::BadRequest(error_chain(&error)),
        UploadError::Receive(error @ ReceiveError::Io { .. }) => ApiError::internal(error),
        error @ UploadError::NoMajority { .. } => ApiError::Unavailable(error.to_string()),
        UploadError::Register(error) => ApiError::replicating(error),
    }
}
