//! What clients of one onion service open: circuits, and streams in them, which are no more when the door is dropped.
//!
//! Requests go to the ingress under the tunnel's host; other connections are carried as those at a port of their own.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{FORWARDED, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::{RendRequest, StreamRequest};
use tor_proto::client::stream::DataStream;
use tor_proto::stream::IncomingStreamRequest;

use super::Tor;
use super::onions::Onion;
use crate::gateway::BoxError;
use crate::ingress::{Origin, Scheme, misdirected};
use crate::linger::Lingering;
use crate::state::Key;
use crate::tunnels::access::forget_identity;
use crate::tunnels::carry::{Client, Wire, carry};

/// Connections of one service at once; more wait in their circuits. A relay carries fewer.
const MAX_CONNECTIONS: usize = 512;

/// Circuits to one service at once, one for each client as a rule; more wait in a queue of Arti's, which is short.
const MAX_CIRCUITS: usize = 1024;

/// For a circuit to a client to be made, across six relays.
const MEETING: Duration = Duration::from_secs(60);

/// A circuit without a connection. Clients leave theirs after ten minutes, and make another one when they come again.
const IDLE: Duration = Duration::from_secs(600);

/// As at the ingress; what comes through six relays is slower.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// As whom targets and logs know a client: it has no address.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a client could pretend to have come through.
const ORIGIN: [HeaderName; 5] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

pub struct Door {
    _accepting: AbortOnDropHandle<()>,
}

/// To where it leads.
struct Service {
    tor: Tor,
    tunnel: Key,
    port: u16,
    /// That of the tunnel where requests come; connections otherwise.
    host: Option<HeaderValue>,
    places: Arc<Semaphore>,
}

impl Door {
    pub fn open(
        tor: &Tor,
        tunnel: &Key,
        onion: &Onion,
        requests: BoxStream<'static, RendRequest>,
    ) -> Self {
        let host = onion.host.as_deref();
        let service = Service {
            tor: tor.clone(),
            tunnel: tunnel.clone(),
            port: onion.port,
            host: host.and_then(|host| HeaderValue::from_str(host).ok()),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        let accepting = tokio::spawn(accept(Arc::new(service), requests));
        Self {
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }
}

async fn accept(service: Arc<Service>, mut requests: BoxStream<'static, RendRequest>) {
    let mut circuits = JoinSet::new();
    while let Some(request) = requests.next().await {
        while circuits.try_join_next().is_some() {}
        if circuits.len() >= MAX_CIRCUITS {
            circuits.join_next().await;
        }
        circuits.spawn(meet(service.clone(), request));
    }
}

/// Makes a circuit to a client, and takes the connections in it.
async fn meet(service: Arc<Service>, request: RendRequest) {
    let mut requests = match timeout(MEETING, request.accept()).await {
        Ok(Ok(requests)) => requests,
        Ok(Err(error)) => {
            tracing::debug!(tunnel = %service.tunnel, %error, "a client of an onion service was not met");
            return;
        }
        Err(_) => return,
    };
    let circuit = Arc::new(());
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        match timeout(IDLE, requests.next()).await {
            Ok(Some(request)) if service.has(&request) => {
                let place = service.places.clone().acquire_owned().await;
                let held = Held {
                    _place: place.expect("the semaphore is never closed"),
                    _circuit: circuit.clone(),
                };
                open.spawn(take(service.clone(), request, held));
            }
            // As other onion services do: whoever tries ports has to come anew for each.
            Ok(Some(request)) => {
                // It ends all the same.
                let _ = request.shutdown_circuit();
                return;
            }
            Ok(None) => break,
            // What speaks another protocol than HTTP by now is held by the ingress.
            Err(_) if Arc::strong_count(&circuit) > 1 => {}
            Err(_) => return,
        }
    }
    // The circuit is gone; what was open in it finds out.
    while open.join_next().await.is_some() {}
}

/// Answers one connection. What is not accepted is refused when it is dropped.
async fn take(service: Arc<Service>, request: StreamRequest, held: Held) {
    if service.is_elsewhere() {
        return;
    }
    let tunnels = &service.tor.tunnels;
    // A tunnel that this controller does not know yet, or no more, has no targets.
    let Some(live) = tunnels.get(&service.tunnel) else {
        return;
    };
    let stream = match request.accept(Connected::new_empty()).await {
        Ok(stream) => Connection {
            stream,
            _held: held,
        },
        Err(error) => {
            tracing::debug!(tunnel = %service.tunnel, %error, "a client of an onion service is gone");
            return;
        }
    };
    match &service.host {
        Some(host) => {
            let ended = live.ended().clone();
            let answering = answer(service.clone(), host.clone(), stream);
            ended.run_until_cancelled(answering).await;
        }
        None => carry(tunnels.clone(), live, Client::new(stream, NOBODY)).await,
    }
}

impl Service {
    /// Whether it is at the port that is asked for.
    fn has(&self, request: &StreamRequest) -> bool {
        match request.request() {
            IncomingStreamRequest::Begin(begin) => begin.port() == self.port,
            _ => false,
        }
    }

