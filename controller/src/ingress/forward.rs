//! One request on its way to a function: choose a node, send, try another where nothing is lost
//! by that.

mod activate;
mod batch;
mod headers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hive_proto::invoke::{self, MAX_REQUEST_BODY, REQUEST_ID};
use hive_proto::routes::Chosen;
use http::header::{ALLOW, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::routes::{Backend, Routes};
use super::split::Way;
use crate::gateway::{Body, BoxError, Failed, Invoker, SendError};
use crate::spans::{AnsweredBy, Asked, Counts, RequestSpan, Spans};
use crate::state::Key;
use crate::traffic::{Counting, Loads};
use activate::WaitingRoom;

/// A body that says it is no longer is read whole before a node is chosen: it can then be sent
/// again, and a slow client takes up no place at a function meanwhile.
const GATHERED_BODY: u64 = 16 << 10;

/// For such a body to come.
const GATHER_TIMEOUT: Duration = Duration::from_secs(10);

/// Nodes that get to see a request. When the copies of a function are overloaded, asking all of
/// them would only add to it.
const MAX_TRIES: usize = 3;

/// A function's timeout counts on the node. What is longer than it by this much is the node's fault.
const NODE_GRACE: Duration = Duration::from_secs(10);

/// A controller that just started is dialled by the nodes within this time as a rule. Who asks
/// before rather waits than reads of it.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Forwarder {
    routes: watch::Receiver<Arc<Routes>>,
    invoker: Invoker,
    loads: Loads,
    waiting: WaitingRoom,
    /// Where somebody collects them.
    spans: Option<Spans>,
}

/// In the extensions of an answer: nothing of the function ran, so the request can be made again.
#[derive(Clone, Copy, Debug)]
pub struct NothingRan;

/// Why no function answered.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("no function answers for host {host:?} and path {path:?}")]
    NoRoute { host: String, path: String },
    #[error("what answers at this path takes {allowed}")]
    NoMethod { allowed: String },
    #[error("function {0} has no ready copy")]
    NotReady(String),
    #[error("function {0} was without a copy, and got none in time")]
    Asleep(String),
    #[error("function {0} is without a copy, and as many requests wait for one as may")]
    Crowded(String),
    #[error("a function is no tunnel")]
    Tunnel,
    #[error("a request's body may have {MAX_REQUEST_BODY} bytes")]
    BodyTooLarge,
    #[error("the request's body ended early")]
    BodyCut,
    #[error("the request's body did not come within {GATHER_TIMEOUT:?}")]
    BodySlow,
    #[error("the node that worked on the request was lost")]
    Lost(#[source] SendError),
    #[error("the node that worked on the request does not answer")]
    Silent,
}

impl Forwarder {
    pub fn new(
        routes: watch::Receiver<Arc<Routes>>,
        invoker: Invoker,
        loads: Loads,
        spans: Option<Spans>,
    ) -> Self {
        Self {
            routes,
            invoker,
            loads,
            waiting: WaitingRoom::default(),
            spans,
        }
    }

    /// What became of the spans of its requests.
    pub fn span_counts(&self) -> Option<&Counts> {
        self.spans.as_ref().map(Spans::counts)
    }

    /// Answers a request that came in at the ingress.
    pub async fn by_route(&self, client: IpAddr, request: Request<Body>) -> Response<Body> {
        let routes = self.routes.borrow().clone();
        match find(&routes, &request) {
            Ok((route, backend)) => {
                self.answer(backend, Some(route), Some(client), request)
                    .await
            }
            Err(error) => self.refuse(request, Asked::default(), &error),
        }
    }

    /// Answers a request for a function that is named, whatever its route.
    pub async fn by_name(&self, function: &Key, request: Request<Body>) -> Response<Body> {
        let routes = self.routes.borrow().clone();
        match routes.backend(function) {
            Some(backend) => self.answer(backend, None, None, request).await,
            None => {
                let asked = Asked {
                    function: Some(function),
                    route: None,
                };
                let error = ForwardError::NotReady(function.name.clone());
                self.refuse(request, asked, &error)
            }
        }
    }

    /// Nothing of it goes on.
    fn refuse(
        &self,
        mut request: Request<Body>,
        asked: Asked<'_>,
        error: &ForwardError,
    ) -> Response<Body> {
        let span = self.begin_span(&mut request, asked);
        ended(span, error_response(error))
    }

    fn begin_span(&self, request: &mut Request<Body>, asked: Asked<'_>) -> Option<RequestSpan> {
        let spans = self.spans.as_ref()?;
        Some(spans.begin(request, asked))
    }

