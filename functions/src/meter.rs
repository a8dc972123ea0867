//! What a function's requests come to: counted while they run, read as [`FunctionUsage`].
//!
//! A [`Meter`] outlives the instances that count with it, so nothing is lost or counted again when
//! one takes over from another. Whatever is counted here costs every request: one addition to an
//! atomic each, in no order that anybody may rely on.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use http::StatusCode;
use tokio::time::Instant;

use crate::{
    latency::{self, Buckets},
    reason::Reason,
};

/// Classes of statuses: 1xx to 5xx.
const CLASSES: usize = 5;

/// Counts a function's requests. All of its instances on a node share one.
#[derive(Debug, Default)]
pub struct Meter {
    admitted: AtomicU64,
    /// Of requests that got no turn.
    refused: AtomicU64,
    errors: [AtomicU64; Reason::ALL.len()],
    responses: [AtomicU64; CLASSES],
    cold_starts: AtomicU64,
    pub(crate) cpu_micros: AtomicU64,
    memory_kib_micros: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    durations: [AtomicU64; latency::BOUNDS_MICROS.len() + 1],
    duration_micros: AtomicU64,
    in_flight: AtomicU32,
    memory_bytes: AtomicU64,
    high_water_bytes: AtomicU64,
}

/// Counters since there is the meter; the last four are gauges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionUsage {
    /// All that came and were not passed on to be answered elsewhere.
    pub requests: u64,
    /// Those of them that ran.
    pub admitted: u64,
    /// Requests that ended in an [`InvokeError`](crate::InvokeError), also after their head was
    /// sent.
    pub errors: u64,
    /// The same by reason, in the order of [`Reason::ALL`].
    pub errors_by_reason: [u64; Reason::ALL.len()],
    /// Answers of the function itself, by the class of their status: 1xx to 5xx.
    pub responses: [u64; CLASSES],
    /// Requests that were the first of a copy since it was loaded.
    pub cold_starts: u64,
    pub cpu_micros: u64,
    /// Linear memory times how long it was held.
    pub memory_kib_micros: u64,
    /// Of bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// From a request's arrival to the last byte of its answer, or its error: of all that ran and
    /// came to their end.
    pub durations: Buckets,
    pub duration_micros: u64,
    pub in_flight: u32,
    /// Requests that wait for their turn.
    pub waiting: u32,
    /// Instances that would take a request now; of those that answer one each there are none.
    pub seats: u32,
    /// Linear memory of the instances that live now.
    pub memory_bytes: u64,
    /// The most that one instance had.
    pub high_water_bytes: u64,
}

impl Meter {
    pub fn read(&self) -> FunctionUsage {
        let (admitted, refused) = (self.admitted.load(Relaxed), self.refused.load(Relaxed));
        let errors_by_reason = read(&self.errors);
        FunctionUsage {
            requests: admitted + refused,
            admitted,
            errors: errors_by_reason.iter().sum(),
            errors_by_reason,
            responses: read(&self.responses),
            cold_starts: self.cold_starts.load(Relaxed),
            cpu_micros: self.cpu_micros.load(Relaxed),
            memory_kib_micros: self.memory_kib_micros.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            durations: read(&self.durations),
            duration_micros: self.duration_micros.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            waiting: 0,
            seats: 0,
            memory_bytes: self.memory_bytes.load(Relaxed),
            high_water_bytes: self.high_water_bytes.load(Relaxed),
        }
    }

    /// A request got no turn; [`failed`](Self::failed) says why.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self, reason: Reason) {
        self.errors[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn started_cold(&self) {
        self.cold_starts.fetch_add(1, Relaxed);
    }

    /// So much of a request's body came.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }
}

fn read<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| counters[index].load(Relaxed))
}

/// One request that was admitted. Dropped when the caller has all that it gets.
pub(crate) struct Tally {
    meter: Arc<Meter>,
    arrived: Instant,
}

