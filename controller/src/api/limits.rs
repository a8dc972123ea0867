//! How much of everything a request, or all of them together, may take.
//!
//! Requests are answered by priority and in turns ([`fairness`]); what lasts is counted. Overload is
//! answered with 429 and when to come back.

mod crowd;
mod fairness;
mod seats;

use std::fmt::Write as _;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::ApiError;
use crate::access::user::UserInfo;
use crowd::Crowd;
use fairness::Standing;
use seats::Seats;

pub(super) use crowd::Place;
pub(super) use seats::{Level, Seat};

/// Bytes of a request's body that declares an object. An object may have 1 MiB; a patch or an
/// object with its last-applied annotation and indentation is some times that. As Kubernetes has it.
pub(super) const MAX_OBJECT_REQUEST_BYTES: usize = 3 << 20;

/// Bytes of a path with its query: selectors get long, objects don't belong there.
const MAX_URI_BYTES: usize = 8 << 10;

/// Bytes of all headers of one request, names included. A bearer token is 70 bytes.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// Followed logs, uploads and proxied requests under way at once: some 64 KB each.
const CONCURRENT_STREAMS: usize = 1024;

/// Watches under way at once: 80 MB at 10 KB each, as a controller with 1 GB can spare.
const CONCURRENT_WATCHES: usize = 8192;

/// Watches of one user: others find room whatever he does, and 5,000 of one fit.
const WATCHES_OF_ONE: usize = 6144;

/// Lookups of unknown tokens that may ask the leader at once. A token made on another controller
/// an instant ago is not known here yet; a flood of wrong ones must not reach the leader.
const CONCURRENT_UNKNOWN_TOKENS: usize = 8;

/// Counts what is under way, short and long requests apart so that neither starves the other.
#[derive(Clone)]
pub(super) struct Permits {
    seats: Seats,
    watches: Crowd,
    streams: Arc<Semaphore>,
    unknown_tokens: Arc<Semaphore>,
}

/// Held as long as a stream is under way.
pub(super) type Permit = OwnedSemaphorePermit;

impl Default for Permits {
    fn default() -> Self {
        Self {
            seats: Seats::default(),
            watches: Crowd::new("watches", CONCURRENT_WATCHES, WATCHES_OF_ONE),
            streams: Arc::new(Semaphore::new(CONCURRENT_STREAMS)),
            unknown_tokens: Arc::new(Semaphore::new(CONCURRENT_UNKNOWN_TOKENS)),
        }
    }
}

impl Permits {
    /// To be answered: at once, or when it is this user's turn.
    pub async fn request(&self, user: &UserInfo) -> Result<Seat, ApiError> {
        self.seats.take(user).await
    }

    pub fn watch(&self, user: &UserInfo) -> Result<Place, ApiError> {
        self.watches.enter(&user.name)
    }

    pub fn stream(&self) -> Result<Permit, ApiError> {
        self.streams
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded("streams"))
    }

    /// How it stands, for `/metrics`.
    pub fn write(&self, out: &mut String) {
        let levels = self.seats.standing();
        let _ = writeln!(
            out,
            "# HELP hive_flowcontrol_priority_level_info What answers call a priority level.\n\
             # TYPE hive_flowcontrol_priority_level_info gauge"
        );
        for (name, uid) in Level::named() {
            let _ = writeln!(
                out,
                "hive_flowcontrol_priority_level_info{{priority_level=\"{name}\",uid=\"{uid}\"}} 1"
            );
        }
        let mut by_level = |name: &str, kind: &str, help: &str, of: fn(&Standing) -> u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for level in &levels {
                let _ = writeln!(
                    out,
                    "{name}{{priority_level=\"{}\"}} {}",
                    level.name,
                    of(level)
                );
            }
        };
        by_level(
            "apiserver_flowcontrol_current_executing_seats",
            "gauge",
            "Requests being answered, by priority level.",
            |level| level.busy as u64,
        );
        by_level(
            "apiserver_flowcontrol_current_inqueue_requests",
            "gauge",
            "Requests waiting for their turn.",
            |level| level.waiting as u64,
        );
        by_level(
            "apiserver_flowcontrol_rejected_requests_total",
            "counter",
            "Requests refused because too many waited.",
            |level| level.refused,
        );
        let _ = writeln!(
            out,
            "# HELP apiserver_longrunning_requests Watches and streams under way.\n\
             # TYPE apiserver_longrunning_requests gauge\n\
             apiserver_longrunning_requests{{verb=\"WATCH\"}} {}\n\
             apiserver_longrunning_requests{{verb=\"CONNECT\"}} {}",
            self.watches.total(),
            CONCURRENT_STREAMS - self.streams.available_permits()
        );
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