    /// Whether its host is another namespace's: the ingress would answer for that one, and take clients for neighbours, as
    /// they come from this machine.
    fn is_elsewhere(&self) -> bool {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let routes = self.tor.forwarder.routes();
        host.is_some_and(|host| {
            let lost = routes.held_elsewhere(host, &self.tunnel.namespace);
            lost.is_some()
        })
    }
}

/// What a connection takes up while it is open.
struct Held {
    _place: OwnedSemaphorePermit,
    /// The circuit closes when its requests are dropped, which waits for this.
    _circuit: Arc<()>,
}

/// A connection of a client, with what it takes up.
struct Connection {
    stream: DataStream,
    _held: Held,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Wire for Connection {
    fn arrived_at(&self) -> io::Result<SocketAddr> {
        Ok(NOBODY)
    }

    fn has_address(&self) -> bool {
        false
    }

    /// Tor ends a connection in one way only as its client sees it.
    fn abort(self) {}
}

/// Answers the requests of one connection, for as long as the host is the tunnel's.
async fn answer<S>(service: Arc<Service>, host: HeaderValue, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = service_fn(move |mut request: Request<Incoming>| {
        let service = service.clone();
        rename(request.headers_mut(), &host);
        async move {
            let request =
                request.map(|body| Lingering::from(body).map_err(BoxError::from).boxed_unsync());
            if service.is_elsewhere() {
                return Ok::<_, Infallible>(misdirected());
            }
            let origin = Origin {
                client: NOBODY.ip(),
                scheme: Scheme::Http,
            };
            Ok(service.tor.forwarder.by_route(origin, request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answering)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection of an onion service ended");
    }
}

/// The ingress knows the tunnel by its own host; the one that was asked for is told on.
fn rename(headers: &mut HeaderMap, host: &HeaderValue) {
    for name in ORIGIN {
        headers.remove(name);
    }
    // It may be for another tunnel at the same host, whose clients are neighbours.
    forget_identity(headers);
    if let Some(asked) = headers.insert(HOST, host.clone()) {
        headers.insert(FORWARDED_HOST, asked);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use hive_manifests::Resource;
    use http::StatusCode;
    use http_body_util::Empty;
    use hyper::client::conn::http1::handshake;
    use serde_json::json;

    use super::super::world::{World, tunnel};
    use super::*;
    use crate::objects;

    /// For what takes milliseconds.
    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn nobody_is_brought_to_a_host_of_another_namespace() {
        let world = World::new().await;
        for (host, expected) in [
            (None, false),
            (Some("photos.example.org"), false),
            (Some("photos.default.localhost"), false),
            (Some("photos.other.localhost"), true),
        ] {
            let service = Service {
                tor: world.tor.clone(),
                tunnel: tunnel(),
                port: 80,
                host: host.map(HeaderValue::from_static),
                places: Arc::new(Semaphore::new(1)),
            };
            assert_eq!(service.is_elsewhere(), expected, "{host:?}");
        }
    }

    #[tokio::test]
    async fn a_host_that_becomes_another_namespaces_is_left_by_open_connections() {
        let world = World::new().await;
        let host = HeaderValue::from_static("photos.example.org");
        let service = Arc::new(Service {
            tor: world.tor.clone(),
            tunnel: tunnel(),
            port: 80,
            host: Some(host.clone()),
            places: Arc::new(Semaphore::new(1)),
        });
        let (client, server) = tokio::io::duplex(1 << 16);
        let answering = tokio::spawn(answer(service.clone(), host, server));
        let _answering = AbortOnDropHandle::new(answering);
        let (mut sender, connection) = handshake(TokioIo::new(client)).await.unwrap();
        // Ends with its sender.
        tokio::spawn(connection);
        let request = || {
            let request = Request::get("/").header(HOST, "x.onion");
            request.body(Empty::<Bytes>::new()).unwrap()
        };
        // Nobody has a route there yet.
        let answer = sender.send_request(request()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        answer.into_body().collect().await.unwrap();

        let key = |resource, namespace: &str, name: &str| Key::new(resource, namespace, name);
        let spec =
            json!({ "artifact": { "sha256": "00" }, "http": { "host": "photos.example.org" } });
        for (key, content) in [
            (key(Resource::Namespace, "", "other"), json!({})),
            (
                key(Resource::Function, "other", "photos"),
                json!({ "spec": spec }),
            ),
        ] {
            let body = objects::fresh(&key, json!({}), content);
            objects::ensure(&world.replica, key, body).await.unwrap();
        }
        let follows = async {
            while !service.is_elsewhere() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, follows).await.unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn a_request_is_for_the_tunnel_and_from_nobody_in_particular() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("x.onion"));
        for name in ORIGIN {
            headers.insert(name, HeaderValue::from_static("192.0.2.1"));
        }
        let user = HeaderName::from_static("x-auth-request-user");
        headers.insert(user, HeaderValue::from_static("root"));
        rename(
            &mut headers,
            &HeaderValue::from_static("photos.example.org"),
        );
        assert_eq!(headers[HOST], "photos.example.org");
        assert_eq!(headers[FORWARDED_HOST], "x.onion");
        assert_eq!(headers.len(), 2);
    }
}
