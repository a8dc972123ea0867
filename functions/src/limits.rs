//! What one request may use.
//!
//! [`Limits`] come in with a function; `memory` and `time` hold its requests to them.

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
    /// Processor time of one request; None: the timeout bounds it.
    pub cpu_time: Option<Duration>,
}

impl Limits {
    /// Where nothing else is said. A controller leaves it unsaid to its agents, so another value
    /// here would mean another one to agents of another version.
    pub const QUEUE: Duration = Duration::from_secs(10);
}
