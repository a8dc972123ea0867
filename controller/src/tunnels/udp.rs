//! The UDP ports of tunnels: what one client sends to one address is a flow, which goes to one target until nothing was
//! said in it for a while.
//!
//! Whoever answers does so from the address that was asked. Anybody may send anything here under any name: flows and
//! what waits in them are bounded, and what is too much is dropped and counted.

mod socket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hive_manifests::tunnel::TunnelTarget;
use hive_proto::flow::{FlowEnd, FlowReader, FlowWriter};
use hive_proto::v1::TunnelOpened;
use hive_tunnels::udp::{Deliver, Flow, Flows, Receive, Refused, Taken, Way, exchange};
use hive_tunnels::{RelayError, Side};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Tunnels;
use super::carry::{PATIENCE, candidates};
use super::health::Evidence;
use super::live::{DROPPED, Live, TARGET_BROKE, TOO_MANY, TooMany};
use super::open::OpenError;
use crate::gateway::bounds;
use crate::state::Key;
use socket::Slots;
pub use socket::Socket;

/// After an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// For the end of a flow to be said.
const GOODBYE: Duration = Duration::from_secs(1);

/// A port that is open. It closes when it is cancelled, with all of its flows.
pub struct Port {
    socket: Arc<Socket>,
    tunnels: Tunnels,
    /// Whose the port is now.
    owners: watch::Receiver<Arc<Live>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    /// Whose these flows are.
    live: Arc<Live>,
    flows: Flows,
    flows_end: CancellationToken,
}

