//! Asks an instance that does not serve yet whether it is ready: a request that no caller sent.

use std::time::Duration;

use hive_functions::{BoxBody, InvokeError};
use hive_proto::invoke::request_id;
use hive_proto::v1::{Assignment, Readiness};
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};

use crate::serve::Instance;

/// Why it has not shown that it is.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    #[error("GET {path} is answered with {status}")]
    Status { path: String, status: StatusCode },
    #[error("GET {path} is not answered within {within:?}")]
    Late { path: String, within: Duration },
    #[error("GET {path} is not answered: {source}")]
    Invoke {
        path: String,
        #[source]
        source: InvokeError,
    },
    #[error("the answer to GET {path} breaks off")]
    Cut { path: String },
    #[error("{path} is not a path that can be asked for")]
    Path { path: String },
}

/// Ready is who answers with 200 to 399, whole and in time.
pub async fn probe(
    instance: &Instance,
    assignment: &Assignment,
    readiness: &Readiness,
) -> Result<(), ProbeFailure> {
    let path = readiness.path.clone();
    let within = Duration::from_millis(readiness.timeout_ms);
    let Some(request) = request(assignment, &path) else {
        return Err(ProbeFailure::Path { path });
    };
    let asked = async {
        let answer = instance.function.handle(request).await;
        let answer = answer.map_err(|source| ProbeFailure::Invoke {
            path: path.clone(),
            source,
        })?;
        let status = answer.status();
        if !(status.is_success() || status.is_redirection()) {
            let path = path.clone();
            return Err(ProbeFailure::Status { path, status });
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| ProbeFailure::Cut { path: path.clone() })?;
        }
        Ok(())
    };
    match tokio::time::timeout(within, asked).await {
        Ok(answered) => answered,
        Err(_) => Err(ProbeFailure::Late {
            path: path.clone(),
            within,
        }),
    }
}

/// As a caller would send it to the function's own host.
fn request(assignment: &Assignment, path: &str) -> Option<Request<BoxBody>> {
    let mut headers = HeaderMap::new();
    let host = assignment.routes.first().map(|route| &*route.host);
    headers.insert(
        HOST,
        HeaderValue::from_str(host.unwrap_or("localhost")).ok()?,
    );
    headers.insert(USER_AGENT, HeaderValue::from_static("hive-probe"));
    request_id(&mut headers);
    let body = Empty::new().map_err(|never| match never {});
    let mut request = Request::new(BoxBody::new(body));
    *request.uri_mut() = path.parse().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}
