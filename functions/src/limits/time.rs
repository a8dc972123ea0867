//! The wall and processor time of one request, held to their limits.
//!
//! Every poll of the guest goes through [`Metered`], which counts processor time and watches the
//! deadline. It relies on nothing that the guest does: epochs make a busy one yield (see `ticker`).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep};

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
    cpu_time: Duration,
    used: Duration,
    /// Microseconds, for the function's usage.
    total: Arc<AtomicU64>,
}

impl<F> Metered<F> {
    pub(crate) fn new(
        future: F,
        deadline: Instant,
        cpu_time: Duration,
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
        if self.used > self.cpu_time {
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
    use super::*;

    #[tokio::test]
    async fn a_future_that_only_waits_uses_no_cpu_time_but_has_a_deadline() {
        let total = Arc::new(AtomicU64::new(0));
        let waiting = std::future::pending::<()>();
        let deadline = Instant::now() + Duration::from_millis(20);
        let cpu_time = Duration::from_millis(10);
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
        let cpu_time = Duration::from_millis(5);
        let metered = Metered::<_>::new(busy, deadline, cpu_time, total.clone());
        let stopped: Result<(), _> = metered.await;
        assert_eq!(stopped, Err(Stopped::CpuTime));
        assert!(total.load(Ordering::Relaxed) >= 5_000);
    }
}
