//! A link over QUIC: streams, flow control, keep-alive and a change of address are QUIC's own.
//! What this adds is the server's welcome, so that a link counts as made only when the server has
//! judged the client, the reset of streams that are dropped unfinished ([`bidi`]), and that streams which
//! nobody reads take nothing from others ([`reads`]).

mod bidi;
mod outstanding;
mod reads;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hive_identity::{CONTROLLER_SERVER_NAME, MANY_STREAMS_ALPN, Peer, PeerError};
use quinn::crypto::rustls::{
    HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig,
};
use quinn::{
    ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming,
    SendDatagramError, TokioRuntime, TransportConfig, VarInt,
};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;

use super::heartbeat::MAX_REASON_BYTES;
use super::settings::{DATAGRAM_BUFFER, LINK_WINDOW, MANY_STREAMS, OWN_WINDOW, STREAM_WINDOW};
use super::stream::Io;
use super::{
    DialError, Link, LinkError, LinkSettings, ListenError, NotSent, ResetSecret, mtu, udp,
};
pub(super) use bidi::Bidi;
use reads::Reads;

/// The only application code there is; the reason's text says the rest.
const CLOSED: VarInt = VarInt::from_u32(0);

/// Handshakes begun by others that nobody has taken yet; the listener takes them as fast as it
/// may, and QUIC clients ask again.
const MAX_INCOMING: usize = 64;

/// Streams that who dialled may have open at a listener: a session, a few downloads, Raft's lanes. Quinn
/// keeps a place for each from the begin, 70 bytes, on every link that a controller has.
const MAX_STREAMS_TO_LISTENER: u32 = 32;

/// What early packets of those may occupy, in all.
const MAX_INCOMING_BYTES: u64 = 1024 * 1024;

#[derive(Clone)]
pub(super) struct Connection {
    connection: quinn::Connection,
    /// The socket of a dialled link, if that is its own.
    own_endpoint: Option<Endpoint>,
    /// What the peer lets this side have open at once.
    most_streams: u32,
    /// What this side lets the peer have open just now. `None` where that stays as it began.
    let_in: Option<Arc<AtomicU32>>,
    reads: Arc<Reads>,
}

impl Connection {
    pub(super) async fn open(&self) -> Result<Io, LinkError> {
        let (send, recv) = self.connection.open_bi().await.map_err(end)?;
        Ok(Io::Quic(Bidi::new(send, recv, &self.reads)))
    }

    pub(super) async fn accept(&self) -> Result<Io, LinkError> {
        let (send, recv) = self.connection.accept_bi().await.map_err(end)?;
        Ok(Io::Quic(Bidi::new(send, recv, &self.reads)))
    }

    pub(super) fn close(&self, reason: &str) {
        let cut = reason.floor_char_boundary(MAX_REASON_BYTES);
        self.connection.close(CLOSED, &reason.as_bytes()[..cut]);
    }

    pub(super) async fn closed(&self) -> LinkError {
        end(self.connection.closed().await)
    }

