//! What the ingress answers where nobody else does.

use hive_proto::invoke::{self, MAX_REQUEST_BODY};
use hive_proto::tunnel as reasons;
use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::NothingRan;
use crate::gateway::{Body, SendError};
use crate::ingress::repeat::{BodyError, text};
use crate::ingress::tunnel::TunnelError;
use crate::tunnels::access::denied::Denied;
use crate::tunnels::open::OpenError;

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("nothing answers for host {host:?} and path {path:?}")]
    NoRoute { host: String, path: String },
    #[error("what answers at this path takes {allowed}")]
    NoMethod { allowed: String },
    #[error("function {0} has no ready copy")]
    NotReady(String),
    #[error("function {0} was without a copy, and got none in time")]
    Asleep(String),
    #[error("function {0} is without a copy, and as many requests wait for one as may")]
    Crowded(String),
    #[error("the ingress is no proxy")]
    Connect,
    #[error("the request names several hosts: ask one")]
    BadHost,
    #[error(
        "the path has a part that is \".\" or \"..\", or a byte of zero: ask for what it leads to"
    )]
    BadPath,
    #[error(
        "the path is that of another route once it is decoded and several slashes are taken for one: write it plainly"
    )]
    UnclearPath,
    #[error("a request's body may have {MAX_REQUEST_BODY} bytes")]
    BodyTooLarge,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the node that worked on the request was lost")]
    Lost(#[source] SendError),
    #[error("the node that worked on the request does not answer")]
    Silent,
    #[error("tunnel {tunnel} leads to function {function}, which does not exist")]
    NoFunction { tunnel: String, function: String },
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// The one place that maps failures of the ingress to HTTP.
pub fn response(error: &ForwardError) -> Response<Body> {
    let (status, reason) = match error {
        ForwardError::NoRoute { .. } => (StatusCode::NOT_FOUND, "NoRoute"),
        ForwardError::NoMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "NoMethod"),
        ForwardError::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "NotReady"),
        ForwardError::Asleep(_) => (StatusCode::SERVICE_UNAVAILABLE, "ScalingFromZero"),
        ForwardError::Crowded(_) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        ForwardError::Connect => (StatusCode::METHOD_NOT_ALLOWED, "Tunnel"),
        ForwardError::BadHost => (StatusCode::BAD_REQUEST, "BadHost"),
        ForwardError::BadPath | ForwardError::UnclearPath => (StatusCode::BAD_REQUEST, "BadPath"),
        ForwardError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge"),
        ForwardError::Body(error) => body(error),
        ForwardError::Lost(_) => (StatusCode::BAD_GATEWAY, "NodeLost"),
        ForwardError::Silent => (StatusCode::GATEWAY_TIMEOUT, "NodeSilent"),
        ForwardError::NoFunction { .. } => (StatusCode::SERVICE_UNAVAILABLE, "NoTarget"),
        ForwardError::Tunnel(error) => tunnel(error),
        ForwardError::Denied(error) => (denied(error), error.reason()),
    };
    let mut response = text(status, format!("{} {reason}: {error}\n", status.as_u16()));
    let headers = response.headers_mut();
    headers.insert(invoke::REASON, HeaderValue::from_static(reason));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let ForwardError::Denied(error) = error {
        add_denial(headers, error);
    }
    if matches!(error, ForwardError::NotReady(_)) {
        response.extensions_mut().insert(NothingRan);
    }
    let allowed = match error {
        ForwardError::Connect => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ForwardError::NoMethod { allowed } => Some(&**allowed),
        _ => None,
    };
    if let Some(allowed) = allowed.and_then(|allowed| HeaderValue::from_str(allowed).ok()) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn denied(error: &Denied) -> StatusCode {
    match error {
        Denied::Client | Denied::User(_) | Denied::Login(_) => StatusCode::FORBIDDEN,
        Denied::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        Denied::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Denied::Busy | Denied::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        Denied::Issuer(_) => StatusCode::BAD_GATEWAY,
    }
}

