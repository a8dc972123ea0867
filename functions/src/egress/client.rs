//! Sends one function's requests.
//!
//! A request whose destination was judged comes in and its answer goes out, over a connection that
//! is idle or over a new one. Connections belong to one function: none ever carries another's
//! requests, and at no time are there more than the function, and all of the node, may have.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::future;
use http::{Method, Uri, uri::PathAndQuery};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{
    Told,
    allowed::AllowedHosts,
    connect::{ConnectError, Connector, Stream},
    connections::{Connections, Place},
    destination::Destination,
    error,
    idle::{Connection, Idle},
    response::Response,
};
use crate::{abort::AbortOnDrop, limits::EgressLimits};

/// Connections of all functions of a node together. Each is an open file, of which a process
/// commonly has 1,024 to many thousands, and the agent needs some for itself.
const CONNECTIONS_OF_NODE: u32 = 1024;

/// How long a connection is kept that nobody uses: less than servers commonly keep theirs, so that
/// few requests meet one that is just being closed.
const KEPT: Duration = Duration::from_secs(55);

/// What hyper may buffer of one connection in each direction: the largest head of an answer, as
/// much as wasmtime lets a guest put into the head of a request.
const BUFFER: usize = 128 * 1024;

/// How long a connection may take to become idle after its answer was read: the rest of the
/// request's body may still have to be sent.
const BECOMES_IDLE: Duration = Duration::from_secs(5);

/// What the functions of a runtime share of the way out.
pub(crate) struct Outbound {
    connector: Connector,
    open: Arc<Connections>,
    /// How long idle connections are.
    kept: Duration,
    clients: Mutex<Vec<Weak<Client>>>,
}

/// One function's way out.
pub(crate) struct Client {
    outbound: Arc<Outbound>,
    allowed: AllowedHosts,
    limits: EgressLimits,
    open: Arc<Connections>,
    idle: Mutex<Idle>,
}

enum Found {
    Idle(Connection),
    Places(Places),
}

/// What one connection takes.
struct Places {
    _of_function: Place,
    _of_node: Place,
}

impl Outbound {
    pub(crate) fn new(resolver: Arc<dyn super::Resolve>) -> Arc<Self> {
        Self::with(Connector::new(resolver), CONNECTIONS_OF_NODE, KEPT)
    }

    pub(super) fn with(connector: Connector, connections: u32, kept: Duration) -> Arc<Self> {
        Arc::new(Self {
            connector,
            open: Connections::up_to(connections),
            kept,
            clients: Mutex::default(),
        })
    }

    pub(crate) fn client(
        self: &Arc<Self>,
        allowed: AllowedHosts,
        limits: EgressLimits,
    ) -> Arc<Client> {
        let client = Arc::new(Client {
            outbound: self.clone(),
            allowed,
            open: Connections::up_to(limits.max_connections),
            limits,
            idle: Mutex::default(),
        });
        let mut clients = lock(&self.clients);
        clients.retain(|client| client.strong_count() > 0);
        clients.push(Arc::downgrade(&client));
        client
    }

    /// Closes one idle connection of every function.
    fn close_idle(&self) {
        let clients: Vec<_> = lock(&self.clients)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for client in clients {
            lock(&client.idle).close_longest_idle();
        }
    }
}

impl Client {
    pub(crate) fn allowed(&self) -> &AllowedHosts {
        &self.allowed
    }

    pub(crate) async fn send(
        self: Arc<Self>,
        to: Destination,
        mut request: http::Request<WasiBody>,
        options: RequestOptions,
        told: Told,
    ) -> Result<http::Response<WasiBody>, Error> {
        let patience = options
            .connect_timeout
            .map_or(self.limits.connect, |asked| asked.min(self.limits.connect));
        let first_byte = shorter(self.limits.first_byte, options.first_byte_timeout);
        let pause = shorter(self.limits.idle, options.between_bytes_timeout);
        let until = Instant::now() + patience;
        *request.uri_mut() = origin_form(request.uri());
        loop {
            let (mut connection, used) = match self.find(&to, until).await {
                Some(Found::Idle(connection)) => (connection, true),
                Some(Found::Places(places)) => {
                    let connection = self.connect(&to, until, places, &told).await?;
                    (connection, false)
                }
                None => {
                    told.tell(self.full(&to, patience));
                    return Err(Error::ConnectionLimitReached);
                }
            };
            let again = if used { repeated(&request) } else { None };
            let sending = connection.sender.try_send_request(request);
            let answer = match first_byte {
                Some(first_byte) => timeout(first_byte, sending)
                    .await
                    .map_err(|_| Error::ConnectionReadTimeout)?,
                None => sending.await,
            };
            match answer {
                Ok(response) => {
                    return Ok(response.map(|body| {
                        Response::new(body, (self, to, connection), pause).boxed_unsync()
                    }));
                }
                // The other end closed a connection that was idle: what was not sent is sent anew,
                // and what was, if that may be done twice.
                Err(mut failed) => {
                    let unsent = failed.take_message().filter(|_| used);
                    let error = failed.error();
                    match unsent.or(again.filter(|_| !error.is_parse())) {
                        Some(again) => request = again,
                        None => return Err(error::of_http(error)),
                    }
                }
            }
        }
    }