/// Why a flow did not go on until it was idle.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("no target can be sent to")]
    NoTarget(#[source] OpenError),
    #[error("the tunnel has no targets")]
    Nowhere,
    #[error(transparent)]
    Broke(#[from] RelayError),
}

impl Port {
    pub fn new(
        socket: Socket,
        tunnels: Tunnels,
        owners: watch::Receiver<Arc<Live>>,
        places: Arc<Semaphore>,
        stop: CancellationToken,
    ) -> Self {
        let live = owners.borrow().clone();
        Self {
            socket: Arc::new(socket),
            tunnels,
            owners,
            places,
            live,
            flows: Flows::default(),
            flows_end: stop.child_token(),
            stop,
        }
    }

    /// Takes datagrams until the port is to close.
    pub async fn serve(mut self) {
        let (socket, stop) = (self.socket.clone(), self.stop.clone());
        let mut slots = Slots::default();
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = socket.receive(&mut slots, |way, datagram| self.take(way, datagram)) => received,
            };
            if let Err(error) = received {
                tracing::warn!(%error, "cannot receive at a port of a tunnel");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn take(&mut self, way: Way, datagram: &[u8]) {
        if !Arc::ptr_eq(&*self.owners.borrow(), &self.live) {
            self.pass_on();
        }
        let most = self.live.tunnel().spec.max_connections as usize;
        match self.flows.take(way, datagram, most) {
            Taken::Queued => {}
            Taken::New(flow) => self.begin(flow),
            Taken::Refused(Refused::QueueFull) => self.live.count_failure(DROPPED),
            Taken::Refused(Refused::TooManyFlows) => self.live.count_failure(TOO_MANY),
        }
    }

    /// The port is another tunnel's: what its clients send from now on is, too.
    fn pass_on(&mut self) {
        self.flows_end.cancel();
        self.flows_end = self.stop.child_token();
        self.flows = Flows::default();
        self.live = self.owners.borrow().clone();
    }

    fn begin(&self, flow: Flow) {
        self.live.note_client();
        // Who is not let in is asked again by its next datagram.
        if self.live.admit(flow.way().client.ip()).is_err() {
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.live.count_failure(TOO_MANY);
            return;
        };
        let (live, end) = (self.live.clone(), self.flows_end.clone());
        let carried = carry(
            self.tunnels.clone(),
            live.clone(),
            self.socket.clone(),
            flow,
        );
        self.tunnels.spawn(async move {
            let carried = tokio::select! {
                carried = carried => carried,
                () = live.ended().cancelled() => Ok(()),
                () = end.cancelled() => Ok(()),
            };
            if let Err(error) = carried {
                let tunnel = live.tunnel();
                let error = &error as &dyn std::error::Error;
                tracing::debug!(tunnel = %tunnel.key, error, "a flow ended");
            }
            drop(place);
        });
    }
}

async fn carry(
    tunnels: Tunnels,
    live: Arc<Live>,
    socket: Arc<Socket>,
    mut flow: Flow,
) -> Result<(), CarryError> {
    let _place = live.begin()?;
    let (target, (reader, writer)) = begin(&tunnels, &live).await?;
    let tunnel = live.tunnel();
    let _under_way = tunnels.health.begin(&tunnel.key, &target);
    let mut to_client = ToClient {
        socket: &socket,
        way: flow.way(),
        live: &live,
    };
    let mut from_target = FromTarget {
        reader,
        tunnels: &tunnels,
        tunnel: &tunnel.key,
        target: &target,
        since: Instant::now(),
        is_heard: false,
    };
    let mut to_target = ToTarget {
        writer,
        live: &live,
    };
    let (limits, patience) = (live.limits(), flow.patience());
    let ended = exchange(
        (&mut flow, &mut to_client),
        (&mut from_target, &mut to_target),
        &limits,
        patience,
        live.counts(),
    )
    .await;
    match ended {
        Ok(()) | Err(RelayError::Idle) => {
            let _ = timeout(GOODBYE, to_target.writer.end()).await;
            Ok(())
        }
        Err(error) => {
            match refusal(&error) {
                Some(why) => {
                    live.count_failure(&why.reason);
                    let by = Evidence::Request;
                    let health = &tunnels.health;
                    health.failed(&tunnel.key, &target, by, &why.reason, why.message);
                }
                None => live.count_failure(TARGET_BROKE),
            }
            Err(error.into())
        }
    }
}

/// The first target whose node takes datagrams for it.
async fn begin(
    tunnels: &Tunnels,
    live: &Live,
) -> Result<(TunnelTarget, (FlowReader, FlowWriter)), CarryError> {
    let targets = candidates(tunnels, live).await;
    let until = Instant::now() + PATIENCE;
    let mut failed = CarryError::Nowhere;
    for target in targets {
        match tunnels.open_flow(live, &target).await {
            Ok(flow) => return Ok((target, flow)),
            Err(error) => failed = CarryError::NoTarget(error),
        }
        if Instant::now() >= until {
            break;
        }
    }
    Err(failed)
}

/// In the agent's words, why a target takes no datagrams.
fn refusal(error: &RelayError) -> Option<TunnelOpened> {
    let RelayError::Read(Side::Target, error) = error else {
        return None;
    };
    match error.get_ref()?.downcast_ref()? {
        FlowEnd::Refused(why) => Some(bounds::refusal(why.clone())),
        _ => None,
    }
}

struct ToClient<'a> {
    socket: &'a Socket,
    way: Way,
    live: &'a Live,
}

impl Deliver for ToClient<'_> {
    async fn deliver(&mut self, datagram: &[u8]) -> io::Result<()> {
        // It is this datagram that cannot be sent, such as one that is too long for the network.
        if self.socket.send(self.way, datagram).await.is_err() {
            self.count_dropped();
        }
        Ok(())
    }

    fn count_dropped(&mut self) {
        self.live.count_failure(DROPPED);
    }
}

struct ToTarget<'a> {
    writer: FlowWriter,
    live: &'a Live,
}

impl Deliver for ToTarget<'_> {
    async fn deliver(&mut self, datagram: &[u8]) -> io::Result<()> {
        if !self.writer.send(datagram).await? {
            self.count_dropped();
        }
        Ok(())
    }

    fn count_dropped(&mut self) {
        self.live.count_failure(DROPPED);
    }
}

/// What a target answers; the first answer proves that it is there.
struct FromTarget<'a> {
    reader: FlowReader,
    tunnels: &'a Tunnels,
    tunnel: &'a Key,
    target: &'a TunnelTarget,
    since: Instant,
    is_heard: bool,
}

impl Receive for FromTarget<'_> {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let datagram = match self.reader.receive().await {
            Ok(datagram) => datagram,
            Err(FlowEnd::Ended) => return Ok(None),
            Err(end) => return Err(io::Error::other(end)),
        };
        if !self.is_heard {
            self.is_heard = true;
            let (health, latency) = (&self.tunnels.health, self.since.elapsed());
            health.answered(self.tunnel, self.target, Evidence::Request, latency);
        }
        Ok(Some(datagram))
    }
}
