//! What processes say to each other.
//!
//! [`v1`] is the protocol in protobuf. A [`Link`](link::Link) is one multiplexed, mutually
//! authenticated connection between two processes, over QUIC, TLS/TCP or memory; each of its
//! streams starts with a [`Purpose`](link::Purpose). [`grpc`] runs the services in such streams,
//! [`frame`] reads and writes the messages that travel without gRPC, [`flow`] carries datagrams, [`calls`] carries what Raft waits for, [`desired`] says how desired
//! state is hashed, [`invoke`] what invocations carry besides the request, [`routes`] which function gets it,
//! [`batch`] how records are handed to one, [`holdings`] how nodes name what is on their disk,
//! [`artifact`] in what pieces artifacts travel, [`memory`] when a machine is short of it, [`tunnel`] why a
//! node does not connect to what a tunnel leads to.

pub mod artifact;
pub mod batch;
pub mod calls;
pub mod desired;
pub mod flow;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod grpc;
pub mod holdings;
pub mod invoke;
pub mod link;
pub mod memory;
pub mod routes;
pub mod tunnel;

/// How often an agent tells what its machine and functions use: some 150 bytes each, under a megabyte
/// a day. What is told stands for as long.
pub const USAGE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);

/// Functions in one batch of what was used: a controller takes no more, as the batch must fit into what
/// it can propose.
pub const METER_ENTRIES: usize = 2048;

pub use desired::{ARTIFACT_CONTEXT, EncodedAssignment, desired_hash};

/// The messages and services of `proto/hive/v1/*.proto`; generated, see `tests/generated.rs`.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/hive.v1.rs");
}