impl Tally {
    pub(crate) fn begin(meter: Arc<Meter>, arrived: Instant) -> Self {
        meter.admitted.fetch_add(1, Relaxed);
        Self { meter, arrived }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.meter.responses[class].fetch_add(1, Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let took = self.arrived.elapsed().as_micros() as u64;
        self.meter.durations[latency::bucket(took)].fetch_add(1, Relaxed);
        self.meter.duration_micros.fetch_add(took, Relaxed);
    }
}

/// Counts a request that runs, for as long as it lives.
pub(crate) struct InFlight<M: Deref<Target = Meter>>(M);

impl<M: Deref<Target = Meter>> InFlight<M> {
    pub(crate) fn new(meter: M) -> Self {
        meter.in_flight.fetch_add(1, Relaxed);
        Self(meter)
    }
}

impl<M: Deref<Target = Meter>> Drop for InFlight<M> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The memory of one instance, for as long as it has it.
pub(crate) struct HeldMemory {
    meter: Arc<Meter>,
    bytes: u64,
    /// From when on the time it is held is yet to be counted.
    since: Instant,
}

impl HeldMemory {
    pub(crate) fn none(meter: Arc<Meter>) -> Self {
        Self {
            meter,
            bytes: 0,
            since: Instant::now(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From now on it is so much.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.set_at(bytes, Instant::now());
    }

    fn set_at(&mut self, bytes: u64, now: Instant) {
        let micros = now.duration_since(self.since).as_micros() as u64;
        let held = (self.bytes >> 10).saturating_mul(micros);
        if held > 0 {
            self.meter.memory_kib_micros.fetch_add(held, Relaxed);
        }
        // Either way it comes out right: the counter wraps as the difference does.
        let more = bytes.wrapping_sub(self.bytes);
        self.meter.memory_bytes.fetch_add(more, Relaxed);
        // Most instances have what others had before: then nothing is written.
        if bytes > self.meter.high_water_bytes.load(Relaxed) {
            self.meter.high_water_bytes.fetch_max(bytes, Relaxed);
        }
        (self.bytes, self.since) = (bytes, now);
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn memory_is_counted_by_how_long_it_was_held() {
        let meter = Arc::new(Meter::default());
        let mut held = HeldMemory::none(meter.clone());
        let mut other = HeldMemory::none(meter.clone());
        let at = |held: &HeldMemory, millis| held.since + Duration::from_millis(millis);
        held.set_at(3 << 20, at(&held, 5));
        other.set_at(1 << 20, at(&other, 0));
        assert_eq!(meter.read().memory_kib_micros, 0, "it had nothing before");
        assert_eq!(meter.read().memory_bytes, 4 << 20);
        held.set_at(5 << 20, at(&held, 200));
        assert_eq!(meter.read().memory_kib_micros, 3 * 1024 * 200_000);
        held.set_at(2 << 20, at(&held, 1));
        let usage = meter.read();
        assert_eq!(usage.memory_kib_micros, (3 * 200 + 5) * 1024 * 1000);
        assert_eq!(usage.memory_bytes, 3 << 20);
        assert_eq!(usage.high_water_bytes, 5 << 20);
        drop((held, other));
        assert_eq!(meter.read().memory_bytes, 0);
        assert_eq!(meter.read().high_water_bytes, 5 << 20);
    }

    #[test]
    fn a_request_is_counted_once_whatever_becomes_of_it() {
        let meter = Arc::new(Meter::default());
        let tally = Tally::begin(meter.clone(), Instant::now());
        assert_eq!((meter.read().requests, meter.read().admitted), (1, 1));
        assert_eq!(meter.read().durations, Buckets::default());
        tally.answered(StatusCode::NOT_FOUND);
        meter.failed(Reason::Trap);
        drop(tally);
        meter.refused();
        meter.failed(Reason::Overloaded);
        let usage = meter.read();
        assert_eq!((usage.requests, usage.admitted, usage.errors), (2, 1, 2));
        assert_eq!(usage.durations.iter().sum::<u64>(), 1);
        assert_eq!(usage.responses, [0, 0, 0, 1, 0]);
        assert_eq!(usage.errors_by_reason[Reason::Trap as usize], 1);
    }
}