    async fn answer(
        &self,
        backend: &Backend,
        route: Option<&str>,
        client: Option<IpAddr>,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let received = request.version();
        headers::clean(request.headers_mut());
        headers::to_origin_form(&mut request);
        if let Some(client) = client {
            headers::add_origin(request.headers_mut(), client);
        }
        headers::add_via(request.headers_mut(), received);
        let id = invoke::request_id(request.headers_mut());
        let asked = Asked {
            function: Some(&backend.key),
            route,
        };
        let span = self.begin_span(&mut request, asked);
        let answered = match gather(request).await {
            Ok((request, copy)) if backend.wakes => self.send_awake(backend, request, copy).await,
            Ok((request, copy)) => self.send(backend, request, copy).await,
            Err(error) => Err(error),
        };
        let mut response = match answered {
            Ok(mut response) => {
                if response.headers().contains_key(invoke::RETRY) {
                    response.extensions_mut().insert(NothingRan);
                }
                response.map(|body| body.map_err(BoxError::from).boxed_unsync())
            }
            Err(error) => {
                tracing::debug!(request = ?id, error = &error as &dyn std::error::Error, "request failed");
                error_response(&error)
            }
        };
        headers::clean(response.headers_mut());
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
        ended(span, response)
    }

    async fn send(
        &self,
        backend: &Backend,
        request: Request<Body>,
        mut copy: Option<Copy>,
    ) -> Result<Response<Counting<Incoming>>, ForwardError> {
        let ways = backend.ways(request.headers());
        self.invoker.linked(&ways.nodes(), LINK_PATIENCE).await;
        let mut next = Some(request);
        let (mut tries, mut unwilling, mut lost) = (0, None, None);
        for attempt in 0..ways.len() {
            let Some(way) = ways.get(attempt) else {
                break;
            };
            let Some(request) = next.take().or_else(|| copy.as_ref().map(Copy::request)) else {
                break;
            };
            let others = copy.is_some() && tries + 1 < MAX_TRIES && attempt + 1 < ways.len();
            match self.ask(backend, way, request, others).await {
                Ok(response) if response.headers().contains_key(invoke::RETRY) => {
                    unwilling = Some((response, way, others));
                }
                Ok(response) => return Ok(response),
                Err(failed) => {
                    next = failed.request;
                    if next.is_some() {
                        continue;
                    }
                    if matches!(failed.error, SendError::Silent) {
                        return Err(ForwardError::Silent);
                    }
                    lost = Some(failed.error);
                    // It may have been performed, so only what does no harm twice goes on.
                    copy = copy.filter(|copy| copy.method.is_idempotent());
                }
            }
            tries += 1;
            if tries == MAX_TRIES {
                break;
            }
        }
        // The nodes that were to be asked last could not be reached: then it waits at a busy one.
        if let (Some((_, way, true)), Some(copy)) = (&unwilling, &copy) {
            match self.ask(backend, *way, copy.request(), false).await {
                Ok(response) => return Ok(response),
                Err(failed) if failed.request.is_some() => {}
                Err(failed) if matches!(failed.error, SendError::Silent) => {
                    return Err(ForwardError::Silent);
                }
                Err(failed) => return Err(ForwardError::Lost(failed.error)),
            }
        }
        match (unwilling, lost) {
            // Says best why: it knows whether the function is busy or gone.
            (Some((response, ..)), _) => Ok(response),
            (None, Some(error)) => Err(ForwardError::Lost(error)),
            (None, None) => Err(ForwardError::NotReady(
                String::from_utf8_lossy(backend.function.as_bytes()).into_owned(),
            )),
        }
    }

    /// While there are `others` to ask, a request does not wait for its turn at a busy node.
    async fn ask(
        &self,
        backend: &Backend,
        Way { node, revision }: Way<'_>,
        mut request: Request<Body>,
        others: bool,
    ) -> Result<Response<Counting<Incoming>>, Failed> {
        let headers = request.headers_mut();
        match revision {
            Some(revision) => drop(headers.insert(invoke::REVISION, revision.clone())),
            None => drop(headers.remove(invoke::REVISION)),
        }
        if others {
            headers.insert(invoke::QUEUE_MS, HeaderValue::from_static("0"));
        } else {
            // From the try before, if that sent nothing.
            headers.remove(invoke::QUEUE_MS);
        }
        let patience = backend.timeout + NODE_GRACE;
        let (namespace, function) = (&backend.namespace, &backend.function);
        let asked_for = revision.and_then(|it| it.to_str().ok());
        let counted = self
            .loads
            .begin(&backend.key, asked_for.unwrap_or_default());
        let sent = self
            .invoker
            .send(node, namespace, function, request, patience)
            .await;
        if let Err(failed) = &sent {
            let error = &failed.error as &dyn std::error::Error;
            tracing::debug!(node, error, "no answer of node");
        }
        sent.map(|response| {
            let mut response = counted.answered(response);
            if self.spans.is_some() {
                response.extensions_mut().insert(AnsweredBy {
                    node: node.to_owned(),
                    revision: revision.cloned(),
                });
            }
            response
        })
    }
}

