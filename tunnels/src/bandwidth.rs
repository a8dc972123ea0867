//! How fast all connections of a tunnel may be together.
//!
//! Bytes pay before they are sent, and are told when that may be: each in its turn, so that connections which
//! want more than there is get equal shares, chunk by chunk. Nothing waits here; whoever pays does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What may go at once after a pause: enough for timers that come late, too little to be felt by others.
const BURST: Duration = Duration::from_millis(100);

/// Less would cut every answer of a slow tunnel into pieces that wait for each other.
const LEAST_BURST_BYTES: u64 = 64 * 1024;

/// How much of the rate one connection sends in its turn.
const TURN: Duration = Duration::from_millis(10);

/// A turn of fewer bytes costs more than it carries.
const LEAST_TURN_BYTES: u64 = 4 * 1024;

/// So many bytes a second in each direction, shared by all who hold it.
#[derive(Debug)]
pub struct Bandwidth {
    bytes_per_second: u64,
    begin: Instant,
    /// Nanoseconds of `bytes_per_second` that may be behind.
    burst: u64,
    inward: Direction,
    outward: Direction,
}

/// Up to when, in nanoseconds since the begin, everything that was paid takes at the full rate.
#[derive(Debug, Default)]
pub(crate) struct Direction(AtomicU64);

impl Bandwidth {
    /// A rate of 0 is one of 1.
    pub fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self {
            bytes_per_second,
            begin: Instant::now(),
            burst: nanos(BURST).max(cost(LEAST_BURST_BYTES, bytes_per_second)),
            inward: Direction::default(),
            outward: Direction::default(),
        }
    }

    pub fn inward(&self) -> Share<'_> {
        Share {
            of: self,
            direction: &self.inward,
        }
    }

    pub fn outward(&self) -> Share<'_> {
        Share {
            of: self,
            direction: &self.outward,
        }
    }
}

/// One direction of a [`Bandwidth`].
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    of: &'a Bandwidth,
    direction: &'a Direction,
}

impl Share<'_> {
    /// Most bytes that may be paid at a time.
    pub fn turn(&self) -> usize {
        let bytes = u128::from(self.of.bytes_per_second) * TURN.as_nanos() / NANOS;
        (bytes as u64).max(LEAST_TURN_BYTES) as usize
    }

    /// Pays for bytes; they may be sent at the instant that is returned, which may be past.
    pub fn pay(&self, bytes: usize, now: Instant) -> Instant {
        // Nothing waits for longer.
        let paid = self.pay_within(bytes, now, Duration::MAX);
        paid.unwrap_or(now)
    }

    /// The same, unless they would have to wait for longer than that: then nothing is paid.
    pub fn pay_within(&self, bytes: usize, now: Instant, patience: Duration) -> Option<Instant> {
        let Bandwidth {
            bytes_per_second,
            begin,
            burst,
            ..
        } = self.of;
        let elapsed = nanos(now.saturating_duration_since(*begin));
        let latest = elapsed.saturating_add(nanos(patience));
        let cost = cost(bytes as u64, *bytes_per_second);
        let paid = |until: u64| until.max(elapsed).saturating_add(cost);
        let sent = |until: u64| paid(until).saturating_sub(*burst);
        let before = self
            .direction
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                (sent(until) <= latest).then(|| paid(until))
            });
        Some(*begin + Duration::from_nanos(sent(before.ok()?)))
    }
}

const NANOS: u128 = 1_000_000_000;

/// Centuries are enough.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// What bytes take at a rate, in nanoseconds; rounded up, so that the rate is never exceeded.
fn cost(bytes: u64, bytes_per_second: u64) -> u64 {
    let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(bytes_per_second));
    nanos.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long bytes wait that are paid so many milliseconds after the begin.
    fn wait(share: Share<'_>, at: u64, bytes: usize) -> Duration {
        let now = share.of.begin + Duration::from_millis(at);
        share.pay(bytes, now).saturating_duration_since(now)
    }

    #[test]
    fn bytes_wait_for_those_that_were_paid_before() {
        let ms = Duration::from_millis;
        let bandwidth = Bandwidth::new(1_000_000);
        for (at, bytes, expected) in [
            // A tenth of a second's at once.
            (0, 100_000, ms(0)),
            (0, 10_000, ms(10)),
            (0, 10_000, ms(20)),
            // Time passes, and nothing is given twice.
            (15, 10_000, ms(15)),
            (45, 1_000, ms(0)),
            (45, 85_000, ms(71)),
            // A pause, however long, is worth no more than a tenth of a second.
            (1_000_000, 100_000, ms(0)),
            (1_000_000, 1_000, ms(1)),
        ] {
            let waited = wait(bandwidth.inward(), at, bytes);
            assert_eq!(waited, expected, "{bytes} bytes after {at} ms");
        }
        // The other direction is another road.
        assert_eq!(wait(bandwidth.outward(), 0, 100_000), ms(0));
    }

    #[test]
    fn a_slow_tunnel_sends_a_short_answer_at_once() {
        let bandwidth = Bandwidth::new(1024);
        assert_eq!(wait(bandwidth.inward(), 0, 64 * 1024), Duration::ZERO);
        let next = wait(bandwidth.inward(), 0, 1024);
        assert_eq!(next, Duration::from_secs(1));
    }

    #[test]
    fn who_does_not_wait_does_not_pay() {
        let ms = Duration::from_millis;
        let bandwidth = Bandwidth::new(1_000_000);
        let (share, now) = (bandwidth.inward(), bandwidth.begin);
        for (bytes, expected) in [
            (150_000, Some(ms(50))),
            (60_000, None),
            (50_000, Some(ms(100))),
            (1, None),
        ] {
            let paid = share.pay_within(bytes, now, ms(100));
            let waited = paid.map(|at| at.saturating_duration_since(now));
            assert_eq!(waited, expected, "{bytes}");
        }
    }

    #[test]
    fn any_rate_can_be_paid() {
        for rate in [0, 1, 1_000_000_000, u64::MAX] {
            let bandwidth = Bandwidth::new(rate);
            assert!(bandwidth.inward().turn() >= LEAST_TURN_BYTES as usize);
            for bytes in [0, 1, usize::MAX, usize::MAX] {
                wait(bandwidth.outward(), 0, bytes);
            }
        }
    }
}
