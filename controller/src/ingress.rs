//! The public door: HTTP requests find their function or tunnel by host and path, and go to a ready copy, or a
//! target, over the link to its node.
//!
//! Every controller answers for every function and every tunnel from its own replica; none asks the leader.

mod forward;
mod https;
mod origin;
mod plain;
mod probe;
mod repeat;
pub mod routes;
mod split;
mod tls;
mod tunnel;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use forward::{Forwarder, NothingRan};
pub use origin::{Origin, Scheme};
pub use probe::PROBE;
pub(crate) use repeat::{full, text};
use routes::{Follower, Routes};
pub(crate) use tls::misdirected;
pub(crate) use tunnel::to_http2;

use crate::accept::{Accepted, Doorway};
use crate::gateway::BoxError;
use crate::linger::Lingering;
use crate::patience::{self, Punctual};
use crate::store::Replica;
use tls::Shown;

/// A client that does not finish its request headers in this time is a slow-loris. A connection
/// that is kept for another request may be quiet for as long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes nothing of its answer for this long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Clients of HTTP/2 are asked whether they are still there: nothing else ends their connections.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Connections at once, with those of TLS until it is known that they are passed through; more wait in the kernel's
/// queues. Half of the 20,000 open files that a process commonly may have.
const MAX_CONNECTIONS: usize = 10_000;

/// Requests under way may finish for this long when the controller stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Keeps a table of routes that follows the state.
pub fn follow_routes(replica: &Replica, cancel: CancellationToken) -> watch::Receiver<Arc<Routes>> {
    let mut touched = replica.touched(routes::may_matter);
    let mut follower = Follower::of(&replica.state());
    let (sender, receiver) = watch::channel(Arc::new(follower.routes()));
    let replica = replica.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = touched.changed() => if changed.is_err() { return },
            }
            touched.borrow_and_update();
            if follower.follow(&replica.state()) {
                sender.send_replace(Arc::new(follower.routes()));
            }
        }
    });
    receiver
}

/// What takes connections from the public. A clone is the same.
#[derive(Clone)]
pub struct Ingress {
    forwarder: Forwarder,
    server: auto::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
}

impl Ingress {
    pub fn new(forwarder: Forwarder) -> Self {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL);
        Self {
            forwarder,
            server,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// With so many connections at once, in place of those that there are files for.
    #[cfg(test)]
    #[must_use]
    pub fn with_places(self, most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { places, ..self }
    }

    /// Serves HTTP until cancelled, then lets requests under way finish.
    pub async fn serve(self, listener: TcpListener, cancel: CancellationToken) {
        let doorway = Doorway::sharing(listener, self.places.clone(), "ingress");
        let (graceful, open) = (GracefulShutdown::new(), TaskTracker::new());
        while let Some(accepted) = doorway.accept(&cancel).await {
            let Accepted {
                stream,
                remote,
                place,
            } = accepted;
            patience::prepare(&stream);
            patience::expect_reading(&stream, READ_TIMEOUT);
            let origin = Origin {
                client: remote.ip(),
                scheme: Scheme::Http,
            };
            let conversation = self.converse(stream, origin, None, graceful.watcher());
            open.spawn(async move {
                conversation.await;
                drop(place);
            });
        }
        drop(doorway);
        drain(graceful, &open).await;
    }

    /// HTTP on one connection; `shown` is the certificate that its client saw.
    fn converse<S>(
        &self,
        stream: S,
        origin: Origin,
        shown: Option<Shown>,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Punctual::new(stream, HEADER_TIMEOUT);
        let forwarder = self.forwarder.clone();
        let shown = shown.map(Arc::new);
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (forwarder, shown) = (forwarder.clone(), shown.clone());
            async move {
                let request = request
                    .map(|body| Lingering::from(body).map_err(BoxError::from).boxed_unsync());
                let nonce = probe::nonce(&request);
                let mut response = match shown {
                    Some(shown) if !shown.is_for(&request) => misdirected(),
                    _ => forwarder.by_route(origin, request).await,
                };
                if let Some(nonce) = nonce {
                    response.headers_mut().insert(PROBE, nonce);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = self
            .server
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = watcher.watch(connection);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "ingress connection ended");
            }
        }
    }
}

/// Waits for requests under way; of how many connections that are `open` they are cut off.
async fn drain(graceful: GracefulShutdown, open: &TaskTracker) -> usize {
    let drained = tokio::time::timeout(DRAIN, graceful.shutdown());
    if drained.await.is_ok() {
        return 0;
    }
    let connections = open.len();
    tracing::warn!(
        connections,
        "requests at the ingress were cut off after {DRAIN:?}"
    );
    connections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_cut_off_when_a_controller_stops_is_counted() {
        for left in 0..3 {
            let (graceful, open) = (GracefulShutdown::new(), TaskTracker::new());
            for _ in 0..left {
                let watcher = graceful.watcher();
                open.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(watcher);
                });
            }
            assert_eq!(drain(graceful, &open).await, left);
        }
    }
}
