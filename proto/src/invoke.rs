//! What the HTTP of an invocation carries besides the request itself: agreed on by the ingress,
//! which sends, and the agents, which answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The largest request body; refused before it travels, and again where it arrives. Bodies stream, so
/// this bounds no memory; it keeps one caller from feeding a guest for ever, and is the least that
/// upload forms of today want. Bytes.
pub const MAX_REQUEST_BODY: u64 = 32 << 20;

/// Names the function that is meant, together with [`FUNCTION`]. Trusted on a link only.
pub const NAMESPACE: HeaderName = HeaderName::from_static("x-hive-namespace");
pub const FUNCTION: HeaderName = HeaderName::from_static("x-hive-function");

/// The version of the function that is meant, where one is being tried. Another answers rather than none.
/// Trusted on a link only.
pub const REVISION: HeaderName = HeaderName::from_static("x-hive-revision");

/// Says that another node may be asked instead, and how many milliseconds a request may wait for its
/// turn before; without it, it may as long as the function says. Trusted on a link only.
pub const QUEUE_MS: HeaderName = HeaderName::from_static("x-hive-queue-ms");

/// In an answer: the request was not touched, another node may be asked.
pub const RETRY: HeaderName = HeaderName::from_static("x-hive-retry");

/// In an answer: for how many microseconds the request waited for its turn, where it did. Heard on a link only,
/// and told no caller.
pub const WAITED_US: HeaderName = HeaderName::from_static("x-hive-waited-us");

/// In an answer that is Hive's and not the function's: why, in one CamelCase word.
pub const REASON: HeaderName = HeaderName::from_static("x-hive-reason");

/// Names a request in logs, events and answers; kept when the caller brings one.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones are no ids, and would be repeated in every line. Bytes.
pub const LONGEST_REQUEST_ID: usize = 128;

/// The request's id: the caller's if it is short and printable, else one made here. It is in
/// `headers` afterwards.
pub fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let own = headers.get(REQUEST_ID).filter(|id| {
        let text = id.to_str().unwrap_or_default();
        !text.is_empty() && text.len() <= LONGEST_REQUEST_ID
    });
    if let Some(own) = own {
        return own.clone();
    }
    let id = fresh_request_id();
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// A counter behind 64 bits that differ with each process: a random number each would be a system
/// call each.
fn fresh_request_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request"));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("{:016x}-{count:x}", *PROCESS))
        .expect("hexadecimal digits are fit for a header")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())])
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        assert_eq!(request_id(&mut headers("mine")), "mine");
        let long = "x".repeat(LONGEST_REQUEST_ID + 1);
        let mut all = headers(&long);
        let made = request_id(&mut all);
        assert_ne!(made, long);
        assert_eq!(all[REQUEST_ID], made);
        assert_ne!(request_id(&mut HeaderMap::new()), made);
    }
}
