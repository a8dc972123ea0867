//! Datagrams between clients and targets.
//!
//! What one client sends to one address of a port is a flow ([`Flows`]); it ends when nothing came in either direction
//! for a while ([`exchange`]). Datagrams may get lost anywhere, so nothing here waits for long: what finds no room is
//! dropped, and whoever dropped it counts.

mod exchange;
mod flows;
mod socket;

pub use exchange::{Deliver, Receive, exchange};
pub use flows::{Flow, Flows, Refused, Taken, Way};
pub use socket::receive;
