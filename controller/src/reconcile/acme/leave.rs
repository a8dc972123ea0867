//! When an authority may be asked by the swarm's account, whichever tunnel it is for: what it asked for itself, and how
//! many new orders may begin. Pure.
//!
//! It is kept with the account, so that a leader goes on where the one before it was.

use std::time::Duration;

use jiff::Timestamp;

/// New orders: so many at once, and one more for each period. Let's Encrypt takes 300 of an account in three hours.
const AT_ONCE: u32 = 50;
const EVERY: Duration = Duration::from_secs(60);

/// For all of them to be there again.
const ALL: Duration = EVERY.saturating_mul(AT_ONCE);

/// For all tunnels. The one that was told so waits for as long as it was told.
const LONGEST: Duration = Duration::from_secs(3600);

/// For all tunnels, of a limit of which nothing says what is counted. At Let's Encrypt an account gets its next order
/// within a minute, a name that was not proven its next try after 12, and a domain its next certificate after hours.
/// Were a longer one the account's all the same, each tunnel would be told so once, and then wait.
const BRIEF: Duration = Duration::from_secs(600);

/// An authority wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub until: Timestamp,
    pub scope: Scope,
}

/// By whom, as far as it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whoever asks: it is down, or has too much to do.
    All,
    /// A limit was met, and authorities count by account, by name, by what they like (RFC 8555, 6.6).
    Unsaid,
    /// Whoever orders for these names.
    Names,
}

/// What is known of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// Until when the authority wants to be left alone.
    pub paused: Option<Timestamp>,
    /// When as many orders may begin at once as ever.
    pub full: Option<Timestamp>,
}

impl Leave {
    /// Until when nothing is asked, if that is so now.
    pub fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        let paused = self.paused.filter(|until| can_be(*until, LONGEST, now));
        paused.filter(|until| now < *until)
    }

    /// The authority wants to be left alone; false if that is known, or holds for one tunnel.
    pub fn heed(&mut self, Wish { until, scope }: Wish, now: Timestamp) -> bool {
        let until = match scope {
            Scope::All => until.min(now + LONGEST),
            Scope::Unsaid if until <= now + BRIEF => until,
            Scope::Unsaid | Scope::Names => return false,
        };
        let is_news = now < until && self.pause(now).is_none_or(|known| known < until);
        if is_news {
            self.paused = Some(until);
        }
        is_news
    }

    /// Takes leave for a new order, or says when there is some.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        // Somebody may have been told so since this one was planned.
        if let Some(until) = self.pause(now) {
            return Err(until);
        }
        let full = self.full.filter(|full| can_be(*full, ALL, now));
        let after = full.map_or(now, |full| full.max(now)) + EVERY;
        if after > now + ALL {
            return Err(after - ALL);
        }
        self.full = Some(after);
        Ok(())
    }
}

/// What a clock wrote that was far ahead counts for nothing: it would hold up all tunnels for as long. Twice the time,
/// since the clocks of controllers differ a little.
fn can_be(at: Timestamp, longest: Duration, now: Timestamp) -> bool {
    at <= now + 2 * longest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Seconds after the time at which all cases begin.
    fn at(seconds: i64) -> Timestamp {
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        Timestamp::from_second(begin.as_second() + seconds).unwrap()
    }

    const HOUR: i64 = 3600;

    fn wish(until: i64, scope: Scope) -> Wish {
        let until = at(until);
        Wish { until, scope }
    }

    #[test]
    fn a_pause_lasts_as_long_as_was_asked_for_and_an_hour_at_most() {
        // What is known, what is asked for now, whether that is news, and until when nothing is asked then.
        for (known, until, is_news, expected) in [
            (None, 36, true, Some(36)),
            (None, HOUR, true, Some(HOUR)),
            (None, 34 * HOUR, true, Some(HOUR)),
            (None, 0, false, None),
            (None, -5, false, None),
            (Some(-5), 36, true, Some(36)),
            (Some(30), 36, true, Some(36)),
            // Who was told so before is not forgotten for one who was told less.
            (Some(300), 36, false, Some(300)),
            (Some(36), 36, false, Some(36)),
            // By a clock that was far ahead.
            (Some(9 * HOUR), 36, true, Some(36)),
            (Some(9 * HOUR), 0, false, None),
        ] {
            let mut leave = Leave {
                paused: known.map(at),
                full: None,
            };
            let heeded = leave.heed(wish(until, Scope::All), at(0));
            assert_eq!(heeded, is_news, "{known:?} {until}");
            let found = leave.pause(at(0));
            assert_eq!(found, expected.map(at), "{known:?} {until}");
        }
    }

    #[test]
    fn a_limit_of_some_names_holds_up_nobody_else() {
        for (scope, until, expected) in [
            (Scope::All, 2 * HOUR, Some(HOUR)),
            (Scope::Unsaid, 36, Some(36)),
            (Scope::Unsaid, 600, Some(600)),
            (Scope::Unsaid, 601, None),
            (Scope::Unsaid, 2 * HOUR, None),
            (Scope::Names, 36, None),
        ] {
            let mut leave = Leave::default();
            let heeded = leave.heed(wish(until, scope), at(0));
            assert_eq!(heeded, expected.is_some(), "{scope:?} {until}");
            assert_eq!(leave.paused, expected.map(at), "{scope:?} {until}");
        }
    }

    #[test]
    fn a_pause_ends() {
        let mut leave = Leave::default();
        assert!(leave.heed(wish(36, Scope::All), at(0)));
        assert_eq!(leave.pause(at(35)), Some(at(36)));
        assert_eq!(leave.take(at(35)), Err(at(36)));
        // Nobody began, so nothing is taken.
        assert_eq!(leave.full, None);
        assert_eq!(leave.pause(at(36)), None);
        assert_eq!(leave.take(at(36)), Ok(()));
    }

    #[test]
    fn so_many_orders_begin_at_once_and_then_one_a_minute() {
        let mut leave = Leave::default();
        for _ in 0..AT_ONCE {
            assert_eq!(leave.take(at(0)), Ok(()));
        }
        let known = leave;
        // Seconds, and when there is leave if there is none then.
        for (now, expected) in [
            (0, Err(60)),
            (59, Err(60)),
            (60, Ok(())),
            (60, Err(120)),
            (300, Ok(())),
            (300, Ok(())),
            (300, Ok(())),
            (300, Ok(())),
            (300, Err(360)),
        ] {
            let found = leave.take(at(now));
            assert_eq!(found, expected.map_err(at), "at {now} s");
        }
        // After an hour of silence all may begin at once again, and no more.
        let mut leave = known;
        let taken = (0..2 * AT_ONCE).filter(|_| leave.take(at(HOUR)).is_ok());
        assert_eq!(taken.count(), AT_ONCE as usize);
    }

    #[test]
    fn a_clock_that_was_ahead_or_is_behind_holds_up_nobody_for_long() {
        for (full, expected) in [
            (0, Ok(())),
            (49 * 60, Ok(())),
            (50 * 60, Err(60)),
            // The one who wrote it was some minutes ahead.
            (60 * 60, Err(11 * 60)),
            (365 * 24 * HOUR, Ok(())),
        ] {
            let mut leave = Leave {
                paused: None,
                full: Some(at(full)),
            };
            let found = leave.take(at(0));
            assert_eq!(found, expected.map_err(at), "{full}");
        }
    }
}