/// The route that a request takes, and whose it is.
fn find<'a>(
    routes: &'a Routes,
    request: &Request<Body>,
) -> Result<(&'a str, &'a Backend), ForwardError> {
    if request.method() == Method::CONNECT {
        return Err(ForwardError::Tunnel);
    }
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(HOST)?.to_str().ok())
        .unwrap_or_default();
    match routes.find(host, request.method(), request.uri().path()) {
        Chosen::One(found) => Ok(found),
        Chosen::OtherMethods(allowed) => Err(ForwardError::NoMethod { allowed }),
        Chosen::Nobody => Err(ForwardError::NoRoute {
            host: host.to_owned(),
            path: request.uri().path().to_owned(),
        }),
    }
}

fn ended(span: Option<RequestSpan>, response: Response<Body>) -> Response<Body> {
    match span {
        Some(span) => span.answered(response),
        None => response,
    }
}

/// A request that can be sent again.
#[derive(Clone)]
struct Copy {
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Copy {
    fn request(&self) -> Request<Body> {
        let mut request = Request::new(full(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Reads a small body whole, so that the request can be sent again; lets a larger one stream.
async fn gather(request: Request<Body>) -> Result<(Request<Body>, Option<Copy>), ForwardError> {
    let size = request.body().size_hint();
    if size.lower() > MAX_REQUEST_BODY {
        return Err(ForwardError::BodyTooLarge);
    }
    if size.exact().is_none_or(|size| size > GATHERED_BODY) {
        return Ok((request, None));
    }
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        tokio::time::timeout(GATHER_TIMEOUT, body.collect())
            .await
            .map_err(|_| ForwardError::BodySlow)?
            .map_err(|_| ForwardError::BodyCut)?
            .to_bytes()
    };
    let copy = Copy {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    };
    Ok((Request::from_parts(head, full(body)), Some(copy)))
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
        ForwardError::NoMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "NoMethod"),
        ForwardError::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "NotReady"),
        ForwardError::Asleep(_) => (StatusCode::SERVICE_UNAVAILABLE, "ScalingFromZero"),
        ForwardError::Crowded(_) => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        ForwardError::Tunnel => (StatusCode::METHOD_NOT_ALLOWED, "Tunnel"),
        ForwardError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge"),
        ForwardError::BodyCut => (StatusCode::BAD_REQUEST, "BodyCut"),
        ForwardError::BodySlow => (StatusCode::REQUEST_TIMEOUT, "BodySlow"),
        ForwardError::Lost(_) => (StatusCode::BAD_GATEWAY, "NodeLost"),
        ForwardError::Silent => (StatusCode::GATEWAY_TIMEOUT, "NodeSilent"),
    };
    let mut response = Response::new(full(format!("{} {reason}: {error}\n", status.as_u16())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(invoke::REASON, HeaderValue::from_static(reason));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if matches!(error, ForwardError::NotReady(_)) {
        response.extensions_mut().insert(NothingRan);
    }
    let allowed = match error {
        ForwardError::Tunnel => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ForwardError::NoMethod { allowed } => Some(&**allowed),
        _ => None,
    };
    if let Some(allowed) = allowed.and_then(|allowed| HeaderValue::from_str(allowed).ok()) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    fn streaming(text: &'static str) -> Body {
        let frames = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(
            text.as_bytes(),
        )))]);
        StreamBody::new(frames).boxed_unsync()
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again() {
        for text in ["", "hello"] {
            let request = Request::post("/x").body(full(text)).unwrap();
            let (request, copy) = gather(request).await.unwrap();
            for request in [request, copy.unwrap().request()] {
                assert_eq!(
                    (request.method(), request.uri().path()),
                    (&Method::POST, "/x")
                );
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, text);
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_unknown_or_great_length_streams() {
        let large = vec![0; GATHERED_BODY as usize + 1];
        for body in [streaming("hello"), full(large)] {
            let (_, copy) = gather(Request::new(body)).await.unwrap();
            assert!(copy.is_none());
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_before_it_is_read() {
        let body = full(vec![0; MAX_REQUEST_BODY as usize + 1]);
        let refused = gather(Request::new(body)).await.err().unwrap();
        let response = error_response(&refused);
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()["x-hive-reason"], "BodyTooLarge");
    }
}
