//! One request on its way to a function: choose a node, send, try another where nothing is lost
//! by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, RETRY_AFTER, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;

use super::routes::{Backend, Routes};
use crate::gateway::{Body, BoxError, Invoker, SendError};
use crate::state::Key;

/// Set by an agent that did not touch the request: the function isn't ready there (any more).
const RETRY_HEADER: HeaderName = HeaderName::from_static("x-hive-retry");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that speak of one connection (RFC 9110, 7.6.1), and Hive's own.
const NOT_FORWARDED: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-hive-namespace",
    "x-hive-function",
];

#[derive(Clone)]
pub struct Forwarder {
    routes: watch::Receiver<Arc<Routes>>,
    invoker: Invoker,
    turn: Arc<AtomicUsize>,
}

/// Why no function answered.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("no function answers for host {host:?} and path {path:?}")]
    NoRoute { host: String, path: String },
    #[error("function {0} has no ready copy")]
    NotReady(String),
    #[error("the node that worked on the request was lost")]
    Lost(#[source] SendError),
}

impl Forwarder {
    pub fn new(routes: watch::Receiver<Arc<Routes>>, invoker: Invoker) -> Self {
        Self {
            routes,
            invoker,
            turn: Arc::default(),
        }
    }

    /// Answers a request that came in at the ingress.
    pub async fn by_route(&self, request: Request<Body>) -> Response<Body> {
        let host = request
            .uri()
            .authority()
            .map(|authority| authority.as_str())
            .or_else(|| request.headers().get(HOST)?.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let routes = self.routes.borrow().clone();
        match routes.find(&host, request.uri().path()) {
            Some(backend) => self.answer(backend, request).await,
            None => error_response(&ForwardError::NoRoute {
                host,
                path: request.uri().path().to_owned(),
            }),
        }
    }

    /// Answers a request for a function that is named, whatever its route.
    pub async fn by_name(&self, function: &Key, request: Request<Body>) -> Response<Body> {
        let routes = self.routes.borrow().clone();
        match routes.backend(function) {
            Some(backend) => self.answer(backend, request).await,
            None => error_response(&ForwardError::NotReady(function.name.clone())),
        }
    }

    async fn answer(&self, backend: &Backend, mut request: Request<Body>) -> Response<Body> {
        clean(request.headers_mut());
        to_origin_form(&mut request);
        let id = request_id(request.headers_mut());
        let mut response = match self.send(backend, request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(request = ?id, %error, "request failed");
                error_response(&error)
            }
        };
        clean(response.headers_mut());
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
        response
    }

    async fn send(
        &self,
        backend: &Backend,
        request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        let not_ready = || ForwardError::NotReady(format!("{:?}", backend.function));
        let nodes = &backend.nodes;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let repeat = Repeatable::of(&request);
        let mut next = Some(request);
        let mut lost = None;
        for attempt in 0..nodes.len() {
            let node = &nodes[(first + attempt) % nodes.len()];
            let Some(request) = next
                .take()
                .or_else(|| repeat.as_ref().map(Repeatable::request))
            else {
                break;
            };
            let sent = self
                .invoker
                .send(node, &backend.namespace, &backend.function, request)
                .await;
            match sent {
                Ok(response)
                    if response.headers().contains_key(RETRY_HEADER) && repeat.is_some() => {}
                Ok(response) => {
                    return Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()));
                }
                Err(failed) => {
                    tracing::debug!(node, error = %failed.error, "cannot reach node");
                    next = failed.request;
                    if next.is_none() {
                        lost = Some(failed.error);
                    }
                }
            }
        }
        Err(match lost {
            Some(error) => ForwardError::Lost(error),
            None => not_ready(),
        })
    }
}

/// A request without a body whose method promises that doing it twice is doing it once
/// (RFC 9110, 9.2.2).
struct Repeatable {
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
}

impl Repeatable {
    fn of(request: &Request<Body>) -> Option<Self> {
        let empty = http_body::Body::is_end_stream(request.body());
        (empty && request.method().is_idempotent()).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn clean(headers: &mut HeaderMap) {
    // What `Connection` lists speaks of this connection too.
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
    debug_assert!(!headers.contains_key(TE) && !headers.contains_key(UPGRADE));
    debug_assert!(!headers.contains_key(TRANSFER_ENCODING));
}

/// HTTP/2 and proxies' requests carry the host in the target; the stream to the agent is HTTP/1.1.
fn to_origin_form(request: &mut Request<Body>) {
    let Some(authority) = request.uri().authority().cloned() else {
        return;
    };
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let origin = path.parse().expect("part of a URI that parsed");
    *request.uri_mut() = origin;
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
}

/// The request's id, made here unless the caller brought one.
fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    headers
        .entry(REQUEST_ID)
        .or_insert_with(|| {
            HeaderValue::from_str(&crate::objects::fresh_uid()).expect("a UUID is plain ASCII")
        })
        .clone()
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The one place that maps failures of the ingress to HTTP.
fn error_response(error: &ForwardError) -> Response<Body> {
    let (status, reason) = match error {
        ForwardError::NoRoute { .. } => (StatusCode::NOT_FOUND, "NoRoute"),
        ForwardError::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "NotReady"),
        ForwardError::Lost(_) => (StatusCode::BAD_GATEWAY, "NodeLost"),
    };
    let mut response = Response::new(full(format!("{} {reason}: {error}\n", status.as_u16())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert("x-hive-reason", HeaderValue::from_static(reason));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
