//! One connection of a TCP tunnel: a target is found that takes it, is told who the client is where it asks for that,
//! and bytes flow until both sides ended.
//!
//! Nothing is read from the client before a target has taken the connection: until then the next one can be tried.
//! What breaks is cut on both sides, never ended: half of a file must not pass for a whole one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hive_manifests::tunnel::{ProxyProtocol, TunnelTarget};
use hive_proto::link::Stream;
use hive_tunnels::proxy_protocol::{self, Version};
use hive_tunnels::{RelayError, Side, abort, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::live::{CLIENT_BROKE, IDLE, Live, TARGET_BROKE, TooMany};
use super::open::OpenError;
use super::table::Tunnel;
use super::{LINK_PATIENCE, Tunnels};

/// After it no further target is tried: whoever waits for a connection has given up, or soon will.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection did not go on to its end.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("no target takes a connection")]
    NoTarget(#[source] OpenError),
    #[error("the tunnel has no targets")]
    Nowhere,
    #[error("the client is gone")]
    Gone(#[source] io::Error),
    #[error("cannot tell the target who its client is")]
    Header(#[source] io::Error),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Carries a connection until it ends, or its tunnel does.
pub async fn carry(tunnels: Tunnels, live: Arc<Live>, mut client: TcpStream, from: SocketAddr) {
    let ended = live.ended().clone();
    let carried = carry_on(&tunnels, &live, &mut client, from);
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
        Some(Err(_)) | None => abort(client),
    }
}

/// As what a failure is counted that was not counted where it happened.
fn reason(error: &CarryError) -> Option<&'static str> {
    let side = match error {
        CarryError::TooMany(_) | CarryError::NoTarget(_) | CarryError::Nowhere => return None,
        CarryError::Relay(RelayError::Idle) => return Some(IDLE),
        CarryError::Relay(RelayError::Read(side, _) | RelayError::Write(side, _)) => *side,
        CarryError::Gone(_) => Side::Client,
        CarryError::Header(_) => Side::Target,
    };
    Some(match side {
        Side::Client => CLIENT_BROKE,
        Side::Target => TARGET_BROKE,
    })
}

async fn carry_on(
    tunnels: &Tunnels,
    live: &Arc<Live>,
    client: &mut TcpStream,
    from: SocketAddr,
) -> Result<(), CarryError> {
    let _place = live.begin()?;
    let to = client.local_addr().map_err(CarryError::Gone)?;
    let (target, mut stream) = connect(tunnels, live).await?;
    let tunnel = live.tunnel();
    let _under_way = tunnels.health.begin(&tunnel.key, &target);
    if let Some(version) = header_of(&tunnel) {
        let header = proxy_protocol::header(version, from, to);
        stream
            .write_all(&header)
            .await
            .map_err(CarryError::Header)?;
    }
    Ok(relay(client, &mut stream, &live.limits(), live.counts()).await?)
}

fn header_of(tunnel: &Tunnel) -> Option<Version> {
    match tunnel.spec.proxy_protocol {
        ProxyProtocol::None => None,
        ProxyProtocol::V1 => Some(Version::V1),
        ProxyProtocol::V2 => Some(Version::V2),
    }
}

/// The first target that takes a connection.
async fn connect(tunnels: &Tunnels, live: &Live) -> Result<(TunnelTarget, Stream), CarryError> {
    let targets = tunnels.health.choose(&live.tunnel().key);
    let nodes: Vec<String> = targets.iter().map(|it| it.node.clone()).collect();
    tunnels.opener.links().linked(&nodes, LINK_PATIENCE).await;
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
