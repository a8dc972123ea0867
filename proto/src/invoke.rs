//! What the HTTP of an invocation carries besides the request itself: agreed on by the ingress,
//! which sends, and the agents, which answer.

use http::HeaderName;

/// The largest request body; refused before it travels, and again where it arrives. Bodies stream, so
/// this bounds no memory; it keeps one caller from feeding a guest for ever, and is the least that
/// upload forms of today want. Bytes.
pub const MAX_REQUEST_BODY: u64 = 32 << 20;

/// Names the function that is meant, together with [`FUNCTION`]. Trusted on a link only.
pub const NAMESPACE: HeaderName = HeaderName::from_static("x-hive-namespace");
pub const FUNCTION: HeaderName = HeaderName::from_static("x-hive-function");

/// In an answer: the request was not touched, another node may be asked.
pub const RETRY: HeaderName = HeaderName::from_static("x-hive-retry");

/// In an answer that is Hive's and not the function's: why, in one CamelCase word.
pub const REASON: HeaderName = HeaderName::from_static("x-hive-reason");