    pub(super) fn end(&self) -> Option<LinkError> {
        self.connection.close_reason().map(end)
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(super) fn most_streams(&self) -> u32 {
        self.most_streams
    }

    /// Lets the peer open twice as many streams once half of those that it may have are open: each takes a place
    /// in quinn's tables from then on, which most links do without.
    pub(super) fn let_more_in(&self, open: usize) {
        let Some(let_in) = &self.let_in else {
            return;
        };
        let now = let_in.load(Ordering::Relaxed);
        if now >= MANY_STREAMS || open < now as usize / 2 {
            return;
        }
        let more = now.saturating_mul(2).min(MANY_STREAMS);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if let_in.compare_exchange(now, more, set, fetch).is_ok() {
            self.connection
                .set_max_concurrent_bi_streams(with_reads(more));
        }
    }

    pub(super) fn longest_datagram(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    pub(super) fn send_datagram(&self, datagram: Bytes) -> Result<(), NotSent> {
        // Quinn would make room by dropping others, and nobody would have counted them.
        if self.connection.datagram_send_buffer_space() < datagram.len() {
            return Err(NotSent::Full);
        }
        let sent = self.connection.send_datagram(datagram);
        sent.map_err(|error| match error {
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::TooLarge => NotSent::TooLong,
            SendDatagramError::ConnectionLost(_) => NotSent::Ended,
        })
    }

    pub(super) async fn datagram(&self) -> Option<Bytes> {
        self.connection.read_datagram().await.ok()
    }

    /// Packets received.
    pub(super) fn heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// The goodbye was sent. For an accepted link the listener waits, whose socket it is.
    pub(super) async fn gone(&self) {
        if let Some(endpoint) = &self.own_endpoint {
            endpoint.wait_idle().await;
        }
    }
}

/// Connects, and waits until the server has let this side in.
pub(super) async fn dial(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    settings: LinkSettings,
) -> Result<Link, DialError> {
    let unreachable = |error| DialError::unreachable(address, error);
    let (endpoint, own_socket, longest) = match &settings.socket {
        Some(shared) => (shared.endpoint.clone(), None, mtu::ETHERNET),
        None => {
            let longest = mtu::toward(address);
            let socket = udp::Socket::toward(address, longest).map_err(unreachable)?;
            let endpoint = Endpoint::new_with_abstract_socket(
                mtu::taking(longest, EndpointConfig::default()),
                None,
                socket.clone(),
                Arc::new(TokioRuntime),
            )
            .map_err(unreachable)?;
            (endpoint, Some(socket), longest)
        }
    };

    let crypto = QuicClientConfig::try_from(tls).map_err(DialError::tls)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    // One stream from the server's side: its welcome.
    let mut transport = transport_config(&settings, settings.max_streams, 1, longest);
    transport.keep_alive_interval(Some(settings.keep_alive));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint
        .connect_with(config, address, CONTROLLER_SERVER_NAME)
        .map_err(|error| DialError::unreachable(address, io::Error::other(error)))?;

    let handshake = async {
        let connection = connecting.await?;
        // In TLS 1.3 a server judges the client's certificate after the client is done.
        connection.accept_uni().await?;
        Ok::<_, ConnectionError>(connection)
    };
    let fault = async {
        match &own_socket {
            Some(socket) => socket.fault().await,
            None => std::future::pending().await,
        }
    };
    let connection = tokio::select! {
        connection = handshake => connection.map_err(|error| dial_error(address, error))?,
        error = fault => return Err(unreachable(error)),
    };
    let peer = peer_of(&connection).map_err(DialError::tls)?;
    let connection = Connection {
        reads: Reads::new(connection.clone()),
        connection,
        own_endpoint: own_socket.map(|_| endpoint),
        most_streams: MAX_STREAMS_TO_LISTENER,
        let_in: Some(Arc::new(AtomicU32::new(settings.max_streams))),
    };
    Ok(Link::new(
        super::Connection::Quic(connection),
        peer,
        Some(address),
    ))
}

/// The server's side of [`dial`].
pub(super) async fn accept(incoming: Incoming) -> Result<Link, ListenError> {
    let connection = incoming.accept()?.await?;
    let peer = match peer_of(&connection) {
        Ok(peer) => peer,
        Err(error) => {
            connection.close(CLOSED, error.to_string().as_bytes());
            return Err(error.into());
        }
    };
    // Dropping it ends it; an empty stream that ended is seen all the same.
    connection.open_uni().await?;
    let remote = connection.remote_address();
    let most_streams = match knows_of_many(&connection) {
        true => MANY_STREAMS,
        false => LinkSettings::default().max_streams,
    };
    let connection = Connection {
        reads: Reads::new(connection.clone()),
        connection,
        own_endpoint: None,
        most_streams,
        let_in: None,
    };
    Ok(Link::new(
        super::Connection::Quic(connection),
        peer,
        Some(remote),
    ))
}

/// Whether the peer lets in more streams as they come.
fn knows_of_many(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(MANY_STREAMS_ALPN))
}

pub(super) fn server_config(
    tls: Arc<rustls::ServerConfig>,
    settings: &LinkSettings,
) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    let crypto = QuicServerConfig::try_from(tls)?;
    let streams = settings.max_streams.min(MAX_STREAMS_TO_LISTENER);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport_config(settings, streams, 0, mtu::LONGEST);
    transport.keep_alive_interval(Some(settings.keep_alive * 4 / 3));
    config
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size_total(MAX_INCOMING_BYTES)
        .transport_config(Arc::new(transport));
    Ok(config)
}

