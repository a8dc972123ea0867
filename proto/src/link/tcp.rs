//! A link over TLS and TCP, for networks that block UDP and devices whose UDP is broken.
//! One task a link drives yamux; handles ask it for streams and are handed those of the peer.
//! Its streams are [`Chunked`], because yamux alone can't tell a whole stream from half of one.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use hive_identity::{CONTROLLER_SERVER_NAME, MANY_STREAMS_ALPN, Peer};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use yamux::Mode;

use super::chunked::Chunked;
use super::fate::Fate;
use super::heartbeat::{Closing, Counted, Heard, Verdict, beat};
use super::last_words::LastWords;
use super::settings::{MANY_STREAMS_OVER_TCP, STREAM_WINDOW};
use super::stream::Io;
use super::tether::Tethered;
use super::{DialError, GOODBYE_TIMEOUT, Link, LinkError, LinkSettings, ListenError};

pub(super) type Bidi = Tethered<Compat<yamux::Stream>>;

/// Requests for a stream that the driver hasn't seen yet. Each is answered at once, so they queue
/// only while the task waits for a core.
const OPEN_BACKLOG: usize = 16;

/// What one side may open, unless both know that it may be more.
const MAX_STREAMS: u32 = 256;

/// Streams of a peer without a certificate: it enrols in one. Yamux bounds memory per stream only,
/// and strangers must not be given much of it.
const STRANGERS_STREAMS: u32 = 4;

/// Peers see the end of a stream at different times, so one side may hold streams that the other
/// has already replaced. Those of this many beyond the bound are reset.
const INCOMING_SLACK: u32 = 256;

/// Streams that may be open at once.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// By this side.
    opens: u32,
    /// By the other.
    lets_in: u32,
}

impl Bounds {
    /// The same for both sides.
    fn equal(most: u32) -> Self {
        let most = most.min(MAX_STREAMS);
        Self {
            opens: most,
            lets_in: most,
        }
    }

    /// Those who dialled let in more, where both know that.
    fn new(mode: Mode, knows_of_many: bool, most: u32) -> Self {
        let equal = Self::equal(most);
        match (mode, knows_of_many) {
            (_, false) => equal,
            (Mode::Client, true) => Self {
                lets_in: MANY_STREAMS_OVER_TCP,
                ..equal
            },
            (Mode::Server, true) => Self {
                opens: MANY_STREAMS_OVER_TCP,
                ..equal
            },
        }
    }
}

#[derive(Clone)]
pub(super) struct Connection(Arc<Shared>);

struct Shared {
    fate: Arc<Fate>,
    closing: Arc<Closing>,
    gone: CancellationToken,
    most_streams: u32,
    places: Arc<Semaphore>,
    opens: mpsc::Sender<OpenRequest>,
    incoming: Mutex<mpsc::Receiver<Bidi>>,
}

type OpenRequest = oneshot::Sender<yamux::Stream>;

impl Connection {
    pub(super) async fn open(&self) -> Result<Io, LinkError> {
        let shared = &*self.0;
        let asking = async {
            let place = shared.places.clone().acquire_owned().await.ok()?;
            let (request, answer) = oneshot::channel();
            shared.opens.send(request).await.ok()?;
            let stream = answer.await.ok()?;
            let stream = Tethered::new(stream.compat(), shared.fate.token(), Some(place));
            Some(Io::Tcp(Chunked::new(stream)))
        };
        tokio::select! {
            biased;
            end = shared.fate.ended() => Err(end),
            // Between the wish to close and the end.
            _ = shared.closing.wished() => Err(LinkError::ClosedHere),
            io = asking => match io {
                Some(io) => Ok(io),
                None => Err(shared.fate.ended().await),
            }
        }
    }

    pub(super) async fn accept(&self) -> Result<Io, LinkError> {
        match self.0.incoming.lock().await.recv().await {
            Some(stream) => Ok(Io::Tcp(Chunked::new(stream))),
            None => Err(self.0.fate.ended().await),
        }
    }

    pub(super) fn close(&self, reason: &str) {
        self.0.closing.wish(reason);
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.0.fate
    }

    pub(super) fn most_streams(&self) -> u32 {
        self.0.most_streams
    }

    /// The socket is closed.
    pub(super) async fn gone(&self) {
        self.0.gone.cancelled().await;
    }
}

