//! Tunnels on a live swarm: what they carry, what they say of themselves, and what it costs when a part of the
//! way breaks.
//!
//! Each controller has an address of its own, as in a real swarm: a TCP tunnel takes the same port on all of them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "tunnels/declared.rs"]
mod declared;
#[path = "tunnels/faults.rs"]
mod faults;
#[path = "tunnels/http.rs"]
mod http_tunnels;
#[path = "tunnels/noise.rs"]
mod noise;
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
#[path = "tunnels/websocket.rs"]
mod websocket;
