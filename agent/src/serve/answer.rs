//! What a caller is told when there is no answer of a function: the one place that maps failures
//! to HTTP. A line for people, a header for machines, and nothing of the inside of this node.

use hive_functions::{BoxBody, InvokeError};
use hive_proto::invoke::{MAX_REQUEST_BODY, REASON, RETRY};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::ids::FunctionId;

/// Names of known hosts in a 404, at most.
const MAX_HOSTS_TOLD: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no function here answers {host}{path}; hosts known here: {}", list(.known))]
    NoRoute {
        host: String,
        path: String,
        known: Vec<String>,
    },
    #[error("what answers at this path takes {allowed}")]
    NoMethod { allowed: String },
    #[error("no instance of {function} is ready here")]
    NotReady { function: FunctionId },
    #[error("the request names no function")]
    NotNamed,
    #[error("a request's body may have {MAX_REQUEST_BODY} bytes")]
    BodyTooLarge,
    #[error(transparent)]
    Invoke(#[from] InvokeError),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::NoMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotNamed => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invoke(error) => error.status(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoRoute { .. } => "NoRoute",
            Self::NoMethod { .. } => "NoMethod",
            Self::NotReady { .. } => "NotReady",
            Self::NotNamed => "NotNamed",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::Invoke(error) => error.reason().as_str(),
        }
    }

    fn nothing_ran(&self) -> bool {
        match self {
            Self::NotReady { .. } => true,
            Self::Invoke(error) => error.nothing_ran(),
            Self::NoRoute { .. } | Self::NoMethod { .. } | Self::NotNamed | Self::BodyTooLarge => {
                false
            }
        }
    }

    /// `504 Timeout: no complete response within 1s`
    pub fn into_response(self) -> Response<BoxBody> {
        let (status, reason) = (self.status(), self.reason());
        let text = format!("{} {reason}: {self}\n", status.as_u16());
        let body = Full::from(text)
            .map_err(|never| match never {})
            .boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(REASON, HeaderValue::from_static(reason));
        if let Self::NoMethod { allowed } = &self
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            headers.insert(ALLOW, allowed);
        }
        if self.nothing_ran() {
            headers.insert(RETRY, HeaderValue::from_static("1"));
        }
        response
    }
}

fn list(hosts: &[String]) -> String {
    match hosts {
        [] => "none".to_owned(),
        few if few.len() <= MAX_HOSTS_TOLD => few.join(", "),
        many => format!("{}, ...", many[..MAX_HOSTS_TOLD].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn told(failure: Failure) -> (u16, String, bool, String) {
        let response = failure.into_response();
        let header = |name| response.headers().get(name).cloned();
        let reason = header(REASON).unwrap().to_str().unwrap().to_owned();
        let retry = header(RETRY).is_some();
        let status = response.status().as_u16();
        let body = futures::executor::block_on(response.into_body().collect());
        let body = String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap();
        (status, reason, retry, body)
    }

    #[test]
    fn every_failure_has_a_status_a_reason_and_a_line() {
        let (status, reason, retry, body) =
            told(InvokeError::Timeout(Duration::from_secs(1)).into());
        assert_eq!((status, reason.as_str(), retry), (504, "Timeout", false));
        assert_eq!(body, "504 Timeout: no complete response within 1s\n");

        let (status, _, retry, _) = told(InvokeError::Overloaded.into());
        assert_eq!((status, retry), (503, true));
        let queued = InvokeError::QueueTimeout(Duration::from_secs(10));
        let (status, reason, retry, body) = told(queued.into());
        assert_eq!(
            (status, reason.as_str(), retry),
            (503, "QueueTimeout", true)
        );
        assert!(body.contains("no turn within 10s"), "{body}");
        let function = FunctionId::new("default", "hello");
        let (status, reason, retry, body) = told(Failure::NotReady { function });
        assert_eq!((status, reason.as_str(), retry), (503, "NotReady", true));
        assert!(body.contains("default/hello"));
        let (status, _, _, body) = told(Failure::NoRoute {
            host: "a.b".into(),
            path: "/x".into(),
            known: vec!["c.d".into()],
        });
        assert_eq!(status, 404);
        assert!(body.contains("a.b/x") && body.contains("c.d"), "{body}");
    }
}