/// Connects, and waits until the server has let this side in.
pub(super) async fn dial(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    settings: LinkSettings,
) -> Result<Link, DialError> {
    let unreachable = |error| DialError::unreachable(address, error);
    let socket = TcpStream::connect(address).await.map_err(unreachable)?;
    // Small frames of many streams: the last thing they need is to wait for each other.
    socket.set_nodelay(true).map_err(unreachable)?;
    let (socket, heard) = Counted::new(LastWords::new(socket));
    let name = ServerName::try_from(CONTROLLER_SERVER_NAME).expect("a DNS name");
    let tls = TlsConnector::from(tls)
        .connect(name, socket)
        .await
        .map_err(|error| DialError::from_io(address, error))?;
    let peer = leaf_of(client_certificates(&tls)).map_err(DialError::tls)?;

    let is_many = tls.get_ref().1.alpn_protocol() == Some(MANY_STREAMS_ALPN);
    let bounds = Bounds::new(Mode::Client, is_many, settings.max_streams);
    let (connection, welcome) = start(tls, Mode::Client, heard, bounds, settings);
    let fate = connection.0.fate.clone();
    let link = Link::new(super::Connection::Tcp(connection), peer, Some(address));
    // In TLS 1.3 a server judges the client's certificate after the client is done.
    match welcome.await {
        Ok(()) => Ok(link),
        Err(_) => Err(DialError::from_end(address, fate.ended().await)),
    }
}

/// The server's side of [`dial`].
pub(super) async fn accept(
    socket: TcpStream,
    remote: SocketAddr,
    tls: TlsAcceptor,
    settings: LinkSettings,
) -> Result<Link, ListenError> {
    socket.set_nodelay(true)?;
    let (socket, heard) = Counted::new(LastWords::new(socket));
    let tls = tls.accept(socket).await?;
    let peer = leaf_of(server_certificates(&tls))?;
    let is_many = tls.get_ref().1.alpn_protocol() == Some(MANY_STREAMS_ALPN);
    let bounds = match peer {
        Some(_) => Bounds::new(Mode::Server, is_many, settings.max_streams),
        None => Bounds::equal(STRANGERS_STREAMS),
    };
    let (connection, _) = start(tls, Mode::Server, heard, bounds, settings);
    Ok(Link::new(
        super::Connection::Tcp(connection),
        peer,
        Some(remote),
    ))
}

fn client_certificates<T>(tls: &client::TlsStream<T>) -> Option<&[CertificateDer<'static>]> {
    tls.get_ref().1.peer_certificates()
}

fn server_certificates<T>(tls: &server::TlsStream<T>) -> Option<&[CertificateDer<'static>]> {
    tls.get_ref().1.peer_certificates()
}

