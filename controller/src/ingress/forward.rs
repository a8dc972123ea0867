//! One request on its way: to a copy of a function, or to what a tunnel leads to, which is its [`Proxy`]'s.

mod activate;
mod batch;
mod errors;
mod headers;
mod route;
mod send;
mod unclear;

use std::net::IpAddr;
use std::sync::Arc;

use hive_proto::invoke::{self, REQUEST_ID};
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use tokio::sync::watch;

use super::origin::Origin;
use super::probe;
use super::repeat::gather;
use super::routes::{Backend, Found, FunctionBackend, Routes, plain_host};
use super::tunnel::{self, Proxy, TunnelError, Upgrade};
use crate::challenges::{self, Challenges};
use crate::gateway::{Body, BoxError, Invoker};
use crate::spans::{Asked, Counts, RequestSpan, Spans};
use crate::state::Key;
use crate::traffic::Loads;
use crate::tunnels::Tunnels;
use crate::tunnels::access::clients::client_of;
use crate::tunnels::access::remove_own_cookies;
use activate::WaitingRoom;
use errors::ForwardError;
use route::find;
pub use route::host_of;
use send::gathered;

#[derive(Clone)]
pub struct Forwarder {
    routes: watch::Receiver<Arc<Routes>>,
    invoker: Invoker,
    loads: Loads,
    waiting: WaitingRoom,
    tunnels: Proxy,
    challenges: Challenges,
    /// Where somebody collects them.
    spans: Option<Spans>,
    /// Where this controller is asked by https, if it is.
    https_port: Option<u16>,
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
            challenges: Challenges::default(),
            spans,
            https_port: None,
        }
    }

    /// The routes that there are now.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    /// What authorities of certificates are answered.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// With what authorities of certificates are answered, before any route.
    #[must_use]
    pub fn answering(self, challenges: Challenges) -> Self {
        Self { challenges, ..self }
    }

    /// Who is to come by https is told this port, and not the one where others take TLS.
    #[must_use]
    pub fn with_https_at(mut self, port: Option<u16>) -> Self {
        self.https_port = port;
        self
    }

    /// What became of the spans of its requests.
    pub fn span_counts(&self) -> Option<&Counts> {
        self.spans.as_ref().map(Spans::counts)
    }

    /// Answers a request that came in at the ingress.
    pub async fn by_route(&self, origin: Origin, request: Request<Body>) -> Response<Body> {
        if let Some(answer) = self.challenges.answer(&request) {
            return answer;
        }
        if probe::nonce(&request).is_some() && request.uri().path() == challenges::PATH {
            return probe::leads_here();
        }
        let routes = self.routes();
        let found = match find(&routes, &request) {
            Ok(found) => found,
            Err(error) => return self.refuse(request, Asked::default(), &error),
        };
        let Some(https) = found.https else {
            return self.answer_found(found, origin, request).await;
        };
        if headers::came_by_https(request.headers(), origin, self.is_trusted(origin)) {
            let mut response = self.answer_found(found, origin, request).await;
            if let Some(hsts) = &https.hsts {
                let headers = response.headers_mut();
                let said = headers.entry(STRICT_TRANSPORT_SECURITY);
                said.or_insert_with(|| hsts.clone());
            }
            return response;
        }
        let elsewhere = match probe::nonce(&request) {
            Some(_) => None,
            None => {
                let host = host_of(&request);
                https.elsewhere(host, &request, self.https_port(host))
            }
        };
        match elsewhere {
            Some(response) => response,
            None => self.answer_found(found, origin, request).await,
        }
    }

    async fn answer_found(
        &self,
        found: Found<'_>,
        origin: Origin,
        request: Request<Body>,
    ) -> Response<Body> {
        let is_probe = probe::nonce(&request).is_some();
        let Found { route, backend, .. } = found;
        match backend {
            // A run is paid for, and would keep it from going to sleep.
            Backend::Function(backend) | Backend::Exposed(_, backend)
                if is_probe && (backend.is_ready() || backend.wakes) =>
            {
                probe::leads_here()
            }
            Backend::Function(backend) => {
                self.answer(backend, None, Some(route), Some(origin), request)
                    .await
            }
            // A probe says nothing of who sends it: it gets past nobody who guards a service.
            Backend::Exposed(_, backend) if is_probe => {
                let asked = Asked {
                    function: Some(&backend.key),
                    route: Some(route),
                    ..Asked::default()
                };
                let error = ForwardError::NotReady(backend.key.name.clone());
                self.refuse(request, asked, &error)
            }
            Backend::Tunnel(tunnel) if is_probe && self.is_guarded(tunnel) => probe::leads_here(),
            Backend::Exposed(tunnel, backend) => {
                let (tunnel, route) = (Some(tunnel), Some(route));
                let answered = self.answer(backend, tunnel, route, Some(origin), request);
                Box::pin(answered).await
            }
            // On the heap, since every request would have room for it.
            Backend::Tunnel(tunnel) => Box::pin(self.carry(tunnel, route, origin, request)).await,
            Backend::NoFunction(tunnel, function) => {
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
        }
    }

    /// Answers a request for a function that is named, whatever its route.
    pub async fn by_name(&self, function: &Key, request: Request<Body>) -> Response<Body> {
        let routes = self.routes();
        match routes.function(function) {
            Some(backend) => self.answer(backend, None, None, None, request).await,
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

    /// Answers a request that is for a function, by way of a tunnel if one exposes it.
    async fn answer(
        &self,
        backend: &FunctionBackend,
        tunnel: Option<&Key>,
        route: Option<&str>,
        origin: Option<Origin>,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let asked = Asked {
            function: Some(&backend.key),
            route,
            ..Asked::default()
        };
        let (id, span) = self.begin(&mut request, origin, asked);
        // Who signed in at a tunnel of this host is known there alone.
        if tunnel.is_none() {
            remove_own_cookies(request.headers_mut());
        }
        if let (Some(tunnel), Some(origin)) = (tunnel, origin) {
            let route = route.unwrap_or_default();
            // On the heap, since every request would have room for it.
            let admitted = Box::pin(self.admit(tunnel, route, origin.client, &mut request));
            match admitted.await {
                Ok(None) => {}
                Ok(Some(answer)) => return ended(span, end(id, Ok(answer))),
                Err(error) => return ended(span, end(id, Err(error))),
            }
        }
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
        origin: Origin,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let asked = Asked {
            tunnel: Some(tunnel),
            route: Some(route),
            ..Asked::default()
        };
        let upgrade = Upgrade::wished(&mut request);
        let (id, span) = self.begin(&mut request, Some(origin), asked);
        let answered = async {
            let admitted = self
                .admit(tunnel, route, origin.client, &mut request)
                .await?;
            if let Some(answer) = admitted {
                return Ok(answer);
            }
            let headers = request.headers_mut();
            headers::join_cookies(headers);
            if let Some(upgrade) = &upgrade {
                upgrade.ask(headers);
            }
            *request.version_mut() = Version::HTTP_11;
            let (request, copy) = gather(request).await?;
            let answer = self.tunnels.answer(tunnel, request, copy, upgrade);
            Ok::<_, ForwardError>(answer.await?)
        };
        let mut response = end(id, answered.await);
        tunnel::announce(&mut response);
        ended(span, response)
    }

    /// Lets a request that came by a tunnel in, by the tunnel's rules; or answers it in place of the service. Its headers
    /// say by now whom it came from.
    async fn admit(
        &self,
        tunnel: &Key,
        route: &str,
        peer: IpAddr,
        request: &mut Request<Body>,
    ) -> Result<Option<Response<Body>>, ForwardError> {
        let tunnels = self.tunnels.carried();
        // What is not known here yet may have rules.
        let live = tunnels.get(tunnel);
        let live = live.ok_or_else(|| TunnelError::NoTarget(tunnel::name_of(tunnel)))?;
        let client = client_of(peer, request.headers(), &tunnels.proxies().forwarding);
        let admitted = tunnels.doorman().admit(&live, client, route, request);
        Ok(admitted.await?)
    }

    /// Where a host is to be asked for by https. `None` until there is a certificate for it.
    fn https_port(&self, host: &str) -> Option<u16> {
        let served_at = self.tunnels.carried().names.served_at(&plain_host(host));
        served_at.map(|port| self.https_port.unwrap_or(port))
    }

    /// Whether it came by a proxy of the swarm's settings, which says for whom.
    fn is_trusted(&self, origin: Origin) -> bool {
        let proxies = self.tunnels.carried().proxies();
        proxies.forwarding.contains(origin.client)
    }

    /// Whether a tunnel may turn somebody away; of one that is not known here yet nobody knows.
    fn is_guarded(&self, tunnel: &Key) -> bool {
        let live = self.tunnels.carried().get(tunnel);
        live.is_some_and(|live| live.tunnel().is_guarded())
    }

    /// Makes the headers of a request such as they go on; its id, and its span.
    fn begin(
        &self,
        request: &mut Request<Body>,
        origin: Option<Origin>,
        asked: Asked<'_>,
    ) -> (HeaderValue, Option<RequestSpan>) {
        let received = request.version();
        headers::clean(request.headers_mut());
        headers::to_origin_form(request);
        if let Some(origin) = origin {
            let is_trusted = self.is_trusted(origin);
            headers::add_origin(request.headers_mut(), origin, is_trusted);
        }
        headers::add_via(request.headers_mut(), received);
        let id = invoke::request_id(request.headers_mut());
        (id, self.begin_span(request, asked))
    }
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
