//! How long to wait before trying again, by how often it failed. Pure; no jitter, since one
//! machine's retries collide with nobody's.

use std::time::Duration;

/// Long enough for a dropped link to come back, short enough that nobody reaches for the logs.
const FIRST: Duration = Duration::from_secs(1);

/// What fails for long is a full disk or a component that this machine can't load: people, not
/// retries, mend it. Five minutes after they did, it runs.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after failure number `attempts`, counted from 1.
pub fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits: Vec<u64> = (1..=11).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff(0), FIRST);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