/// Who the first certificate of a verified chain names; `None` without one.
pub(super) fn leaf_of(
    chain: Option<&[CertificateDer<'static>]>,
) -> Result<Option<Peer>, hive_identity::PeerError> {
    chain
        .and_then(<[_]>::first)
        .map(Peer::from_certificate)
        .transpose()
}

fn start<T>(
    io: T,
    mode: Mode,
    heard: Heard,
    bounds: Bounds,
    settings: LinkSettings,
) -> (Connection, oneshot::Receiver<()>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A stranger's slack is as small as its bound.
    let max_incoming = bounds.lets_in + INCOMING_SLACK.min(bounds.lets_in);
    let (opens, open_requests) = mpsc::channel(OPEN_BACKLOG);
    let (arrived, incoming) = mpsc::channel(max_incoming as usize);
    let (welcome, welcomed) = oneshot::channel();
    let connection = Connection(Arc::new(Shared {
        fate: Arc::default(),
        closing: Arc::default(),
        gone: CancellationToken::new(),
        most_streams: bounds.opens,
        places: Arc::new(Semaphore::new(bounds.opens as usize)),
        opens,
        incoming: Mutex::new(incoming),
    }));
    let driver = Driver {
        mux: yamux::Connection::new(io.compat(), yamux_config(bounds.opens, max_incoming), mode),
        mode,
        heard,
        settings,
        fate: connection.0.fate.clone(),
        closing: connection.0.closing.clone(),
        gone: connection.0.gone.clone(),
        open_requests,
        arrived,
        places: Arc::new(Semaphore::new(max_incoming as usize)),
    };
    tokio::spawn(driver.run(welcome));
    (connection, welcomed)
}

fn yamux_config(opens: u32, incoming: u32) -> yamux::Config {
    let mut config = yamux::Config::default();
    // Reaching this limit ends the connection, so it must never be: the bounds that count are the
    // two semaphores. This leaves room for the control stream and for streams that were dropped
    // while a stuck socket keeps yamux from noticing.
    let streams = (2 * opens + incoming + 8) as usize;
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(streams);
    // The least allowed: windows never grow beyond what each stream starts with.
    config.set_max_connection_receive_window(Some(streams * STREAM_WINDOW as usize));
    config
}

struct Driver<T> {
    mux: yamux::Connection<Compat<T>>,
    mode: Mode,
    heard: Heard,
    settings: LinkSettings,
    fate: Arc<Fate>,
    closing: Arc<Closing>,
    gone: CancellationToken,
    open_requests: mpsc::Receiver<OpenRequest>,
    arrived: mpsc::Sender<Bidi>,
    places: Arc<Semaphore>,
}

enum Event {
    Opened(Result<yamux::Stream, yamux::ConnectionError>),
    Arrived(Option<Result<yamux::Stream, yamux::ConnectionError>>),
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Driver<T> {
    async fn run(mut self, welcome: oneshot::Sender<()>) {
        let end = self.drive(welcome).await;
        tracing::debug!(end = %end, "a link over tcp ended");
        self.fate.seal(end);
        // Sends what streams have queued, and yamux's and TLS's own goodbyes.
        let closed = poll_fn(|cx| self.mux.poll_close(cx));
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, closed).await;
        self.gone.cancel();
    }

    async fn drive(&mut self, welcome: oneshot::Sender<()>) -> LinkError {
        let (control_arrived, control) = oneshot::channel();
        let mut control_arrived = Some(control_arrived);
        if self.mode == Mode::Client {
            match poll_fn(|cx| self.mux.poll_new_outbound(cx)).await {
                Ok(stream) => send_control(&mut control_arrived, stream),
                Err(error) => return lost(error),
            }
        }
        let heard = self.heard.clone();
        let settings = self.settings.clone();
        let closing = self.closing.clone();
        let control = async { control.await.ok().map(yamux::Stream::compat) };
        let heartbeat = beat(control, &heard, &settings, &closing, welcome);
        tokio::pin!(heartbeat);

        let mut wanted: Option<OpenRequest> = None;
        loop {
            let event = poll_fn(|cx| {
                if wanted.is_some()
                    && let Poll::Ready(opened) = self.mux.poll_new_outbound(cx)
                {
                    return Poll::Ready(Event::Opened(opened));
                }
                self.mux.poll_next_inbound(cx).map(Event::Arrived)
            });
            tokio::select! {
                event = event => match event {
                    Event::Opened(Ok(stream)) => {
                        // Whoever asked may have left; then the stream was never begun.
                        let _ = wanted.take().map(|wanted| wanted.send(stream));
                    }
                    Event::Arrived(Some(Ok(stream))) => {
                        if control_arrived.is_some() {
                            send_control(&mut control_arrived, stream);
                        } else {
                            self.arrived(stream);
                        }
                    }
                    Event::Opened(Err(error)) | Event::Arrived(Some(Err(error))) => {
                        return goodbye(heartbeat.as_mut().now_or_never()).unwrap_or_else(|| lost(error));
                    }
                    Event::Arrived(None) => {
                        return goodbye(heartbeat.as_mut().now_or_never()).unwrap_or(LinkError::Lost);
                    }
                },
                Some(request) = self.open_requests.recv(), if wanted.is_none() => {
                    wanted = Some(request).filter(|request| !request.is_closed());
                }
                verdict = &mut heartbeat => {
                    return goodbye(Some(verdict)).unwrap_or(LinkError::Lost);
                }
            }
        }
    }

    fn arrived(&self, stream: yamux::Stream) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::debug!("resetting a stream: the peer has too many open");
            return;
        };
        let stream = Tethered::new(stream.compat(), self.fate.token(), Some(place));
        // As many wait here as have a place: full it can't be, only without a receiver.
        let _ = self.arrived.try_send(stream);
    }
}

/// The control stream is the client's first; the server takes whichever comes first for it, which
/// is that one, as nothing is opened before the first beat is answered.
fn send_control<S>(to: &mut Option<oneshot::Sender<S>>, stream: S)
where
    S: Send,
{
    if let Some(to) = to.take() {
        let _ = to.send(stream);
    }
}

fn goodbye(verdict: Option<Verdict>) -> Option<LinkError> {
    match verdict? {
        Verdict::Silent => Some(LinkError::TimedOut),
        Verdict::Goodbye(reason) => Some(LinkError::ClosedByPeer { reason }),
        Verdict::GoodbyeSaid => Some(LinkError::ClosedHere),
        Verdict::Ended => None,
    }
}

fn lost(error: yamux::ConnectionError) -> LinkError {
    match error {
        yamux::ConnectionError::Closed => LinkError::Lost,
        yamux::ConnectionError::Io(error) => LinkError::failed(error),
        other => LinkError::failed(other),
    }
}
