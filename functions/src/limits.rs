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
