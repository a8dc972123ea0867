//! What one request may use.
//!
//! [`Limits`] come in with a function; `memory` and `time` hold its requests to them, and `budget` all
//! requests together to what the machine gives.

#[cfg(feature = "run")]
pub(crate) mod budget;
#[cfg(feature = "run")]
pub(crate) mod memory;
#[cfg(feature = "run")]
pub(crate) mod time;

use std::time::Duration;

/// What a function may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance, all of its memories together.
    pub memory_bytes: u64,
    /// Wall time of one request from its arrival to the last byte of its response.
    pub timeout: Duration,
    /// Requests under way at once; more wait.
    pub concurrency: u32,
    /// How long a request may wait for its turn; part of its wall time. Zero: not at all.
    pub queue: Duration,
    /// Processor time of one request; its wall time bounds it too.
    pub cpu_time: Duration,
    /// Bytes of one response's body.
    pub response_bytes: u64,
    /// Handles that one instance holds at once: headers, bodies, streams, what it waits for.
    pub handles: u32,
}

/// What one function's outgoing requests may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressLimits {
    /// Connections at once, idle ones counted.
    pub max_connections: u32,
    /// From the start of a request until its connection is there: waiting for one that is free,
    /// looking the name up, TCP and TLS together.
    pub connect: Duration,
    /// From there until the head of the answer. None: as long as the function itself may take.
    pub first_byte: Option<Duration>,
    /// The longest pause within the body of the answer. None: likewise.
    pub idle: Option<Duration>,
}

impl EgressLimits {
    /// Where nothing else is said; see [`Limits::QUEUE`]. Enough for a function that answers a
    /// hundred requests at once, each with a request of its own to a quick service.
    pub const CONNECTIONS: u32 = 64;
    /// Likewise. Three times a lost SYN, or a lookup that is tried at a second name server.
    pub const CONNECT: Duration = Duration::from_secs(5);
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            max_connections: Self::CONNECTIONS,
            connect: Self::CONNECT,
            first_byte: None,
            idle: None,
        }
    }
}

/// Where nothing else is said. A controller leaves these unsaid to its agents, so another value here
/// would mean another one to agents of another version.
impl Limits {
    pub const QUEUE: Duration = Duration::from_secs(10);
    /// Many times what answering takes: what computes for longer is a job, and its neighbours wait
    /// for the processor meanwhile.
    pub const CPU_TIME: Duration = Duration::from_secs(10);
    /// More than most memory limits, so what is longer streams without end.
    pub const RESPONSE_BYTES: u64 = 64 << 20;
    /// A hundred outgoing requests at once hold five each.
    pub const HANDLES: u32 = 1000;
}
