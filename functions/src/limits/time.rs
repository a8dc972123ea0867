//! The wall and processor time of one request, held to their limits.
//!
//! Every poll of the guest goes through [`Metered`], which counts processor time and watches the
//! deadline. It relies on nothing that the guest does: epochs make a busy one ask the [`Stopwatch`]
//! itself and yield (see `ticker`).

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

/// Why a guest did not come to its end. Inside a guest it is the error that stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("no time is left")]
    Deadline,
    #[error("no CPU time is left")]
    CpuTime,
}

/// How much of its time a request has used. Who polls the guest starts and stops it; the guest's own
/// thread asks it in between.
pub(crate) struct Stopwatch {
    deadline: Instant,
    /// Nanoseconds, as those below.
    cpu_time: u64,
    used: AtomicU64,
    /// This thread's time when the poll under way began.
    began: AtomicU64,
}

impl Stopwatch {
    pub(crate) fn new(deadline: Instant, cpu_time: Duration) -> Self {
        Self {
            deadline,
            cpu_time: nanos(cpu_time),
            used: AtomicU64::new(0),
            began: AtomicU64::new(0),
        }
    }

    fn start(&self) {
        self.began.store(thread_time(), Ordering::Relaxed);
    }

    /// Returns the microseconds of all polls before this one, and with it.
    fn stop(&self) -> (u64, u64) {
        let spent = thread_time().saturating_sub(self.began.load(Ordering::Relaxed));
        let before = self.used.fetch_add(spent, Ordering::Relaxed);
        (before / 1000, (before + spent) / 1000)
    }

    /// Why the request must end, between polls.
    fn is_up(&self) -> Option<Stopped> {
        self.judge(self.used.load(Ordering::Relaxed))
    }

    /// Why the request must end, within a poll: to be asked on the thread that polls.
    pub(crate) fn is_up_within(&self) -> Option<Stopped> {
        let spent = thread_time().saturating_sub(self.began.load(Ordering::Relaxed));
        self.judge(self.used.load(Ordering::Relaxed) + spent)
    }

    fn judge(&self, used: u64) -> Option<Stopped> {
        if used > self.cpu_time {
            Some(Stopped::CpuTime)
        } else if Instant::now() >= self.deadline {
            Some(Stopped::Deadline)
        } else {
            None
        }
    }
}

/// A future on a budget of wall and processor time.
pub(crate) struct Metered<F> {
    future: Pin<Box<F>>,
    stopwatch: Arc<Stopwatch>,
    /// Made when the future waits for the first time: most never do.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Microseconds, for the function's usage.
    total: Arc<AtomicU64>,
}

impl<F> Metered<F> {
    pub(crate) fn new(future: F, stopwatch: Arc<Stopwatch>, total: Arc<AtomicU64>) -> Self {
        Self {
            future: Box::pin(future),
            stopwatch,
            sleep: None,
            total,
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = Result<F::Output, Stopped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stopwatch.start();
        let polled = self.future.as_mut().poll(cx);
        let (before, now) = self.stopwatch.stop();
        // Of the sum, not of each poll: many polls take less than a microsecond.
        self.total.fetch_add(now - before, Ordering::Relaxed);
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        // The clock is read besides the timer: with every worker busy in guests, tokio looks at
        // its timers once in tens of polls only.
        if let Some(stopped) = self.stopwatch.is_up() {
            return Poll::Ready(Err(stopped));
        }
        let deadline = self.stopwatch.deadline;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Stopped::Deadline)),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Nanoseconds of processor time of this thread; a poll stays on one thread, and what others do on
/// a crowded machine is not the guest's to answer for.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    nanos(Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    ))
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
        let stopwatch = Arc::new(Stopwatch::new(deadline, cpu_time));
        let metered = Metered::new(waiting, stopwatch, total.clone());
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
        let stopwatch = Arc::new(Stopwatch::new(deadline, cpu_time));
        let metered = Metered::<_>::new(busy, stopwatch, total.clone());
        let stopped: Result<(), _> = metered.await;
        assert_eq!(stopped, Err(Stopped::CpuTime));
        assert!(total.load(Ordering::Relaxed) >= 5_000);
    }
    #[test]
    fn a_stopwatch_counts_the_poll_under_way() {
        let far = Instant::now() + Duration::from_secs(60);
        let stopwatch = Stopwatch::new(far, Duration::from_millis(5));
        stopwatch.start();
        assert_eq!(stopwatch.is_up_within(), None);
        while stopwatch.is_up_within().is_none() {
            std::hint::spin_loop();
        }
        assert_eq!(stopwatch.is_up_within(), Some(Stopped::CpuTime));
        assert_eq!(stopwatch.is_up(), None, "not between polls yet");
        let (before, now) = stopwatch.stop();
        assert!(before == 0 && now >= 5000, "{now}");
        assert_eq!(stopwatch.is_up(), Some(Stopped::CpuTime));

        let late = Stopwatch::new(Instant::now(), Duration::from_secs(5));
        assert_eq!(late.is_up(), Some(Stopped::Deadline));
    }
}
