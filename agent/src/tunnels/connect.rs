//! What a controller asks for, and how it is connected to: a name is looked up once, each of its addresses is
//! judged, and only those that the node's operator allows are dialled.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hive_functions::{Resolve, dial};
use hive_proto::tunnel::MAX_CONNECT;
use hive_proto::v1::TunnelOpen;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::refusal::Refusal;
use super::targets::TunnelTargets;

/// Longest that DNS has (RFC 1035, 3.1, as text).
const MAX_NAME_BYTES: usize = 253;

/// Where a connection is to go.
#[derive(Debug)]
pub(super) struct Target {
    host: Host,
    port: u16,
    within: Duration,
}

#[derive(Debug)]
enum Host {
    Name(String),
    Address(IpAddr),
}

impl Target {
    /// What was asked for, if it makes sense.
    pub(super) fn of(open: &TunnelOpen) -> Result<Self, Refusal> {
        let port = match u16::try_from(open.port) {
            Ok(port @ 1..) => port,
            _ => return Err(Refusal::BadRequest("port: must be 1 to 65535")),
        };
        let host = match open.host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) if is_name(&open.host) => Host::Name(open.host.clone()),
            Err(_) => {
                return Err(Refusal::BadRequest(
                    "host: must be an address, or a name of at most 253 letters, digits, '-', '_' and '.'",
                ));
            }
        };
        let asked = Duration::from_millis(open.connect_ms.into());
        let within = match asked.is_zero() {
            true => MAX_CONNECT,
            false => asked.min(MAX_CONNECT),
        };
        Ok(Self { host, port, within })
    }

    pub(super) async fn connect(
        &self,
        targets: &TunnelTargets,
        resolver: &dyn Resolve,
    ) -> Result<TcpStream, Refusal> {
        let until = Instant::now() + self.within;
        let addresses = self.allowed(targets, resolver, until).await?;
        let within = self.within;
        match timeout_at(until, dial(&addresses, self.port)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Refusal::of_connecting(self.to_string(), within, error)),
            Err(_) => Err(Refusal::Timeout {
                target: self.to_string(),
                within,
            }),
        }
    }

    /// A socket that sends to the target, and hears nobody else.
    pub(super) async fn socket(
        &self,
        targets: &TunnelTargets,
        resolver: &dyn Resolve,
    ) -> Result<UdpSocket, Refusal> {
        let until = Instant::now() + self.within;
        let addresses = self.allowed(targets, resolver, until).await?;
        // Which of several answers is not found out by connecting: the resolver's first choice it is.
        let at = SocketAddr::new(addresses[0], self.port);
        let any: IpAddr = match at {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let connected = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(at).await?;
            Ok::<_, io::Error>(socket)
        };
        let refused = |error| Refusal::of_connecting(self.to_string(), self.within, error);
        connected.await.map_err(refused)
    }

    /// The addresses that the node's operator allows; never empty.
    async fn allowed(
        &self,
        targets: &TunnelTargets,
        resolver: &dyn Resolve,
        until: Instant,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut addresses = self.addresses(resolver, until).await?;
        addresses.retain(|address| targets.allow(SocketAddr::new(*address, self.port)));
        match addresses.is_empty() {
            true => Err(Refusal::NotAllowed(self.to_string())),
            false => Ok(addresses),
        }
    }

    /// What the host stands for; never empty.
    async fn addresses(
        &self,
        resolver: &dyn Resolve,
        until: Instant,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let name = match &self.host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let looked_up = timeout_at(until, resolver.resolve(name)).await;
        let (name, within) = (name.clone(), self.within);
        match looked_up {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(Refusal::NoAddress(name)),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(source)) => Err(Refusal::Lookup { name, source }),
            Err(_) => Err(Refusal::LookupTimeout { name, within }),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// What resolvers are asked; they judge it once more.
fn is_name(text: &str) -> bool {
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_of_names)
}
