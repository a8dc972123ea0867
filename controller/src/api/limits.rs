//! How much of everything a request, or all of them together, may take.
//!
//! Overload is answered with 429 at once; nothing here queues.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::ApiError;

/// Bytes of a request's body that declares an object. An object may have 1 MiB; a patch or an
/// object with its last-applied annotation and indentation is some times that. As Kubernetes has it.
pub(super) const MAX_OBJECT_REQUEST_BYTES: usize = 3 << 20;

/// Bytes of a path with its query: selectors get long, objects don't belong there.
const MAX_URI_BYTES: usize = 8 << 10;

/// Bytes of all headers of one request, names included. A bearer token is 70 bytes.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// Requests answered at once. Each may hold a body of [`MAX_OBJECT_REQUEST_BYTES`] and its parsed
/// form: some 10 MB at worst, and then 64 are what a controller with 1 GB survives.
const CONCURRENT_REQUESTS: usize = 64;

/// Watches, followed logs, uploads and proxied requests under way at once. A watch costs a task and
/// some KB, since it reads the shared history and queues nothing.
const CONCURRENT_STREAMS: usize = 1024;

/// Lookups of unknown tokens that may ask the leader at once. A token made on another controller
/// an instant ago is not known here yet; a flood of wrong ones must not reach the leader.
const CONCURRENT_UNKNOWN_TOKENS: usize = 8;

/// Counts what is under way, short and long requests apart so that neither starves the other.
#[derive(Clone)]
pub(super) struct Permits {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    unknown_tokens: Arc<Semaphore>,
}

/// Held as long as a request is under way.
pub(super) type Permit = OwnedSemaphorePermit;

impl Default for Permits {
    fn default() -> Self {
        Self::new(CONCURRENT_REQUESTS, CONCURRENT_STREAMS)
    }
}

impl Permits {
    fn new(requests: usize, streams: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            streams: Arc::new(Semaphore::new(streams)),
            unknown_tokens: Arc::new(Semaphore::new(CONCURRENT_UNKNOWN_TOKENS)),
        }
    }

    pub fn request(&self) -> Result<Permit, ApiError> {
        self.requests
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded("requests"))
    }

    pub fn stream(&self) -> Result<Permit, ApiError> {
        self.streams
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded("watches and streams"))
    }

    /// `None` when enough others ask already.
    pub fn unknown_token(&self) -> Option<Permit> {
        self.unknown_tokens.clone().try_acquire_owned().ok()
    }
}

/// Refuses a request whose head alone is unreasonable.
pub(super) fn check_head(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let uri_bytes = uri.path().len() + uri.query().map_or(0, str::len);
    if uri_bytes > MAX_URI_BYTES {
        return Err(ApiError::TooLarge(format!(
            "the URL has {uri_bytes} bytes; the limit is {MAX_URI_BYTES}"
        )));
    }
    let header_bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if header_bytes > MAX_HEADER_BYTES {
        return Err(ApiError::TooLarge(format!(
            "the headers have {header_bytes} bytes; the limit is {MAX_HEADER_BYTES}"
        )));
    }
    Ok(())
}

/// What the client says its body's size is.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The body of a request that declares an object: refused before it is read if it says that it is
/// too large, and while it is read if it turns out to be.
pub(super) async fn object_body(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let too_large = |found: String| {
        ApiError::TooLarge(format!(
            "the manifest {found}; the limit for one request is {MAX_OBJECT_REQUEST_BYTES} bytes (3 MiB): \
             large content belongs into the artifact"
        ))
    };
    if let Some(length) = content_length(headers)
        && length > MAX_OBJECT_REQUEST_BYTES as u64
    {
        return Err(too_large(format!("has {length} bytes")));
    }
    match Limited::new(body, MAX_OBJECT_REQUEST_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large("is longer".to_owned())),
        Err(error) => Err(ApiError::BadRequest(format!(
            "the request's body ended early: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_requests_are_counted_apart() {
        let permits = Permits::new(1, 1);
        let request = permits.request();
        assert!(request.is_ok());
        assert!(matches!(permits.request(), Err(ApiError::Overloaded(_))));
        assert!(permits.stream().is_ok());
        drop(request);
        assert!(permits.request().is_ok());
    }
}
