//! Requests to a function through the API, for those who reach no ingress.
//!
//! They take the ingress' way to a ready copy. The caller's credentials stay here: a function must
//! never see a token of the API.

use axum::body::Body;
use axum::response::Response;
use http::uri::PathAndQuery;
use http::{Request, Uri, header};
use http_body_util::BodyExt;

use super::Api;
use super::errors::ApiError;
use super::path::{ObjectPath, Subresource};
use crate::gateway::BoxError;

pub(super) async fn serve(
    context: &Api,
    path: ObjectPath,
    mut request: Request<Body>,
) -> Result<Response, ApiError> {
    let permit = context.permits.stream()?;
    let key = path.key().ok_or(ApiError::NoSuchPath)?;
    context.find(&key).await?;
    let Some(Subresource::Proxy(inner)) = path.subresource else {
        return Err(ApiError::NoSuchPath);
    };
    *request.uri_mut() = inner_uri(request.uri(), &inner)?;
    request.headers_mut().remove(header::AUTHORIZATION);
    let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
    let response = context.forwarder.by_name(&key, request).await;
    Ok(response.map(|body| {
        // Counted until the function's answer has been read.
        Body::new(body.map_frame(move |frame| {
            let _counted = &permit;
            frame
        }))
    }))
}

/// The function's own path and query, at the same host.
fn inner_uri(outer: &Uri, path: &str) -> Result<Uri, ApiError> {
    let text = match outer.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let inner: PathAndQuery = text.parse().map_err(|error| {
        ApiError::BadRequest(format!("the function's path can't be read: {error}"))
    })?;
    let mut parts = outer.clone().into_parts();
    parts.path_and_query = Some(inner);
    Uri::from_parts(parts).map_err(|error| {
        ApiError::BadRequest(format!("the function's path can't be read: {error}"))
    })
}
