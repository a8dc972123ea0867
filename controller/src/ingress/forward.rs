//! One request on its way to a function: choose a node, send, try another where nothing is lost
//! by that. What is for a tunnel goes to its [`Proxy`].

mod activate;
mod batch;
mod errors;
mod headers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hive_proto::invoke::{self, MAX_REQUEST_BODY, REQUEST_ID};
use hive_proto::routes::Chosen;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::probe;
use super::repeat::{Copy, gather};
use super::routes::{Backend, FunctionBackend, Routes};
use super::split::Way;
use super::tunnel::{self, Proxy, Upgrade};
use crate::gateway::{Body, BoxError, Failed, Invoker, SendError};
use crate::spans::{AnsweredBy, Asked, Counts, RequestSpan, Spans};
use crate::state::Key;
use crate::traffic::{Counting, Loads};
use crate::tunnels::Tunnels;
use activate::WaitingRoom;
use errors::ForwardError;

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
    tunnels: Proxy,
    /// Where somebody collects them.
    spans: Option<Spans>,
}

/// In the extensions of an answer: nothing of the function ran, so the request can be made again.
#[derive(Clone, Copy, Debug)]
pub struct NothingRan;

impl Forwarder {
    pub fn new(
        routes: watch::Receiver<Arc<Routes>>,
        invoker: Invoker,
        tunnels: Tunnels,
        loads: Loads,
        spans: Option<Spans>,
    ) -> Self {
        Self {
            routes,
            invoker,
            loads,
            waiting: WaitingRoom::default(),
            tunnels: Proxy::new(tunnels),
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
        let is_probe = probe::nonce(&request).is_some();
        match find(&routes, &request) {
            // A run is paid for, and would keep it from going to sleep.
            Ok((_, Backend::Function(backend)))
                if is_probe && (backend.is_ready() || backend.wakes) =>
            {
                probe::leads_here()
            }
            Ok((route, Backend::Function(backend))) => {
                self.answer(backend, Some(route), Some(client), request)
                    .await
            }
            // On the heap, since every request would have room for it.
            Ok((route, Backend::Tunnel(tunnel))) => {
                Box::pin(self.carry(tunnel, route, client, request)).await
            }
            Ok((route, Backend::NoFunction(tunnel, function))) => {
                let asked = Asked {
                    tunnel: Some(tunnel),
                    route: Some(route),
                    ..Asked::default()
                };
                let error = ForwardError::NoFunction {
                    tunnel: tunnel::name_of(tunnel),
                    function: function.name.clone(),
                };
                self.refuse(request, asked, &error)
            }
            Err(error) => self.refuse(request, Asked::default(), &error),
        }
    }

    /// Answers a request for a function that is named, whatever its route.
    pub async fn by_name(&self, function: &Key, request: Request<Body>) -> Response<Body> {
        let routes = self.routes.borrow().clone();
        match routes.function(function) {
            Some(backend) => self.answer(backend, None, None, request).await,
            None => {
                let asked = Asked {
                    function: Some(function),
                    ..Asked::default()
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
        ended(span, errors::response(error))
    }

    fn begin_span(&self, request: &mut Request<Body>, asked: Asked<'_>) -> Option<RequestSpan> {
        let spans = self.spans.as_ref()?;
        Some(spans.begin(request, asked))
    }

    async fn answer(
        &self,
        backend: &FunctionBackend,
        route: Option<&str>,
        client: Option<IpAddr>,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let asked = Asked {
            function: Some(&backend.key),
            route,
            ..Asked::default()
        };
        let (id, span) = self.begin(&mut request, client, asked);
        let answered = match gathered(request).await {
            Ok((request, copy)) if backend.wakes => self.send_awake(backend, request, copy).await,
            Ok((request, copy)) => self.send(backend, request, copy).await,
            Err(error) => Err(error),
        };
        let answered = answered.map(|mut response| {
            if response.headers().contains_key(invoke::RETRY) {
                response.extensions_mut().insert(NothingRan);
            }
            response.map(|body| body.map_err(BoxError::from).boxed_unsync())
        });
        ended(span, end(id, answered))
    }

    /// Answers a request that is for the targets of a tunnel.
    async fn carry(
        &self,
        tunnel: &Key,
        route: &str,
        client: IpAddr,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let asked = Asked {
            tunnel: Some(tunnel),
            route: Some(route),
            ..Asked::default()
        };
        let upgrade = Upgrade::wished(&mut request);
        let (id, span) = self.begin(&mut request, Some(client), asked);
        let headers = request.headers_mut();
        headers::join_cookies(headers);
        if let Some(upgrade) = &upgrade {
            upgrade.ask(headers);
        }
        *request.version_mut() = Version::HTTP_11;
        let answered = async {
            let (request, copy) = gather(request).await?;
            let answer = self.tunnels.answer(tunnel, request, copy, upgrade);
            Ok::<_, ForwardError>(answer.await?)
        };
        let mut response = end(id, answered.await);
        tunnel::announce(&mut response);
        ended(span, response)
    }

    /// Makes the headers of a request such as they go on; its id, and its span.
    fn begin(
        &self,
        request: &mut Request<Body>,
        client: Option<IpAddr>,
        asked: Asked<'_>,
    ) -> (HeaderValue, Option<RequestSpan>) {
        let received = request.version();
        headers::clean(request.headers_mut());
        headers::to_origin_form(request);
        if let Some(client) = client {
            headers::add_origin(request.headers_mut(), client);
        }
        headers::add_via(request.headers_mut(), received);
        let id = invoke::request_id(request.headers_mut());
        (id, self.begin_span(request, asked))
    }

    async fn send(
        &self,
        backend: &FunctionBackend,
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
                    copy = copy.filter(|copy| copy.method().is_idempotent());
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
        backend: &FunctionBackend,
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
) -> Result<(&'a str, Backend<'a>), ForwardError> {
    if request.method() == Method::CONNECT {
        return Err(ForwardError::Connect);
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

/// As [`gather`], of what may be for a function.
async fn gathered(request: Request<Body>) -> Result<(Request<Body>, Option<Copy>), ForwardError> {
    if request.body().size_hint().lower() > MAX_REQUEST_BODY {
        return Err(ForwardError::BodyTooLarge);
    }
    Ok(gather(request).await?)
}

/// Makes an answer such as it goes out.
fn end(id: HeaderValue, answered: Result<Response<Body>, ForwardError>) -> Response<Body> {
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(request = ?id, error = &error as &dyn std::error::Error, "request failed");
            errors::response(&error)
        }
    };
    headers::clean(response.headers_mut());
    response.headers_mut().entry(REQUEST_ID).or_insert(id);
    response
}

fn ended(span: Option<RequestSpan>, response: Response<Body>) -> Response<Body> {
    match span {
        Some(span) => span.answered(response),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::*;
    use crate::ingress::repeat::full;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_before_it_is_read() {
        let body = full(vec![0; MAX_REQUEST_BODY as usize + 1]);
        let refused = gathered(Request::new(body)).await.err().unwrap();
        let response = errors::response(&refused);
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()["x-hive-reason"], "BodyTooLarge");
    }
}