/// The endpoint of a listener. Must be called inside a Tokio runtime.
pub(super) fn listen(
    server: quinn::ServerConfig,
    at: SocketAddr,
    settings: &LinkSettings,
) -> io::Result<Endpoint> {
    let config = match &settings.resets {
        Some(secret) => recognizing(secret),
        None => EndpointConfig::default(),
    };
    let socket = std::net::UdpSocket::bind(at)?;
    udp::make_room(&socket);
    let config = mtu::taking(mtu::LONGEST, config);
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
}

/// Answers packets of connections that an earlier process accepted.
fn recognizing(ResetSecret(secret): &ResetSecret) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
    config.cid_generator(|| Box::new(PlainIds(SystemRandom::new())));
    config
}

/// Random connection ids. Quinn's own carry a checksum that only the process knows which made them,
/// and what lacks it is not answered. Strays are answered here too: quinn sends at most 50 resets a
/// second, each shorter than what caused it.
struct PlainIds(SystemRandom);

/// As long as quinn's own: enough for as many links as there are ports, many times over.
const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for PlainIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0
            .fill(&mut id)
            .expect("the operating system provides random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Streams that a peer may open, and the one in which it tells what it has read.
fn with_reads(streams: u32) -> VarInt {
    (streams + 1).into()
}

/// With the streams that the other side may open. How often it is kept alive is left to the sides: who dialled
/// does it, since what leaves a home network keeps its mapping, and whoever listens only where nothing came
/// for a third longer. Did both at once, they would say everything twice.
fn transport_config(
    settings: &LinkSettings,
    max_streams: u32,
    max_uni_streams: u32,
    longest_packet: u16,
) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = VarInt::try_from(settings.idle_timeout.as_millis()).unwrap_or(VarInt::MAX);
    config
        .max_idle_timeout(Some(idle.into()))
        .max_concurrent_bidi_streams(with_reads(max_streams))
        .max_concurrent_uni_streams(max_uni_streams.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(LINK_WINDOW.into())
        // What is sent and not yet acknowledged is held here. While nothing is heard of what the peer reads nothing bounds
        // it but this: it is as if all streams were the link's own. Then it is as much as a peer takes.
        .send_window(OWN_WINDOW.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(Some(mtu::discovery(longest_packet)))
        // Android kernels accept the option and then fail to send.
        .enable_segmentation_offload(!cfg!(target_os = "android"));
    config
}

fn peer_of(connection: &quinn::Connection) -> Result<Option<Peer>, PeerError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    super::tcp::leaf_of(chain.as_ref().map(|chain| &chain[..]))
}

fn end(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::LocallyClosed => LinkError::ClosedHere,
        ConnectionError::ApplicationClosed(close) => LinkError::ClosedByPeer {
            reason: String::from_utf8_lossy(&close.reason).into(),
        },
        ConnectionError::TimedOut => LinkError::TimedOut,
        ConnectionError::Reset => LinkError::Lost,
        other => LinkError::failed(other),
    }
}

fn dial_error(address: SocketAddr, error: ConnectionError) -> DialError {
    // QUIC puts TLS alerts at 0x100 + alert, whichever side raised them.
    let is_tls = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
    match error {
        ConnectionError::TransportError(error) if is_tls(error.code) => DialError::tls(error),
        ConnectionError::ConnectionClosed(ref close) if is_tls(close.error_code) => {
            DialError::tls(error)
        }
        ConnectionError::ApplicationClosed(close) => DialError::Refused {
            reason: String::from_utf8_lossy(&close.reason).into(),
        },
        other => DialError::unreachable(address, io::Error::from(other)),
    }
}
