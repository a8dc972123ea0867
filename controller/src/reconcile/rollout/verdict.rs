//! Whether a version fails more often than it may. Pure.

use std::time::Duration;

use hive_manifests::rollout::{Answered, ErrorRate};

/// How many times as often as the others it may fail: what failed before is no reason.
const TIMES: u64 = 2;

/// Why a version is to be given up, in words, if it is. `tried` is what it answered in the last `time`, `others` what it
/// is compared with, which was answered `there`: elsewhere, or before.
pub fn verdict(
    tried: Answered,
    others: Answered,
    there: &str,
    rule: &ErrorRate,
    time: Duration,
) -> Option<String> {
    if tried.requests < rule.min_requests {
        return None;
    }
    let is_over = tried.failures.saturating_mul(100) > tried.requests.saturating_mul(rule.percent);
    // The rates without a division; of others that were not asked none failed.
    let is_worse = others.requests == 0
        || tried.failures.saturating_mul(others.requests)
            > others
                .failures
                .saturating_mul(tried.requests)
                .saturating_mul(TIMES);
    (is_over && is_worse).then(|| {
        format!(
            "{} of {} requests failed in {} s, and {} of {} {there}",
            tried.failures,
            tried.requests,
            time.as_secs(),
            others.failures,
            others.requests,
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers((failures, requests): (u64, u64)) -> Answered {
        Answered { requests, failures }
    }

    fn rule() -> ErrorRate {
        ErrorRate {
            percent: 5,
            min_requests: 50,
            window: Duration::from_secs(60),
        }
    }

    fn judged(tried: (u64, u64), others: (u64, u64)) -> Option<String> {
        let time = Duration::from_secs(10);
        verdict(answers(tried), answers(others), "elsewhere", &rule(), time)
    }

    #[test]
    fn who_fails_too_often_and_more_than_others_is_given_up() {
        // Failures of requests: tried, others, whether it is bad.
        let cases = [
            ((0, 0), (0, 0), false),
            // Too few to say.
            ((49, 49), (0, 900), false),
            ((50, 50), (0, 900), true),
            // Exactly as often as it may.
            ((5, 100), (0, 900), false),
            ((6, 100), (0, 900), true),
            // The others fail nearly as often.
            ((20, 100), (100, 1000), false),
            ((21, 100), (100, 1000), true),
            // Nobody else was asked.
            ((6, 100), (0, 0), true),
            ((5, 100), (0, 0), false),
        ];
        for (tried, others, is_bad) in cases {
            assert_eq!(
                judged(tried, others).is_some(),
                is_bad,
                "{tried:?} {others:?}"
            );
        }
        assert_eq!(
            judged((12, 80), (0, 700)).as_deref(),
            Some("12 of 80 requests failed in 10 s, and 0 of 700 elsewhere")
        );
        let never = ErrorRate {
            percent: 100,
            ..rule()
        };
        let (all, none) = (answers((99, 99)), answers((0, 9)));
        assert_eq!(verdict(all, none, "before", &never, Duration::ZERO), None);
    }

    proptest! {
        /// More failures never make a version good, and one without any never is bad.
        #[test]
        fn it_is_monotonous(
            requests in 0u64..10_000,
            failures in 0u64..10_000,
            others in (0u64..100, 0u64..1000),
        ) {
            let failures = failures.min(requests);
            let others = (others.0.min(others.1), others.1);
            prop_assert_eq!(judged((0, requests), others), None);
            if judged((failures, requests), others).is_some() {
                prop_assert!(judged((requests, requests), others).is_some());
            }
        }
    }
}
