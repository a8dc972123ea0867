//! Links as their users see them: one suite for QUIC, TCP and memory, then what is special to
//! networks: who is refused, how a dial falls back to TCP and returns, gRPC in streams.

#![allow(clippy::unwrap_used)]

mod calls;
mod every_transport;
mod fallback;
mod many_streams;
#[cfg(target_os = "linux")]
mod packets;
mod parties;
mod refusals;
mod relay;
mod shared;
mod stalled;
mod vanished;
