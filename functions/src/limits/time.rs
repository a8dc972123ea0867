//! The wall and processor time of one request, held to their limits.
//!
//! Every poll of the guest goes through [`Metered`], which counts processor time and watches the
//! deadline. It relies on nothing that the guest does: epochs make a busy one ask the [`Stopwatch`]
//! itself and yield (see `ticker`).
//!
//! A poll that is over within [`FRESH`] is counted by the wall clock, which costs no system call; only a
//! thread that lost its core for less than that makes it too much. A longer one is counted by the
//! clock of its thread, from a reading that may be [`FRESH`] old: it is never counted as less than it
//! took, nor as more than a millisecond above that.

use std::{
    cell::Cell,
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

use crate::ticker::EPOCH_TICK;

/// How old the last reading of a thread's clock may be when a poll begins. Reading it is a system
/// call, two of which each poll would otherwise make; a thousand a second are nothing.
const FRESH: Duration = Duration::from_millis(1);

/// Processor time after which a request is a long one: two turns, some hundred times what most answers take.
const SHORT: Duration = EPOCH_TICK.saturating_mul(2);

/// Processor time within one turn from which on a guest that is cut off is one that computes. Half a turn: where the
/// processor is wanted by many, few have it for a whole one. What a short one is counted too much ([`FRESH`]) is less.
const COMPUTES: Duration = Duration::from_micros(EPOCH_TICK.as_micros() as u64 / 2);

/// Why a guest did not come to its end. Inside a guest it is the error that stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("no time is left")]
    Deadline,
    #[error("no CPU time is left")]
    CpuTime,
}

/// What a guest does that was asked by a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Its turn has just begun: the tick was meant for those that run for longer.
    GoesOn,
    Yields,
    Stops(Stopped),
}

/// How much of its time a request has used. Who polls the guest starts and stops it; the guest's own
/// thread asks it in between.
pub(crate) struct Stopwatch {
    made: Instant,
    /// Nanoseconds since `made`.
    deadline: AtomicU64,
    /// What may be used. Nanoseconds, as those below.
    cpu_time: AtomicU64,
    used: AtomicU64,
    /// When the poll under way began, since `made`.
    began: AtomicU64,
    /// What this thread's clock showed then, or shortly before.
    clock: AtomicU64,
    /// What the last poll used.
    turn: AtomicU64,
    /// In this poll, as it was asked to.
    has_yielded: AtomicBool,
}

impl Stopwatch {
    pub(crate) fn new(deadline: Instant, cpu_time: Duration) -> Self {
        let made = Instant::now();
        Self {
            made,
            deadline: AtomicU64::new(nanos(deadline.saturating_duration_since(made))),
            cpu_time: AtomicU64::new(nanos(cpu_time)),
            used: AtomicU64::new(0),
            began: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            has_yielded: AtomicBool::new(false),
        }
    }

    pub(crate) fn start(&self) {
        let now = Instant::now();
        let clock = Reading::recent(now).clock;
        self.began.store(self.since_made(now), Ordering::Relaxed);
        self.clock.store(clock, Ordering::Relaxed);
        self.has_yielded.store(false, Ordering::Relaxed);
    }

    /// Returns the microseconds of all polls before this one, and with it; and why the request must
    /// end, if it must.
    pub(crate) fn stop(&self) -> (u64, u64, Option<Stopped>) {
        let now = Instant::now();
        let spent = self.spent(now);
        self.turn.store(spent, Ordering::Relaxed);
        let before = self.used.fetch_add(spent, Ordering::Relaxed);
        let used = before + spent;
        (before / 1000, used / 1000, self.judge(used, now))
    }

    /// A request comes to an instance that answers several: it brings its own time. With `alone`,
    /// nothing is left of what others brought.
    pub(crate) fn joined(&self, deadline: Instant, cpu_time: Duration, alone: bool) {
        let deadline = nanos(deadline.saturating_duration_since(self.made));
        self.deadline.fetch_max(deadline, Ordering::Relaxed);
        let left = match alone {
            true => self.used.load(Ordering::Relaxed),
            false => self.cpu_time.load(Ordering::Relaxed),
        };
        let allowed = left.saturating_add(nanos(cpu_time));
        self.cpu_time.store(allowed, Ordering::Relaxed);
    }

    /// One has gone, and takes along what it did not use: `others` that each brought `cpu_time` have no
    /// more than that. The last one leaves what there is for what the guest does afterwards.
    pub(crate) fn left(&self, cpu_time: Duration, others: usize) {
        if others > 0 {
            let theirs = nanos(cpu_time).saturating_mul(others as u64);
            let allowed = self.used.load(Ordering::Relaxed).saturating_add(theirs);
            self.cpu_time.fetch_min(allowed, Ordering::Relaxed);
        }
    }

    /// Whether the last poll ended in the middle of something.
    pub(crate) fn has_yielded(&self) -> bool {
        self.has_yielded.load(Ordering::Relaxed)
    }

    /// Whether the last poll ended in the middle of something that takes the processor.
    pub(crate) fn computes(&self) -> bool {
        self.has_yielded() && self.turn.load(Ordering::Relaxed) > nanos(COMPUTES)
    }

