//! How long the packets of a QUIC link may get. Each costs as much to make, to take and to acknowledge, however much is
//! in it. Quinn begins with 1,200 bytes and tries longer ones; what is here says up to where.
//!
//! Most ways carry what Ethernet does, and longer probes would be in vain, three of each length. So more is tried only
//! where the way begins with more: on the machine itself, in networks with jumbo frames, in some clouds. Who dials finds
//! that out and says how long the packets are that it takes, which bounds what the listener tries.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{EndpointConfig, MtuDiscoveryConfig};

/// What fits into Ethernet's frames with the headers of IPv6: quinn's own bound.
pub(super) const ETHERNET: u16 = 1452;

/// Quinn hands the system up to ten packets at once, which may have as many bytes as one datagram of UDP.
pub(super) const LONGEST: u16 = 65_507 / 10;

/// Of IPv6 and UDP.
const HEADERS: u32 = 40 + 8;

/// Between two searches. A way that begins with more than it carries costs some twenty lost probes each time. One that
/// became narrower is noticed by what gets lost, and another network's is searched anew.
const AGAIN: Duration = Duration::from_secs(3600);

/// Packets up to this long are tried.
pub(super) fn discovery(longest: u16) -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(longest).interval(AGAIN);
    config
}

/// Takes packets up to this long, and says so to peers.
pub(super) fn taking(longest: u16, mut config: EndpointConfig) -> EndpointConfig {
    config
        .max_udp_payload_size(longest)
        .expect("1,200 to 65,527 bytes are allowed");
    config
}

/// How long packets toward `remote` can be, as far as is known here.
pub(super) fn toward(remote: SocketAddr) -> u16 {
    // Whoever cannot find out does as elsewhere.
    longest(route_mtu(remote).unwrap_or_default())
}

fn longest(route_mtu: u32) -> u16 {
    let packet = route_mtu.saturating_sub(HEADERS);
    packet.clamp(ETHERNET.into(), LONGEST.into()) as u16
}

/// What the first network on the way carries. Nothing is sent.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn route_mtu(remote: SocketAddr) -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind(super::udp::any(remote))?;
    socket.connect(remote)?;
    let mtu = match remote {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    Ok(mtu?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn route_mtu(_: SocketAddr) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_tried_where_the_way_begins_with_more() {
        for (route_mtu, expected) in [
            (0, ETHERNET),
            (1280, ETHERNET),
            (1500, ETHERNET),
            (4000, 3952),
            (9000, LONGEST),
            (65_536, LONGEST),
            (u32::MAX, LONGEST),
        ] {
            assert_eq!(longest(route_mtu), expected, "{route_mtu}");
        }
    }
}
