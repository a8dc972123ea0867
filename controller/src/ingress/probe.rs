//! How the leader finds out whether a public name leads to an ingress of this swarm: a request carries a nonce, and
//! whoever answers for it without having passed an ingress does not say it again.

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use super::repeat::full;
use crate::gateway::Body;

/// In requests the nonce, and in what an ingress answers the same.
pub const PROBE: HeaderName = HeaderName::from_static("x-hive-probe");

/// Longer ones are no nonces, and need not be said again. Bytes.
const LONGEST: usize = 64;

/// The nonce that the answer is to carry, if the request asks for that.
pub fn nonce<B>(request: &Request<B>) -> Option<HeaderValue> {
    let nonce = request.headers().get(PROBE)?;
    (nonce.len() <= LONGEST).then(|| nonce.clone())
}

/// What is said in place of a function that would answer.
pub fn leads_here() -> Response<Body> {
    let mut response = Response::new(full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
