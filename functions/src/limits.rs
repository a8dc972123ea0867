//! What one request may use, and the meters that hold it to that.
//!
//! Growth of memories and tables asks [`MemoryMeter`]; every poll of the guest goes through
//! [`Metered`], which counts processor time and watches the deadline. Neither ever waits, and
//! neither relies on the guest's cooperation: epochs make a busy guest yield (see `ticker`).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep};
use wasmtime::ResourceLimiter;

/// Entries of one table. The greatest seen in real components are 20,000 (JavaScript engines);
/// with 16 bytes each this bounds what a table costs the host to 1.6 MB.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// What a function may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance, all of its memories together.
    pub memory_bytes: u64,
    /// Wall time of one request from its arrival to the last byte of its response.
    pub timeout: Duration,
    /// Requests under way at once; a few more wait.
    pub concurrency: u32,
    /// Processor time of one request; None: the timeout bounds it.
    pub cpu_time: Option<Duration>,
}

/// Counts an instance's memory and refuses what is over the limit.
pub(crate) struct MemoryMeter {
    limit: u64,
    used: u64,
    /// What the growth under way adds; taken back when the host cannot give it.
    growing: u64,
    refused: Arc<AtomicBool>,
    /// The same bytes, for the function's usage.
    total: Arc<AtomicU64>,
}

impl MemoryMeter {
    pub(crate) fn new(limit: u64, refused: Arc<AtomicBool>, total: Arc<AtomicU64>) -> Self {
        Self {
            limit,
            used: 0,
            growing: 0,
            refused,
            total,
        }
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if self.used.saturating_add(more) > self.limit {
            // The guest sees a failed growth and may cope; if it traps, this says why.
            self.refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.used += more;
        self.growing = more;
        self.total.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "memory could not grow");
        self.used -= self.growing;
        self.total.fetch_sub(self.growing, Ordering::Relaxed);
        self.growing = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

impl Drop for MemoryMeter {
    fn drop(&mut self) {
        self.total.fetch_sub(self.used, Ordering::Relaxed);
    }
}

/// Why a guest was not polled to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Deadline,
    CpuTime,
}

/// A future on a budget of wall and processor time.
pub(crate) struct Metered<F> {
    future: Pin<Box<F>>,
    deadline: Instant,
    sleep: Pin<Box<Sleep>>,
    cpu_time: Option<Duration>,
    used: Duration,
    /// Microseconds, for the function's usage.
    total: Arc<AtomicU64>,
}

impl<F> Metered<F> {
    pub(crate) fn new(
        future: F,
        deadline: Instant,
        cpu_time: Option<Duration>,
        total: Arc<AtomicU64>,
    ) -> Self {
        Self {
            future: Box::pin(future),
            deadline,
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            cpu_time,
            used: Duration::ZERO,
            total,
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = Result<F::Output, Stopped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let before = thread_time();
        let polled = self.future.as_mut().poll(cx);
        let spent = thread_time().saturating_sub(before);
        let counted = micros(self.used);
        self.used += spent;
        // Of the sum, not of each poll: many polls take less than a microsecond.
        self.total
            .fetch_add(micros(self.used) - counted, Ordering::Relaxed);
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        if self.cpu_time.is_some_and(|limit| self.used > limit) {
            return Poll::Ready(Err(Stopped::CpuTime));
        }
        // The clock is read besides the timer: with every worker busy in guests, tokio looks at
        // its timers once in tens of polls only.
        if Instant::now() >= self.deadline || self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Stopped::Deadline));
        }
        Poll::Pending
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Processor time of this thread; a poll stays on one thread, and what others do on a crowded
/// machine is not the guest's to answer for.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn all_memories_of_an_instance_share_the_limit() {
        let refused = Arc::new(AtomicBool::new(false));
        let total = Arc::new(AtomicU64::new(0));
        let mut meter = MemoryMeter::new(300, refused.clone(), total.clone());
        assert!(meter.memory_growing(0, 100, None).unwrap());
        assert!(meter.memory_growing(0, 200, None).unwrap());
        assert_eq!(total.load(Ordering::Relaxed), 300);
        assert!(!refused.load(Ordering::Relaxed));

        assert!(!meter.memory_growing(100, 101, None).unwrap());
        assert!(refused.load(Ordering::Relaxed));

        meter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .unwrap();
        assert_eq!(total.load(Ordering::Relaxed), 100);
        assert!(meter.memory_growing(0, 200, None).unwrap());
        drop(meter);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_future_that_only_waits_uses_no_cpu_time_but_has_a_deadline() {
        let total = Arc::new(AtomicU64::new(0));
        let waiting = std::future::pending::<()>();
        let deadline = Instant::now() + Duration::from_millis(20);
        let cpu_time = Some(Duration::from_millis(10));
        let metered = Metered::new(waiting, deadline, cpu_time, total.clone());
        assert_eq!(metered.await, Err(Stopped::Deadline));
        assert!(total.load(Ordering::Relaxed) < 10_000);
    }

    #[tokio::test]
    async fn a_busy_future_is_stopped_by_its_cpu_time() {
        let busy = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        let total = Arc::new(AtomicU64::new(0));
        let deadline = Instant::now() + Duration::from_secs(60);
        let cpu_time = Some(Duration::from_millis(5));
        let metered = Metered::<_>::new(busy, deadline, cpu_time, total.clone());
        let stopped: Result<(), _> = metered.await;
        assert_eq!(stopped, Err(Stopped::CpuTime));
        assert!(total.load(Ordering::Relaxed) >= 5_000);
    }
}
