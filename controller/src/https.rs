//! HTTPS for the API: TLS 1.3, HTTP/1.1 and HTTP/2, bounded, drained on stop.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use hive_identity::{ClientAuthority, ClientCertificate, ClientCertificateError};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::accept::{Accepted, Doorway};
use crate::linger::Lingering;
use crate::patience::{self, Punctual};

/// Handshakes and request headers that take longer are given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once; more wait in the kernel's queue. A watch holds one: this is a thousand
/// watchers and room besides.
const MAX_CONNECTIONS: usize = 2048;

/// Requests under way may finish for this long when the controller stops; watches are cut.
const DRAIN: Duration = Duration::from_secs(5);

/// Clients of HTTP/2 are asked whether they are still there: a watch that nothing happens on would
/// outlive them.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Where a request comes from; every request carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub SocketAddr);

/// What the client of a connection showed in the handshake, and what that is worth: judged when the
/// first request asks, once for all of the connection. Every request carries it as an extension.
#[derive(Clone, Debug)]
pub struct ClientChain(Arc<Chain>);

#[derive(Debug)]
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    verdict: OnceLock<Result<Arc<ClientCertificate>, ClientCertificateError>>,
}

impl ClientChain {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(Chain {
            certificates,
            verdict: OnceLock::new(),
        }))
    }

    /// Who it says that the client is. Time passes: whether it has expired is to be asked anew.
    pub fn judged_by(
        &self,
        clients: &ClientAuthority,
    ) -> Result<&Arc<ClientCertificate>, &ClientCertificateError> {
        let Chain {
            certificates,
            verdict,
        } = &*self.0;
        verdict
            .get_or_init(|| clients.judge(certificates, SystemTime::now()).map(Arc::new))
            .as_ref()
    }
}

/// Serves until cancelled, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    cancel: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let doorway = Doorway::new(listener, MAX_CONNECTIONS, "API");
    let graceful = GracefulShutdown::new();
    while let Some(Accepted {
        stream,
        remote,
        place,
    }) = doorway.accept(&cancel).await
    {
        let acceptor = acceptor.clone();
        let router = router.clone();
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, remote, acceptor, router, watcher).await {
                tracing::debug!(error, "API connection ended");
            }
            drop(place);
        });
    }
    drop(doorway);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("connections to the API were cut off after {DRAIN:?}");
    }
}

async fn converse(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    patience::prepare(&stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates();
    let shown = shown.map(|chain| ClientChain::new(chain.to_vec()));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL);
    let stream = Punctual::new(stream, HANDSHAKE_TIMEOUT);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(RemoteAddress(remote));
        if let Some(shown) = &shown {
            request.extensions_mut().insert(shown.clone());
        }
        request.map(Lingering::from)
    });
    let connection = server
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned();
    watcher.watch(connection).await
}
