//! What a function's requests come to: counted while they run, read as [`FunctionUsage`].

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Counters since the function was loaded; the last three are gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionUsage {
    pub requests: u64,
    /// Requests that ended in an [`InvokeError`](crate::InvokeError), also after their head was
    /// sent.
    pub errors: u64,
    pub cpu_micros: u64,
    pub in_flight: u32,
    /// Requests that wait for their turn.
    pub waiting: u32,
    /// Linear memory of the instances that live now.
    pub memory_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub in_flight: AtomicU32,
    pub cpu_micros: Arc<AtomicU64>,
    pub memory_bytes: Arc<AtomicU64>,
}

impl Counters {
    pub(crate) fn read(&self, waiting: u32) -> FunctionUsage {
        FunctionUsage {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            cpu_micros: self.cpu_micros.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting,
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Counts a request that runs, for as long as it lives.
pub(crate) struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    pub(crate) fn new(counters: &'a Counters) -> Self {
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(&counters.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
