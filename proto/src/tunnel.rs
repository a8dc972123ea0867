//! What a controller and an agent must agree on about streams of purposes Tunnel and TunnelUdp, besides their messages.

use std::time::Duration;

/// Longest that an agent tries to connect, whatever it is asked: operating systems give up after one to two
/// minutes by themselves, and the client behind the tunnel has done so by then.
pub const MAX_CONNECT: Duration = Duration::from_secs(60);

/// Nobody listens on the port.
pub const REFUSED: &str = "Refused";
/// No way leads to the address.
pub const UNREACHABLE: &str = "Unreachable";
/// The connection was not there in time.
pub const TIMEOUT: &str = "Timeout";
/// The node's operator does not let tunnels lead there.
pub const NOT_ALLOWED: &str = "NotAllowed";
/// The node knows no address of the name.
pub const RESOLVE: &str = "Resolve";
/// The node carries as many connections as it may, or is stopping.
pub const BUSY: &str = "Busy";
/// What was asked makes no sense.
pub const BAD_REQUEST: &str = "BadRequest";
