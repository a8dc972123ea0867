//! What carries the bytes of tunnels, on controllers and on agents.
//!
//! Two connections come in, and bytes flow between them until both directions ended ([`relay`]), as fast as a
//! tunnel may ([`bandwidth`]), after the header that tells a target who its client is ([`proxy_protocol`]). Datagrams
//! come at a port, and belong to flows ([`udp`]). Nothing here knows what a tunnel is, who may use it, or where it
//! leads.

#![forbid(unsafe_code)]

pub mod bandwidth;
pub mod proxy_protocol;
pub mod relay;
pub mod udp;

pub use bandwidth::Bandwidth;
pub use relay::{Counts, RelayError, RelayLimits, Side, abort, relay};
