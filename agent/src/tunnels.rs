//! Connections for controllers, to what listens on this node or near it.
//!
//! A stream of purpose Tunnel, or TunnelUdp ([`datagrams`]), names a target; the node's operator says where tunnels may lead ([`targets`]), the
//! node connects there, and bytes flow until both ends are done. Nothing is kept here between two connections: which
//! tunnels there are, and who may use them, only controllers know.

mod connect;
mod datagrams;
mod refusal;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hive_functions::{Resolve, SystemResolver};
use hive_proto::frame::{self, FrameError, MAX_FRAME_BYTES};
use hive_proto::link::Stream;
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use hive_tunnels::{Counts, RelayError, RelayLimits, abort, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::os;
use connect::Target;
use refusal::Refusal;
pub use targets::TunnelTargets;

/// At once, of all tunnels together: as many as one controller may ask for. Each is an open file, of which the agent
/// may have as many as its system allows it, and 64 KiB at most where its reader is slow.
const CONNECTIONS: usize = 4096;

/// Names looked up at once. Each blocks a thread for as long as name servers are silent; an agent has eight,
/// functions may block four, and some must be left for disks.
const LOOKUPS: usize = 2;

/// For the request to come and for the answer to go: each is a packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A target from which nothing was heard for so long is asked whether it is there: a machine that lost its power
/// is noticed within a quarter of an hour.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Answers streams of purposes Tunnel and TunnelUdp. A clone is the same.
#[derive(Clone)]
pub struct Tunnels(Arc<Shared>);

struct Shared {
    targets: TunnelTargets,
    resolver: Box<dyn Resolve>,
    places: Arc<Semaphore>,
}

/// A connection to a target, and its place among those that there may be.
struct Connection {
    target: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Tunnels {
    pub fn new(targets: TunnelTargets) -> Self {
        let resolver = SystemResolver::up_to(LOOKUPS);
        Self::with(targets, Box::new(resolver), CONNECTIONS)
    }

    fn with(targets: TunnelTargets, resolver: Box<dyn Resolve>, connections: usize) -> Self {
        Self(Arc::new(Shared {
            targets,
            resolver,
            places: Arc::new(Semaphore::new(connections)),
        }))
    }

    /// Carries one connection to its end. After `stop` no more begin; how long those that are there may go on is
    /// for whoever ends the links.
    pub async fn serve(self, mut stream: Stream, stop: CancellationToken) {
        let Some(open) = asked(&mut stream).await else {
            return;
        };
        let Ok(open) = open else {
            return refuse(stream, &Refusal::BadRequest("this is no TunnelOpen")).await;
        };
        let (namespace, tunnel) = (&*open.namespace, &*open.tunnel);
        match self.connect(&open, &stop).await {
            Ok(connection) => {
                let counts = Counts::default();
                let ended = carry(stream, connection, &counts).await;
                let from_client = counts.in_bytes.load(Ordering::Relaxed);
                let from_target = counts.out_bytes.load(Ordering::Relaxed);
                match ended {
                    Ok(()) => tracing::debug!(
                        namespace,
                        tunnel,
                        from_client,
                        from_target,
                        "a connection of a tunnel ended"
                    ),
                    Err(error) => tracing::debug!(
                        namespace,
                        tunnel,
                        from_client,
                        from_target,
                        error = &error as &dyn std::error::Error,
                        "a connection of a tunnel broke off"
                    ),
                }
            }
            Err(refusal) => {
                tracing::debug!(
                    namespace,
                    tunnel,
                    error = &refusal as &dyn std::error::Error,
                    "no connection for a tunnel"
                );
                refuse(stream, &refusal).await;
            }
        }
    }

    async fn connect(
        &self,
        open: &TunnelOpen,
        stop: &CancellationToken,
    ) -> Result<Connection, Refusal> {
        let Shared {
            targets, resolver, ..
        } = &*self.0;
        let target = Target::of(open)?;
        let place = self.place(stop)?;
        let connection = target.connect(targets, &**resolver).await?;
        os::keep_alive(&connection, KEEP_ALIVE);
        Ok(Connection {
            target: connection,
            _place: place,
        })
    }

    /// A place for one connection, or one flow.
    fn place(&self, stop: &CancellationToken) -> Result<OwnedSemaphorePermit, Refusal> {
        if stop.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let places = self.0.places.clone();
        places.try_acquire_owned().map_err(|_| Refusal::Busy)
    }
}

/// What a controller asks for, or an error where that makes no sense; `None` if whoever asked is gone.
async fn asked(stream: &mut Stream) -> Option<Result<TunnelOpen, FrameError>> {
    let asked = frame::read(stream, MAX_FRAME_BYTES);
    match timeout(HANDSHAKE_TIMEOUT, asked).await {
        Ok(Ok(open)) => open.map(Ok),
        Ok(Err(FrameError::Io(_) | FrameError::Truncated)) | Err(_) => None,
        Ok(Err(
            error @ (FrameError::Length | FrameError::TooLong { .. } | FrameError::Decode(_)),
        )) => Some(Err(error)),
    }
}

/// Says that the target is there, and passes bytes on until both ends are done.
async fn carry(
    mut stream: Stream,
    mut connection: Connection,
    counts: &Counts,
) -> Result<(), RelayError> {
    if !answer(&mut stream, &TunnelOpened::default()).await {
        // Whoever asked is gone, and the target was told nothing.
        return Ok(());
    }
    // How long it may be quiet, and how fast it may be, its controller sees to.
    let limits = RelayLimits::default();
    let ended = relay(&mut stream, &mut connection.target, &limits, counts).await;
    if ended.is_err() {
        // The stream is reset when it is dropped.
        abort(connection.target);
    }
    ended
}

async fn refuse(mut stream: Stream, refusal: &Refusal) {
    if answer(&mut stream, &refusal.answer()).await {
        let _ = stream.shutdown().await;
    }
}

/// Whether it could be said.
async fn answer(stream: &mut Stream, answer: &TunnelOpened) -> bool {
    let written = timeout(HANDSHAKE_TIMEOUT, frame::write(stream, answer));
    matches!(written.await, Ok(Ok(())))
}
