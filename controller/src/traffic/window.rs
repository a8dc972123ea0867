//! The last minutes of a count, second by second. Pure: the seconds are counted from a beginning that its
//! user chooses.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

/// What a function was asked for long ago says little about now. Of a revision that is asked for all the
/// time a window takes some 12 KB.
pub const LONGEST: Duration = Duration::from_secs(300);

/// What requests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Those that a version answered for: with an answer of its own, or a failure of its own.
    pub requests: u64,
    /// Of these, how many failed.
    pub failures: u64,
    /// The time that requests were under way, those waiting and those refused too: divided by the time
    /// that passed it says how many there were at once.
    pub busy: Duration,
    /// The time that requests waited for their turn at a copy.
    pub waited: Duration,
}

impl Sum {
    /// How long a request waited on average. Those that waited in vain are none that a version answered for: what
    /// they waited weighs all the more.
    pub fn wait(&self) -> Duration {
        let requests = u32::try_from(self.requests.max(1)).unwrap_or(u32::MAX);
        self.waited / requests
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.failures = self.failures.saturating_add(more.failures);
        self.busy = self.busy.saturating_add(more.busy);
        self.waited = self.waited.saturating_add(more.waited);
    }
}

#[derive(Debug, Default)]
pub struct Window {
    /// Seconds in which there was something, the oldest first.
    seconds: VecDeque<(u64, Sum)>,
}

impl Window {
    pub fn add(&mut self, second: u64, sum: Sum) {
        match self.seconds.back_mut() {
            // Told late: it counts as what was told last.
            Some((last, known)) if *last >= second => *known += sum,
            _ if sum == Sum::default() => {}
            _ => self.seconds.push_back((second, sum)),
        }
    }

    /// The seconds in which there was something.
    pub fn seconds(&self) -> impl Iterator<Item = (u64, Sum)> {
        self.seconds.iter().copied()
    }

    /// What the last seconds come to, `now` being the newest.
    pub fn over(&self, now: u64, seconds: u64) -> Sum {
        let newest_first = self.seconds.iter().rev();
        let mut total = Sum::default();
        for (_, sum) in newest_first.take_while(|(second, _)| second + seconds > now) {
            total += *sum;
        }
        total
    }

    /// Forgets what is older than the longest window. True if nothing is left.
    pub fn forget_old(&mut self, now: u64) -> bool {
        while let Some((second, _)) = self.seconds.front()
            && second + LONGEST.as_secs() <= now
        {
            self.seconds.pop_front();
        }
        self.seconds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(requests: u64) -> Sum {
        Sum {
            requests,
            failures: requests / 2,
            busy: Duration::from_micros(requests),
            waited: Duration::from_millis(requests),
        }
    }

    proptest! {
        /// Whatever is asked for, it is the sum of what was added in these seconds.
        #[test]
        fn a_window_is_the_sum_of_its_seconds(
            added in prop::collection::vec((0u64..90, 0u64..9), 0..40),
            after in 0u64..300,
            seconds in 0u64..300,
        ) {
            let mut window = Window::default();
            let (mut at, mut all) = (0, Vec::new());
            for (pause, requests) in added {
                at += pause;
                window.add(at, sum(requests));
                window.forget_old(at);
                all.push((at, requests));
            }
            let now = at + after;
            let is_empty = window.forget_old(now);
            let mut expected = Sum::default();
            for (_, requests) in all.iter().filter(|(second, _)| second + seconds > now) {
                expected += sum(*requests);
            }
            prop_assert_eq!(window.over(now, seconds), expected);
            prop_assert!(!is_empty || expected == Sum::default());
            prop_assert!(window.seconds.len() <= LONGEST.as_secs() as usize);
        }
    }
}
