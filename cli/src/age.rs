//! How long ago something was, as kubectl shows it.

use std::time::Duration;

pub use hive_manifests::age::human;
use jiff::Timestamp;

/// How long ago an RFC 3339 instant was; a clock that runs behind counts as no time at all.
pub fn since(instant: &str, now: Timestamp) -> Option<String> {
    let then: Timestamp = instant.parse().ok()?;
    let elapsed = now.duration_since(then);
    Some(human(elapsed.try_into().unwrap_or(Duration::ZERO)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_instant_in_the_future_is_no_age() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(since("2026-01-01T00:01:00Z", now).unwrap(), "0s");
        assert_eq!(since("2025-12-31T23:54:48Z", now).unwrap(), "5m12s");
        assert_eq!(since("soon", now), None);
    }
}