    /// An idle connection, or leave to make one. None when neither came in time.
    async fn find(&self, to: &Destination, until: Instant) -> Option<Found> {
        loop {
            // Each is registered before the look that it follows, so that no change in between is
            // missed.
            let mut of_function = pin!(self.open.changed.notified());
            of_function.as_mut().enable();
            if let Some(connection) = lock(&self.idle).take(to) {
                return Some(Found::Idle(connection));
            }
            // What is closed gives its place back when its task is dropped, and is waited for.
            if !self.open.has_room() {
                lock(&self.idle).close_longest_idle();
                timeout_at(until, of_function).await.ok()?;
                continue;
            }
            // Not sooner: who lacks room of its own must not use up the word that the node has some.
            let mut of_node = pin!(self.outbound.open.changed.notified());
            of_node.as_mut().enable();
            if !self.outbound.open.has_room() {
                self.outbound.close_idle();
                let changed = future::select(of_function, of_node);
                timeout_at(until, changed).await.ok()?;
                continue;
            }
            if let (Some(of_function), Some(of_node)) =
                (self.open.take(), self.outbound.open.take())
            {
                return Some(Found::Places(Places {
                    _of_function: of_function,
                    _of_node: of_node,
                }));
            }
        }
    }

    fn full(&self, to: &Destination, patience: Duration) -> String {
        let entry = to.entry(&to.host);
        if self.open.has_room() {
            let limit = self.outbound.open.limit();
            return format!(
                "request to {entry} given up after {patience:?}: the functions of this node have \
                 {limit} connections open, as many as they may have together"
            );
        }
        format!(
            "request to {entry} given up after {patience:?}: the function has {} connections open, \
             as many as spec.egress.maxConnections allows",
            self.limits.max_connections
        )
    }

    async fn connect(
        &self,
        to: &Destination,
        until: Instant,
        places: Places,
        told: &Told,
    ) -> Result<Connection, Error> {
        let connector = &self.outbound.connector;
        match connector.connect(&self.allowed, to, until).await {
            Ok(Stream::Plain(stream)) => drive(stream, places).await,
            Ok(Stream::Tls(stream)) => drive(stream, places).await,
            Err(ConnectError::Refused(refusal)) => Err(told.refused(to, refusal)),
            Err(ConnectError::Failed(error)) => Err(error),
        }
    }

    /// Keeps a connection whose answer has been read for the function's next request.
    pub(super) fn give_back(self: Arc<Self>, to: Destination, mut connection: Connection) {
        if connection.sender.is_ready() {
            return self.keep(to, connection);
        }
        // Outside of a runtime, which is ending then, nobody needs it again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(Ok(())) = timeout(BECOMES_IDLE, connection.sender.ready()).await {
                    self.keep(to, connection);
                }
            });
        }
    }

    fn keep(self: Arc<Self>, to: Destination, connection: Connection) {
        let mut idle = lock(&self.idle);
        idle.put(Instant::now(), to, connection);
        if !idle.swept
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            idle.swept = true;
            runtime.spawn(sweep(Arc::downgrade(&self)));
        }
        drop(idle);
        self.open.changed.notify_one();
        // Another function may have the place, if the node has no other.
        self.outbound.open.changed.notify_one();
    }
}

/// Closes what is idle for too long, until nothing is idle.
async fn sweep(client: Weak<Client>) {
    loop {
        let next = {
            let Some(client) = client.upgrade() else {
                return;
            };
            let mut idle = lock(&client.idle);
            let next = idle.sweep(Instant::now(), client.outbound.kept);
            idle.swept = next.is_some();
            next
        };
        let Some(next) = next else { return };
        sleep_until(next).await;
    }
}

/// Begins HTTP on a new connection.
async fn drive<S>(stream: S, places: Places) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error::of_http(&error))?;
    let driver = tokio::spawn(async move {
        // How it ended, whoever waits for an answer is told.
        let _ = connection.await;
        drop(places);
    });
    Ok(Connection {
        sender,
        _driver: AbortOnDrop::new(driver.abort_handle()),
    })
}

/// The same request once more, if that changes nothing at the other end (RFC 9110, 9.2.1) and it
/// has no body, which would be used up.
fn repeated(request: &http::Request<WasiBody>) -> Option<http::Request<WasiBody>> {
    let is_safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    (is_safe && request.body().is_end_stream()).then(|| {
        let mut again = http::Request::new(WasiBody::default());
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        again
    })
}

/// What stands in the first line of a request to the server itself.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.unwrap_or(PathAndQuery::from_static("/")).into()
}

fn shorter(limit: Option<Duration>, asked: Option<Duration>) -> Option<Duration> {
    match (limit, asked) {
        (Some(limit), Some(asked)) => Some(limit.min(asked)),
        (limit, asked) => limit.or(asked),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves a list of connections as it is: whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
