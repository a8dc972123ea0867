//! One connection of a tunnel of TCP, or of TLS that is passed through: a target is found that takes it, is told who the client is where it asks for that,
//! and bytes flow until both sides ended.
//!
//! Nothing more is read from the client before a target has taken the connection, but for what a proxy in front says
//! of it: until then the next one can be tried. Of TLS the greeting was read, to find the tunnel; the target gets it as it
//! came. What breaks is cut on both sides, never ended: half of a file must not pass for a whole one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hive_manifests::tunnel::{Protocol, ProxyProtocol, TunnelTarget};
use hive_proto::link::Stream;
use hive_tunnels::proxy_protocol::{self, ReadError, Version};
use hive_tunnels::{RelayError, Side, relay};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::access::denied::Denied;
use super::live::{CLIENT_BROKE, IDLE, Live, TARGET_BROKE, TooMany};
use super::open::OpenError;
use super::table::Tunnel;
use super::{LINK_PATIENCE, Tunnels};

/// After it no further target is tried: whoever waits for a connection has given up, or soon will.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// For a proxy to say who connects: it does at once.
const ANNOUNCEMENT: Duration = Duration::from_secs(5);

/// Why a connection did not go on to its end.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("no target takes a connection")]
    NoTarget(#[source] OpenError),
    #[error("the tunnel has no targets")]
    Nowhere,
    #[error("the proxy in front does not say who connects")]
    Unannounced(#[from] ReadError),
    #[error("the client is gone")]
    Gone(#[source] io::Error),
    #[error("cannot tell the target who its client is")]
    Header(#[source] io::Error),
    #[error("cannot pass on what the client said first")]
    Said(#[source] io::Error),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// What a client's bytes come by.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Where it arrived.
    fn arrived_at(&self) -> io::Result<SocketAddr>;

    /// Whether it can lead to a proxy of the swarm's settings, by the address that it comes from.
    fn has_address(&self) -> bool;

    /// Closes it so that the client sees an error instead of an end, where there is such a thing.
    fn abort(self);
}

impl Wire for TcpStream {
    fn arrived_at(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn has_address(&self) -> bool {
        true
    }

    fn abort(self) {
        hive_tunnels::abort(self);
    }
}

/// Who connected.
pub struct Client<S> {
    pub stream: S,
    pub from: SocketAddr,
    /// What was read of it already.
    pub said: Vec<u8>,
}

impl<S> Client<S> {
    pub fn new(stream: S, from: SocketAddr) -> Self {
        Self {
            stream,
            from,
            said: Vec::new(),
        }
    }
}

/// Carries a connection until it ends, or its tunnel does.
pub async fn carry<S: Wire>(tunnels: Tunnels, live: Arc<Live>, mut client: Client<S>) {
    let ended = live.ended().clone();
    let from = client.from;
    let carried = carry_on(&tunnels, &live, &mut client);
    let carried = ended.run_until_cancelled(carried).await;
    if let Some(Err(error)) = &carried {
        if let Some(reason) = reason(error) {
            live.count_failure(reason);
        }
        let tunnel = live.tunnel();
        let error = error as &dyn std::error::Error;
        tracing::debug!(tunnel = %tunnel.key, %from, error, "connection ended");
    }
    match carried {
        Some(Ok(())) => drop(client),
        Some(Err(_)) | None => client.stream.abort(),
    }
}

/// As what a failure is counted that was not counted where it happened.
fn reason(error: &CarryError) -> Option<&'static str> {
    let side = match error {
        CarryError::Denied(_)
        | CarryError::TooMany(_)
        | CarryError::NoTarget(_)
        | CarryError::Nowhere => return None,
        CarryError::Relay(RelayError::Idle) => return Some(IDLE),
        CarryError::Relay(RelayError::Read(side, _) | RelayError::Write(side, _)) => *side,
        CarryError::Gone(_) | CarryError::Unannounced(_) => Side::Client,
        CarryError::Header(_) | CarryError::Said(_) => Side::Target,
    };
    Some(match side {
        Side::Client => CLIENT_BROKE,
        Side::Target => TARGET_BROKE,
    })
}

async fn carry_on<S: Wire>(
    tunnels: &Tunnels,
    live: &Arc<Live>,
    client: &mut Client<S>,
) -> Result<(), CarryError> {
    let tunnel = live.tunnel();
    if tunnel.spec.protocol == Protocol::Tcp {
        client.from = on_whose_behalf(tunnels, client).await?;
    }
    live.admit(client.from.ip())?;
    let _place = live.begin()?;
    let to = client.stream.arrived_at().map_err(CarryError::Gone)?;
    let (target, mut stream) = connect(tunnels, live).await?;
    let _under_way = tunnels.health.begin(&tunnel.key, &target);
    if let Some(version) = header_of(&tunnel) {
        let header = proxy_protocol::header(version, client.from, to);
        stream
            .write_all(&header)
            .await
            .map_err(CarryError::Header)?;
    }
    if !client.said.is_empty() {
        let said = std::mem::take(&mut client.said);
        stream.write_all(&said).await.map_err(CarryError::Said)?;
        let counted = &live.counts().in_bytes;
        counted.fetch_add(said.len() as u64, Ordering::Relaxed);
    }
    Ok(relay(
        &mut client.stream,
        &mut stream,
        &live.limits(),
        live.counts(),
    )
    .await?)
}

/// Who connects: a proxy of the swarm's settings says it before anything else, and must.
async fn on_whose_behalf<S: Wire>(
    tunnels: &Tunnels,
    client: &mut Client<S>,
) -> Result<SocketAddr, CarryError> {
    let is_proxy =
        client.stream.has_address() && tunnels.proxies().announcing.contains(client.from.ip());
    if !is_proxy {
        return Ok(client.from);
    }
    match timeout(ANNOUNCEMENT, proxy_protocol::read(&mut client.stream)).await {
        Ok(announced) => Ok(announced?.unwrap_or(client.from)),
        Err(_) => Err(CarryError::Unannounced(ReadError::Missing)),
    }
}

fn header_of(tunnel: &Tunnel) -> Option<Version> {
    match tunnel.spec.proxy_protocol {
        ProxyProtocol::None => None,
        ProxyProtocol::V1 => Some(Version::V1),
        ProxyProtocol::V2 => Some(Version::V2),
    }
}

/// The targets in the order in which they are to be tried, once a node of them is linked or should have been.
pub(super) async fn candidates(tunnels: &Tunnels, live: &Live) -> Vec<TunnelTarget> {
    let targets = tunnels.health.choose(&live.tunnel().key);
    let nodes: Vec<String> = targets.iter().map(|it| it.node.clone()).collect();
    tunnels.opener.links().linked(&nodes, LINK_PATIENCE).await;
    targets
}

/// The first target that takes a connection.
async fn connect(tunnels: &Tunnels, live: &Live) -> Result<(TunnelTarget, Stream), CarryError> {
    let targets = candidates(tunnels, live).await;
    let until = Instant::now() + PATIENCE;
    let mut failed = CarryError::Nowhere;
    for target in targets {
        match tunnels.open(live, &target).await {
            Ok(stream) => return Ok((target, stream)),
            Err(error) => failed = CarryError::NoTarget(error),
        }
        if Instant::now() >= until {
            break;
        }
    }
    Err(failed)
}
