//! Accepts links on one port, over UDP and TCP.
//! Handshakes run beside each other in bounded number, so that a slow one delays nobody and a flood
//! takes no more memory than that. Who a peer may be is decided by its owner, not here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hive_identity::PeerError;
use quinn::crypto::rustls::NoInitialCipherSuite;
use quinn::{ConnectionError, Endpoint};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Link, LinkSettings, quic, tcp};

/// Handshakes under way at once, of each transport. A handshake takes 2 ms of a core: this many a
/// second's worth keep one busy, and after a controller's restart its agents are back at once.
const MAX_HANDSHAKES: usize = 128;

/// Links that nobody has accepted yet.
const ACCEPT_BACKLOG: usize = 64;

/// How often another free port is tried when UDP hasn't the one that TCP got.
const PORT_TRIES: usize = 16;

/// After an error of accepting itself (no file descriptors left): others may be closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long [`Listener::close`] waits for the goodbyes of its links to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address} (tcp)")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {address} (udp)")]
    Udp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the TLS configuration cannot serve QUIC")]
    Tls(#[source] NoInitialCipherSuite),
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection failed")]
    Quic(#[from] ConnectionError),
    #[error("the peer's certificate names nobody")]
    Peer(#[from] PeerError),
}

/// Accepts links until it is closed or dropped. Links live on without it, as long as their owners
/// keep them.
pub struct Listener {
    address: SocketAddr,
    links: Mutex<mpsc::Receiver<Link>>,
    quic: Option<Endpoint>,
    accepting: CancellationToken,
    _stop: DropGuard,
}

impl Listener {
    /// Listens on `address` by `settings.transports`; with port 0 on any port that is free for both.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        settings: LinkSettings,
    ) -> Result<Self, BindError> {
        let quic_config = quic::server_config(tls.clone(), &settings).map_err(BindError::Tls)?;
        let (tcp, quic, address) = bind_both(address, quic_config, &settings).await?;

        let accepting = CancellationToken::new();
        let (accepted, links) = mpsc::channel(ACCEPT_BACKLOG);
        if let Some(tcp) = tcp {
            let accept = accept_tcp(tcp, tls.into(), settings.clone(), accepted.clone());
            tokio::spawn(accepting.clone().run_until_cancelled_owned(accept));
        }
        if let Some(quic) = quic.clone() {
            let accept = accept_quic(quic, settings, accepted);
            tokio::spawn(accepting.clone().run_until_cancelled_owned(accept));
        }
        Ok(Self {
            address,
            links: Mutex::new(links),
            quic,
            _stop: accepting.clone().drop_guard(),
            accepting,
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next link; `None` when the listener is closed. Cancel safe.
    pub async fn accept(&self) -> Option<Link> {
        self.links.lock().await.recv().await
    }

    /// Accepts no more, and waits a little until peers of links that were closed were told so.
    /// Close them first: a link still open stays, and is waited for in vain.
    pub async fn close(&self) {
        self.accepting.cancel();
        if let Some(quic) = &self.quic {
            quic.set_server_config(None);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, quic.wait_idle()).await;
        }
    }
}

async fn bind_both(
    address: SocketAddr,
    quic_config: quinn::ServerConfig,
    settings: &LinkSettings,
) -> Result<(Option<TcpListener>, Option<Endpoint>, SocketAddr), BindError> {
    let transports = settings.transports;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut at = address;
        let mut tcp = None;
        if transports.tcp() {
            let failed = |source| BindError::Tcp { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            at = listener.local_addr().map_err(failed)?;
            tcp = Some(listener);
        }
        if !transports.quic() {
            return Ok((tcp, None, at));
        }
        match quic::listen(quic_config.clone(), at, settings).and_then(|quic| {
            let at = quic.local_addr()?;
            Ok((quic, at))
        }) {
            Ok((quic, at)) => return Ok((tcp, Some(quic), at)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && tries < PORT_TRIES => {}
            Err(source) => {
                return Err(BindError::Udp {
                    address: at,
                    source,
                });
            }
        }
    }
}

async fn accept_tcp(
    listener: TcpListener,
    tls: TlsAcceptor,
    settings: LinkSettings,
    accepted: mpsc::Sender<Link>,
) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        // Taken before the connection: the rest waits in the kernel's backlog.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (socket, remote) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handshake = tcp::accept(socket, remote, tls.clone(), settings.clone());
        let admission = admit(
            remote,
            handshake,
            settings.handshake_timeout,
            accepted.clone(),
            place,
        );
        tokio::spawn(admission);
    }
}

async fn accept_quic(quic: Endpoint, settings: LinkSettings, accepted: mpsc::Sender<Link>) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        // Taken before the connection: quinn holds a few more, and drops the rest.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Some(incoming) = quic.accept().await else {
            return;
        };
        let remote = incoming.remote_address();
        let handshake = quic::accept(incoming);
        let admission = admit(
            remote,
            handshake,
            settings.handshake_timeout,
            accepted.clone(),
            place,
        );
        tokio::spawn(admission);
    }
}

/// Has its place among the handshakes until it ends.
async fn admit(
    remote: SocketAddr,
    handshake: impl Future<Output = Result<Link, ListenError>>,
    timeout: Duration,
    accepted: mpsc::Sender<Link>,
    _place: OwnedSemaphorePermit,
) {
    match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(link)) => {
            tracing::debug!(?link, "accepted a link");
            // Closed meanwhile: the link goes with its only handle.
            let _ = accepted.send(link).await;
        }
        // At debug: anybody who reaches the port can cause it.
        Ok(Err(error)) => {
            tracing::debug!(%remote, error = &error as &dyn std::error::Error, "refused a link");
        }
        Err(_) => tracing::debug!(%remote, "a handshake took too long"),
    }
}
