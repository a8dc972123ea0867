//! What is asked of a registry, and what it answered: the words between the machines here and whoever
//! holds a connection.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

/// One request. To be sent as it is, unless its address is not allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub method: Method,
    pub url: Url,
    /// `Authorization` is among them where this address may see it, and marked as sensitive.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub wants: Wants,
}

/// What of an answer is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The body up to so many bytes; a longer one is [`AskError::TooLarge`] and not read further.
    Body(usize),
    /// Status and headers. The body is left alone: with 200 it is the blob.
    Head,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty where only the head was wanted.
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn location(&self) -> Option<&str> {
        self.headers.get(LOCATION)?.to_str().ok()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// In seconds; a date is as good as nothing said, without a clock.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// Why a registry's answer was of no use. Its body is never shown: whoever may name an image must not
/// read the answers of hosts that only the swarm can reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Challenge(#[from] crate::ChallengeError),
    #[error("{host} refuses: there is no such image, or it takes other credentials")]
    Unauthorized { host: String },
    #[error("{host} does not have it")]
    NotFound { host: String },
    #[error("{host} has been asked too often")]
    TooManyRequests {
        host: String,
        after: Option<Duration>,
    },
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} answers with more than {limit} bytes where that is too much")]
    TooLarge { host: String, limit: usize },
    #[error("{host} sends on more than {} times", crate::session::MAX_REDIRECTS)]
    Redirects { host: String },
    #[error("{host} sends on to where it must not: {why}")]
    Elsewhere { host: String, why: &'static str },
    #[error("{host} gives no token")]
    NoToken { host: String },
}

impl AskError {
    /// A registry's body was longer than [`Wants::Body`] says.
    pub fn too_large(ask: &Ask) -> Self {
        let limit = match ask.wants {
            Wants::Body(limit) => limit,
            Wants::Head => 0,
        };
        Self::TooLarge {
            host: host(&ask.url),
            limit,
        }
    }

    /// The same request can be answered otherwise in a while, without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// Host and port, for telling people.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