/// When to come again, and with what.
fn add_denial(headers: &mut HeaderMap, error: &Denied) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Denied::Unauthenticated { challenges, .. } = error {
        for challenge in challenges {
            if let Ok(challenge) = HeaderValue::from_str(challenge) {
                headers.append(WWW_AUTHENTICATE, challenge);
            }
        }
    }
}

fn body(error: &BodyError) -> (StatusCode, &'static str) {
    match error {
        BodyError::Cut => (StatusCode::BAD_REQUEST, "BodyCut"),
        BodyError::Slow => (StatusCode::REQUEST_TIMEOUT, "BodySlow"),
    }
}

fn tunnel(error: &TunnelError) -> (StatusCode, &'static str) {
    match error {
        TunnelError::NoTarget(_) => (StatusCode::SERVICE_UNAVAILABLE, "NoTarget"),
        TunnelError::TooMany(_) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        TunnelError::Unopened { source, .. } => unopened(source),
        TunnelError::Lost { .. } => (StatusCode::BAD_GATEWAY, "TargetLost"),
        TunnelError::Switched(_) => (StatusCode::BAD_GATEWAY, "TargetSwitched"),
        TunnelError::Silent(_) => (StatusCode::GATEWAY_TIMEOUT, "TargetSilent"),
        TunnelError::Body(error) => body(error),
        TunnelError::Common(error) => tunnel(error),
    }
}

/// What is the node's or its operator's is told apart from what is the target's.
fn unopened(error: &OpenError) -> (StatusCode, &'static str) {
    match error {
        OpenError::NotLinked(_) => (StatusCode::SERVICE_UNAVAILABLE, "NodeNotLinked"),
        OpenError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        OpenError::AgentTooOld(_) => (StatusCode::BAD_GATEWAY, "AgentTooOld"),
        OpenError::Refused { reason, .. } => match &**reason {
            reasons::BUSY => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
            reasons::NOT_ALLOWED => (StatusCode::BAD_GATEWAY, "NotAllowed"),
            _ => (StatusCode::BAD_GATEWAY, "TargetDown"),
        },
        OpenError::Link { .. } | OpenError::Nonsense { .. } => {
            (StatusCode::BAD_GATEWAY, "NodeLost")
        }
        OpenError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "NodeSilent"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_denied_is_told_why_and_what_helps() {
        let challenges = vec![
            "Basic realm=\"a/b\"".to_owned(),
            "Bearer realm=\"a/b\"".into(),
        ];
        for (denied, status, reason, helps) in [
            (Denied::Client, 403, "ClientNotAllowed", None),
            (Denied::User("ada".into()), 403, "UserNotAllowed", None),
            (
                Denied::TooOften(Duration::from_millis(1200)),
                429,
                "RateLimited",
                Some(("retry-after", "2")),
            ),
            (
                Denied::TooOften(Duration::from_millis(1)),
                429,
                "RateLimited",
                Some(("retry-after", "1")),
            ),
            (
                Denied::Unauthenticated {
                    why: "say who you are",
                    challenges,
                },
                401,
                "Unauthenticated",
                Some(("www-authenticate", "Basic realm=\"a/b\"")),
            ),
            (
                Denied::Busy,
                503,
                "PasswordsBusy",
                Some(("retry-after", "1")),
            ),
            (Denied::NotReady, 503, "AccessNotReady", None),
        ] {
            let response = response(&denied.into());
            assert_eq!(response.status(), status, "{reason}");
            let headers = response.headers();
            assert_eq!(headers[invoke::REASON], reason);
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
            if let Some((name, value)) = helps {
                assert_eq!(headers[name], value, "{reason}");
            }
            let ways = headers.get_all(WWW_AUTHENTICATE).iter().count();
            assert_eq!(ways, if status == 401 { 2 } else { 0 });
        }
    }
}
