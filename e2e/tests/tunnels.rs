//! Tunnels on a live swarm: what they carry, what they say of themselves, and what it costs when a part of the
//! way breaks.
//!
//! Each controller has an address of its own, as in a real swarm: a TCP tunnel takes the same port on all of them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "tunnels/browser.rs"]
mod browser;
#[path = "tunnels/cut.rs"]
mod cut;
#[path = "tunnels/debian.rs"]
mod debian;
#[path = "tunnels/declared.rs"]
mod declared;
#[path = "tunnels/faults.rs"]
mod faults;
#[path = "tunnels/flood.rs"]
mod flood;
#[path = "tunnels/http.rs"]
mod http_tunnels;
#[path = "tunnels/iperf.rs"]
mod iperf;
#[path = "tunnels/noise.rs"]
mod noise;
#[cfg(feature = "tor")]
#[path = "tunnels/onion.rs"]
mod onion;
#[path = "tunnels/providers.rs"]
mod providers;
#[path = "tunnels/requests.rs"]
mod requests;
#[path = "tunnels/service.rs"]
mod service;
#[path = "tunnels/site.rs"]
mod site;
#[path = "tunnels/status.rs"]
mod status;
#[path = "tunnels/tcp.rs"]
mod tcp;
#[path = "tunnels/tls.rs"]
mod tls;
#[path = "tunnels/transfer.rs"]
mod transfer;
#[path = "tunnels/udp.rs"]
mod udp;
#[path = "tunnels/vanished.rs"]
mod vanished;
#[path = "tunnels/websocket.rs"]
mod websocket;
#[path = "tunnels/weight.rs"]
mod weight;