    /// Whether it is known by now that this is not over soon.
    pub(crate) fn is_long(&self) -> bool {
        self.used.load(Ordering::Relaxed) > nanos(SHORT)
    }

    /// To be asked within a poll, on the thread that polls.
    pub(crate) fn ask(&self) -> Asked {
        let now = Instant::now();
        let used = self.used.load(Ordering::Relaxed) + self.spent(now);
        match self.judge(used, now) {
            Some(stopped) => Asked::Stops(stopped),
            None if self.wall(now) < nanos(FRESH) => Asked::GoesOn,
            None => {
                self.has_yielded.store(true, Ordering::Relaxed);
                Asked::Yields
            }
        }
    }

    /// What the poll under way has taken.
    fn spent(&self, now: Instant) -> u64 {
        let wall = self.wall(now);
        if wall < nanos(FRESH) {
            return wall;
        }
        let clock = Reading::take(now).clock;
        // No thread runs for longer than time passes: the wall is the better of both where the
        // reading at the begin was old.
        clock
            .saturating_sub(self.clock.load(Ordering::Relaxed))
            .min(wall)
    }

    /// How long ago the poll under way began.
    fn wall(&self, now: Instant) -> u64 {
        let began = self.began.load(Ordering::Relaxed);
        self.since_made(now).saturating_sub(began)
    }

    fn judge(&self, used: u64, now: Instant) -> Option<Stopped> {
        if used > self.cpu_time.load(Ordering::Relaxed) {
            Some(Stopped::CpuTime)
        } else if self.since_made(now) >= self.deadline.load(Ordering::Relaxed) {
            Some(Stopped::Deadline)
        } else {
            None
        }
    }

    fn deadline(&self) -> Instant {
        self.made + Duration::from_nanos(self.deadline.load(Ordering::Relaxed))
    }

    fn since_made(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.made))
    }
}

/// What the clock of this thread showed, and when.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    /// Nanoseconds of processor time: a poll stays on one thread, and what others do on a crowded
    /// machine is not the guest's to answer for.
    clock: u64,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

impl Reading {
    fn recent(now: Instant) -> Self {
        LAST.get()
            .filter(|last| now.saturating_duration_since(last.at) < FRESH)
            .unwrap_or_else(|| Self::take(now))
    }

    fn take(now: Instant) -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let clock = nanos(Duration::new(
            time.tv_sec.try_into().unwrap_or(0),
            time.tv_nsec.try_into().unwrap_or(0),
        ));
        let reading = Self { at: now, clock };
        LAST.set(Some(reading));
        reading
    }
}

/// A future on a budget of wall and processor time.
pub(crate) struct Metered<'a, F> {
    future: F,
    stopwatch: Arc<Stopwatch>,
    /// Made when the future waits for the first time: most never do.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Microseconds, of all of the function's requests.
    total: &'a AtomicU64,
}

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(future: F, stopwatch: Arc<Stopwatch>, total: &'a AtomicU64) -> Self {
        Self {
            future,
            stopwatch,
            sleep: None,
            total,
        }
    }
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = Result<F::Output, Stopped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stopwatch.start();
        let polled = Pin::new(&mut self.future).poll(cx);
        let (before, now, stopped) = self.stopwatch.stop();
        // Of the sum, not of each poll: many polls take less than a microsecond.
        self.total.fetch_add(now - before, Ordering::Relaxed);
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        // It computes, and the next tick finds it where it does.
        if self.stopwatch.has_yielded() {
            return Poll::Pending;
        }
        // The clock is read besides the timer: with every worker busy in guests, tokio looks at
        // its timers once in tens of polls only.
        if let Some(stopped) = stopped {
            return Poll::Ready(Err(stopped));
        }
        let deadline = self.stopwatch.deadline();
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

/// For tests: polls of guests that take the processor.
#[cfg(test)]
impl Stopwatch {
    /// Until one took as much as tells what it is, on however busy a machine.
    pub(crate) fn compute_a_turn(&self) {
        while !self.computes() {
            self.start();
            let began = Instant::now();
            while began.elapsed() < EPOCH_TICK {
                self.cut_off();
            }
            self.stop();
        }
    }

