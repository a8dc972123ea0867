//! Flows of datagrams for controllers: one socket for each, which hears and tells its target alone.
//!
//! Nothing proves that a target of UDP is there: it is taken for that until its system says by ICMP that nobody
//! listens, which the controller is told. How long a flow may be quiet, its controller sees to.

use std::io;

use hive_proto::flow::{self, FlowEnd, FlowReader, FlowWriter};
use hive_proto::link::{Datagrams, Link, Stream};
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use hive_tunnels::udp;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connect::Target;
use super::refusal::Refusal;
use super::{HANDSHAKE_TIMEOUT, Tunnels, answer, asked, refuse};

/// A socket that is connected to a target, and its place among those that there may be.
struct Connected {
    socket: UdpSocket,
    /// As people call it.
    target: String,
    /// Where the link is to have datagrams.
    datagrams: Option<Datagrams>,
    _place: OwnedSemaphorePermit,
}

/// Why a flow is over.
#[derive(Debug, thiserror::Error)]
enum End {
    /// By the controller, as a rule.
    #[error(transparent)]
    Flow(#[from] FlowEnd),
    #[error("the controller cannot be told")]
    Untold(#[source] io::Error),
    #[error("the target takes no datagrams")]
    Refused(#[source] Refusal),
}

impl Tunnels {
    /// Carries one flow to its end. After `stop` no more begin.
    pub async fn serve_datagrams(self, mut stream: Stream, stop: CancellationToken) {
        let Some(open) = asked(&mut stream).await else {
            return;
        };
        let Ok(open) = open else {
            return refuse(stream, &Refusal::BadRequest("this is no TunnelOpen")).await;
        };
        let (namespace, tunnel) = (&*open.namespace, &*open.tunnel);
        let link = stream.link().clone();
        match self.connect_datagrams(&link, &open, &stop).await {
            Ok(connected) => {
                let end = carry(stream, connected).await;
                tracing::debug!(
                    namespace,
                    tunnel,
                    end = &end as &dyn std::error::Error,
                    "a flow of a tunnel ended"
                );
            }
            Err(refusal) => {
                tracing::debug!(
                    namespace,
                    tunnel,
                    error = &refusal as &dyn std::error::Error,
                    "no flow for a tunnel"
                );
                refuse(stream, &refusal).await;
            }
        }
    }

    async fn connect_datagrams(
        &self,
        link: &Link,
        open: &TunnelOpen,
        stop: &CancellationToken,
    ) -> Result<Connected, Refusal> {
        let target = Target::of(open)?;
        let place = self.place(stop)?;
        let datagrams = match open.flow {
            None => None,
            Some(id) => {
                let joined = link.join_flow(id);
                let joined = joined.ok_or(Refusal::BadRequest("flow: it is under way already"))?;
                Some(joined)
            }
        };
        let shared = &*self.0;
        let socket = target.socket(&shared.targets, &*shared.resolver).await?;
        Ok(Connected {
            socket,
            target: target.to_string(),
            datagrams,
            _place: place,
        })
    }
}

/// Says that datagrams may come, and passes them on until the controller ends the flow, or the target refuses it.
async fn carry(mut stream: Stream, connected: Connected) -> End {
    let Connected {
        socket,
        target,
        datagrams,
        _place,
    } = connected;
    if !answer(&mut stream, &TunnelOpened::default()).await {
        return End::Flow(FlowEnd::Ended);
    }
    let (mut reader, mut writer) = flow::split(stream, datagrams);
    let end = tokio::select! {
        end = inward(&mut reader, &socket, &target) => end,
        end = outward(&socket, &mut writer, &target) => end,
    };
    // What does not get out is noticed at the other side by the stream's end.
    let _ = match &end {
        End::Refused(refusal) => {
            let why = refusal.answer();
            timeout(HANDSHAKE_TIMEOUT, writer.refuse(&why)).await
        }
        End::Flow(_) | End::Untold(_) => timeout(HANDSHAKE_TIMEOUT, writer.end()).await,
    };
    end
}

async fn inward(reader: &mut FlowReader, socket: &UdpSocket, target: &str) -> End {
    loop {
        let datagram = match reader.receive().await {
            Ok(datagram) => datagram,
            Err(end) => return End::Flow(end),
        };
        if let Err(error) = socket.send(&datagram).await
            && let Some(refusal) = Refusal::of_datagrams(target, error)
        {
            return End::Refused(refusal);
        }
    }
}

async fn outward(socket: &UdpSocket, writer: &mut FlowWriter, target: &str) -> End {
    loop {
        match udp::receive(socket).await {
            // One that the link has no room for is lost, as it would be on a network.
            Ok(datagram) => {
                if let Err(error) = writer.send(&datagram).await {
                    return End::Untold(error);
                }
            }
            Err(error) => {
                if let Some(refusal) = Refusal::of_datagrams(target, error) {
                    return End::Refused(refusal);
                }
            }
        }
    }
}
