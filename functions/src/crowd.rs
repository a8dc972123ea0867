//! Guests of one function that compute at the same time.
//!
//! What a guest will take is not known before it has had its first turns, and those are on everybody's threads: of many
//! that come at once, each would have them, and who asks for something short would wait for all. So the first tell of
//! the others: while some of a function's guests compute, its next ones begin in the slow [`lane`](crate::lane). Nothing
//! is kept of it. When they have ended, the next one begins where everybody's do.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::limits::time::Stopwatch;

/// From so many on it is not an exception: one that takes long leaves the others of its function where they are.
const CROWD: u32 = 2;

/// How many of a function's guests compute now.
#[derive(Default)]
pub(crate) struct Crowd(AtomicU32);

impl Crowd {
    pub(crate) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= CROWD
    }
}

/// A guest, which is one of the crowd while it computes.
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    is_in: bool,
}

impl Member {
    pub(crate) fn of(crowd: Arc<Crowd>) -> Self {
        Self {
            crowd,
            is_in: false,
        }
    }

    /// A turn has ended. One of which little is known yet stays what it was.
    pub(crate) fn turn(&mut self, stopwatch: &Stopwatch) {
        if !stopwatch.has_yielded() {
            self.leave();
        } else if stopwatch.computes() {
            self.join();
        }
    }

    /// Whether it computes, and others do, too.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_in && self.crowd.is_there()
    }

    pub(crate) fn join(&mut self) {
        if !self.is_in {
            self.is_in = true;
            self.crowd.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&mut self) {
        if self.is_in {
            self.is_in = false;
            self.crowd.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// So many that compute, and the crowd that they are.
    pub(crate) fn computing(members: u32) -> (Arc<Crowd>, Vec<Member>) {
        let crowd = Arc::<Crowd>::default();
        let join = |_| {
            let mut member = Member::of(crowd.clone());
            member.join();
            member
        };
        let members = (0..members).map(join).collect();
        (crowd, members)
    }

    #[test]
    fn it_is_there_while_more_than_one_computes() {
        for (members, is_there) in [(0, false), (1, false), (2, true), (3, true)] {
            let (crowd, mut all) = computing(members);
            assert_eq!(crowd.is_there(), is_there, "{members}");
            for member in &mut all {
                // Nobody counts twice.
                member.join();
                assert_eq!(member.is_crowded(), is_there, "{members}");
            }
            drop(all);
            assert!(!crowd.is_there(), "{members}");
        }
    }

    #[test]
    fn who_computes_joins_and_leaves_when_it_waits() {
        let (crowd, _one) = computing(1);
        let mut member = Member::of(crowd.clone());
        let stopwatch = Stopwatch::new(Instant::now() + LONG, LONG);
        assert!(!member.is_crowded());

        stopwatch.compute_a_turn();
        member.turn(&stopwatch);
        assert!(member.is_crowded());

        // Cut off before anything is known, as on a crowded machine.
        stopwatch.start();
        stopwatch.cut_off();
        stopwatch.stop();
        member.turn(&stopwatch);
        assert!(member.is_crowded());

        stopwatch.start();
        stopwatch.stop();
        member.turn(&stopwatch);
        assert!(!member.is_crowded() && !crowd.is_there());

        stopwatch.start();
        stopwatch.cut_off();
        stopwatch.stop();
        member.turn(&stopwatch);
        assert!(!crowd.is_there());
    }
}