    pub(crate) fn cut_off(&self) {
        self.has_yielded.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{pin::pin, thread};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn stopwatch(deadline: Instant, cpu_time: Duration) -> Arc<Stopwatch> {
        Arc::new(Stopwatch::new(deadline, cpu_time))
    }

    /// Computes until its thread has used so much more.
    fn compute(time: Duration) {
        let clock = || Reading::take(Instant::now()).clock;
        let end = clock() + nanos(time);
        while clock() < end {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_future_that_only_waits_uses_no_cpu_time_but_has_a_deadline() {
        let total = AtomicU64::new(0);
        let deadline = Instant::now() + Duration::from_millis(20);
        let waiting = std::future::pending::<()>();
        let stopwatch = stopwatch(deadline, LONG);
        let metered = Metered::new(waiting, stopwatch, &total);
        assert_eq!(metered.await, Err(Stopped::Deadline));
        assert!(total.load(Ordering::Relaxed) < 20_000);
    }

    #[tokio::test]
    async fn a_busy_future_is_stopped_by_its_cpu_time() {
        let busy = pin!(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let total = AtomicU64::new(0);
        let stopwatch = stopwatch(Instant::now() + LONG, Duration::from_millis(5));
        let metered = Metered::new(busy, stopwatch, &total);
        let stopped: Result<(), _> = metered.await;
        assert_eq!(stopped, Err(Stopped::CpuTime));
        assert!(total.load(Ordering::Relaxed) >= 5_000);
    }

    #[test]
    fn a_stopwatch_counts_the_poll_under_way() {
        let far = Instant::now() + LONG;
        let stopwatch = stopwatch(far, Duration::from_millis(50));
        stopwatch.start();
        let mut asked = Asked::GoesOn;
        while !matches!(asked, Asked::Stops(_)) {
            // Who has yielded once does not go on.
            let before = asked;
            asked = stopwatch.ask();
            assert!(before == Asked::GoesOn || asked != Asked::GoesOn);
        }
        assert_eq!(asked, Asked::Stops(Stopped::CpuTime));
        assert_eq!(stopwatch.used.load(Ordering::Relaxed), 0, "it goes on");
        let (before, now, stopped) = stopwatch.stop();
        assert!(before == 0 && now >= 50_000, "{now}");
        assert_eq!(stopped, Some(Stopped::CpuTime));

        let late = Stopwatch::new(Instant::now(), LONG);
        late.start();
        assert_eq!(late.ask(), Asked::Stops(Stopped::Deadline));
    }

    #[test]
    fn a_long_poll_is_counted_by_what_its_thread_used() {
        let stopwatch = stopwatch(Instant::now() + LONG, LONG);
        let began = Reading::take(Instant::now()).clock;
        for (computes, sleeps) in [(30, 0), (0, 200), (10, 100)] {
            let before = Reading::take(Instant::now()).clock;
            stopwatch.start();
            compute(Duration::from_millis(computes));
            thread::sleep(Duration::from_millis(sleeps));
            let (sum, now, _) = stopwatch.stop();
            let used = (Reading::take(Instant::now()).clock - before) / 1000;
            assert!(now - sum >= computes * 1000, "{} of {used}", now - sum);
            // Both clocks, and the microseconds, are read one after the other.
            assert!(now - sum <= used + 1001, "{} of {used}", now - sum);
        }
        let all = Reading::take(Instant::now()).clock - began;
        assert!(stopwatch.used.load(Ordering::Relaxed) <= all + 3 * nanos(FRESH));
    }

    #[test]
    fn who_is_cut_off_computes_if_it_used_its_turn() {
        let stopwatch = stopwatch(Instant::now() + LONG, LONG);
        let tick = EPOCH_TICK.as_millis() as u64;
        for (computes, sleeps, is_cut_off, expected) in [
            (0, 0, true, false),
            // Others had the processor.
            (0, tick, true, false),
            (tick, 0, true, true),
            // It waits for something, or has ended.
            (tick, 0, false, false),
        ] {
            stopwatch.start();
            compute(Duration::from_millis(computes));
            thread::sleep(Duration::from_millis(sleeps));
            if is_cut_off {
                stopwatch.cut_off();
            }
            stopwatch.stop();
            assert_eq!(stopwatch.computes(), expected, "{computes} {sleeps}");
        }
    }

    #[test]
    fn requests_that_share_a_stopwatch_bring_their_time_and_take_it_along() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let stopwatch = stopwatch(now + LONG, ms(10));
        let left = || {
            let (allowed, used) = (&stopwatch.cpu_time, &stopwatch.used);
            (allowed.load(Ordering::Relaxed) - used.load(Ordering::Relaxed)) / 1_000_000
        };
        let uses = |millis| {
            stopwatch
                .used
                .fetch_add(nanos(ms(millis)), Ordering::Relaxed)
        };
        stopwatch.joined(now + LONG * 2, ms(10), false);
        assert_eq!(left(), 20);
        assert!(stopwatch.deadline() > now + LONG, "the later one's");
        stopwatch.joined(now, ms(10), false);
        assert!(stopwatch.deadline() > now + LONG, "it stays");
        uses(5);
        assert_eq!(left(), 25);
        stopwatch.left(ms(10), 2);
        assert_eq!(left(), 20);
        uses(15);
        stopwatch.left(ms(10), 1);
        assert_eq!(left(), 5, "who is left has no more than there was");
        stopwatch.left(ms(10), 0);
        assert_eq!(left(), 5);
        stopwatch.joined(now, ms(10), true);
        assert_eq!(left(), 10);
    }

    #[test]
    fn short_polls_add_up() {
        let stopwatch = stopwatch(Instant::now() + LONG, Duration::from_millis(3));
        let stopped = (0..1_000_000).find_map(|_| {
            stopwatch.start();
            stopwatch.stop().2
        });
        assert_eq!(stopped, Some(Stopped::CpuTime));
    }
}
