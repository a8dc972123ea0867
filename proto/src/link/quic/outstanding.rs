//! What this side has sent in streams of a link and the other side has not read: how much each stream may add.
//!
//! Whoever is at the end of a tunnel need not read. What it leaves must not take the window of the whole link, or the
//! node's session stands still; nor may it take what others would use. So [`LEAST_SHARE`] is every stream's own, and
//! beyond that each may hold a part of what is free of [`SHARED_WINDOW`].
//!
//! With `E` for what all streams hold beyond their own, one may hold `LEAST_SHARE + (SHARED_WINDOW - E) / PART`. Whoever
//! sends up to there raises `E` by `(SHARED_WINDOW - E) / PART` at most, so it never exceeds `SHARED_WINDOW`, and `n`
//! streams that nobody reads hold no more than `n * LEAST_SHARE + SHARED_WINDOW`. The window of the link is larger than
//! that by `OWN_WINDOW` for as many as there may be: so much is left to sessions, whatever clients and targets do. It is
//! the same for what this side holds until it is acknowledged, which is part of what is not read.
//!
//! No clock and no connection here.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use super::super::settings::{LEAST_SHARE, MANY_STREAMS, SHARED_WINDOW};

/// The part of what is free that one stream may hold. With it 52 streams that nobody reads can be full before another
/// one is held to less than its own window.
const PART: u64 = 16;

/// Streams that are counted: more than there can be, of both sides together. Those that never come of which the other
/// side tells, and those that it never lets go of, are not counted beyond that.
pub(super) const MOST: usize = 2 * MANY_STREAMS as usize;

#[derive(Default)]
pub(super) struct Outstanding {
    streams: HashMap<u64, One>,
    /// Of the streams that each side opens, in the order of their numbers, the first that is yet to come.
    next: [u64; 2],
    /// What all streams hold beyond [`LEAST_SHARE`].
    excess: u64,
    /// The other side tells what it reads: not yet, if it never does as in a release before, or no more.
    is_heard: bool,
}

/// Of one stream.
#[derive(Default)]
struct One {
    sent: u64,
    read: u64,
    /// Of who waits to send more.
    waiting: Option<Waker>,
    /// On this side: nothing more is sent.
    is_closed: bool,
    /// On the other side: nothing is held any more.
    is_gone: bool,
}

/// Which of both sides opened a stream, by its number (RFC 9000, 2.1).
fn side(id: u64) -> usize {
    (id & 1) as usize
}

impl One {
    fn unread(&self) -> u64 {
        self.sent - self.read
    }

    fn excess(&self) -> u64 {
        match self.is_gone {
            true => 0,
            false => self.unread().saturating_sub(LEAST_SHARE.into()),
        }
    }
}

impl Outstanding {
    /// From now on it is heard what the other side reads; false if it was before.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_heard, true)
    }

    pub(super) fn open(&mut self, id: u64) {
        let next = &mut self.next[side(id)];
        *next = (*next).max(id + 1);
        // The other side may have let go of it already.
        self.streams.entry(id).or_default();
    }

    /// Bytes that may be sent now; wakes who waits when more of the stream was read.
    pub(super) fn poll_room(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<u64> {
        let free = u64::from(SHARED_WINDOW).saturating_sub(self.excess);
        let share = u64::from(LEAST_SHARE) + free / PART;
        let Some(one) = self.streams.get_mut(&id) else {
            return Poll::Ready(u64::MAX);
        };
        // What becomes of it then, the stream itself will say.
        if !self.is_heard || one.is_gone {
            return Poll::Ready(u64::MAX);
        }
        match share.saturating_sub(one.unread()) {
            0 => {
                one.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    pub(super) fn sent(&mut self, id: u64, bytes: u64) {
        self.change(id, |one| one.sent += bytes);
    }

    /// The other side has read so much since the stream began. Returned is who waits for that.
    #[must_use]
    pub(super) fn was_read(&mut self, id: u64, read: u64) -> Option<Waker> {
        let waiting = self.change(id, |one| {
            // It cannot have read what was not sent, nor less than before.
            one.read = read.clamp(one.read, one.sent);
            one.waiting.take()
        });
        waiting.flatten()
    }

    /// The other side has let go of it, and of what it had not read. Returned is who waits to send.
    #[must_use]
    pub(super) fn was_let_go(&mut self, id: u64) -> Option<Waker> {
        // It may be heard of before the stream itself is. Of one that was here and is not counted, nothing is kept.
        if self.next[side(id)] <= id && self.streams.len() < MOST {
            self.streams.entry(id).or_default();
        }
        let waiting = self.change(id, |one| {
            one.is_gone = true;
            one.waiting.take()
        });
        waiting.flatten()
    }

    /// This side lets go of it. What was sent before its end is still there for the other side to read; what was sent
    /// of a stream that is `reset` is not.
    pub(super) fn close(&mut self, id: u64, is_reset: bool) {
        self.change(id, |one| {
            one.is_closed = true;
            one.waiting = None;
            if is_reset {
                one.read = one.sent;
            }
        });
    }

    /// It is not counted any more, here and there.
    pub(super) fn forget(&mut self, id: u64) {
        self.change(id, |one| one.read = one.sent);
        self.streams.remove(&id);
    }

    /// Nothing more will be heard: nobody waits for it. Returned are those who did.
    #[must_use]
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.is_heard = false;
        self.streams.retain(|_, one| !one.is_closed);
        self.excess = self.streams.values().map(One::excess).sum();
        let all = self.streams.values_mut();
        all.filter_map(|one| one.waiting.take()).collect()
    }

    /// What is counted is what is held, and all of it stays within the window.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let held: u64 = self.streams.values().map(One::excess).sum();
        assert_eq!(held, self.excess);
        assert!(held <= u64::from(SHARED_WINDOW), "{held}");
        assert!(self.streams.len() <= MOST);
    }

    fn change<T>(&mut self, id: u64, change: impl FnOnce(&mut One) -> T) -> Option<T> {
        let is_full = self.streams.len() > MOST;
        let one = self.streams.get_mut(&id)?;
        let before = one.excess();
        let changed = change(one);
        // One of which nothing more is sent and nothing counts is not waited for: the other side need not tell.
        let counts = one.excess() > 0 && self.is_heard && !is_full;
        let is_over = one.is_closed && !counts;
        let after = if is_over { 0 } else { one.excess() };
        self.excess = self.excess - before + after;
        if is_over {
            self.streams.remove(&id);
        }
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::super::settings::{LINK_WINDOW, OWN_WINDOW, STREAM_WINDOW};
    use super::*;

    const LEAST: u64 = LEAST_SHARE as u64;
    const SHARED: u64 = SHARED_WINDOW as u64;
    const FULL: u64 = STREAM_WINDOW as u64;

    fn heard() -> Outstanding {
        let mut outstanding = Outstanding::default();
        outstanding.begin();
        outstanding
    }

    fn room(outstanding: &mut Outstanding, id: u64) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        match outstanding.poll_room(id, &mut cx) {
            Poll::Ready(room) => room,
            Poll::Pending => 0,
        }
    }

    /// Sends as much as it may, up to `most` in all, in pieces. How much that was.
    fn fill(outstanding: &mut Outstanding, id: u64, most: u64) -> u64 {
        outstanding.open(id);
        let mut filled = 0;
        while filled < most {
            let bytes = room(outstanding, id).min(most - filled).min(LEAST);
            if bytes == 0 {
                break;
            }
            outstanding.sent(id, bytes);
            filled += bytes;
        }
        filled
    }

    #[test]
    fn however_many_are_not_read_each_has_its_least_and_the_link_has_room() {
        let mut outstanding = heard();
        let filled: Vec<u64> = (0..u64::from(MANY_STREAMS))
            .map(|id| fill(&mut outstanding, id, FULL))
            .collect();
        assert!(filled.iter().all(|filled| *filled >= LEAST), "{filled:?}");
        assert_eq!(filled[..52], [FULL; 52]);
        assert!(filled[52..].iter().all(|filled| *filled < FULL));
        let all: u64 = filled.iter().sum();
        // An eighth of the window may be free without this side knowing.
        let known = LINK_WINDOW - LINK_WINDOW / 8;
        assert!(all <= u64::from(known - OWN_WINDOW), "{all}");
    }

    #[test]
    fn who_takes_all_there_is_leaves_some_to_the_next() {
        let mut outstanding = heard();
        for id in 0..20 {
            let filled = fill(&mut outstanding, id, u64::MAX);
            assert!(filled > 2 * LEAST, "{filled} for stream {id}");
        }
        assert!(outstanding.excess < SHARED);
    }

    #[test]
    fn who_waits_is_woken_by_what_is_read() {
        let mut outstanding = heard();
        let filled = fill(&mut outstanding, 1, u64::MAX);
        assert_eq!(room(&mut outstanding, 1), 0);
        assert!(outstanding.was_read(2, 7).is_none(), "nobody knows it");
        assert!(outstanding.was_read(1, LEAST).is_some());
        let free = room(&mut outstanding, 1);
        assert!(0 < free && free < 2 * LEAST, "{free}");

        // Nonsense changes nothing for the worse.
        assert!(outstanding.was_read(1, 0).is_none());
        assert_eq!(room(&mut outstanding, 1), free);
        assert!(outstanding.was_read(1, u64::MAX - 1).is_none());
        assert_eq!(fill(&mut outstanding, 1, u64::MAX), filled);
    }

    #[test]
    fn what_was_sent_counts_until_the_other_side_has_let_go() {
        let mut outstanding = heard();
        fill(&mut outstanding, 1, FULL);
        outstanding.close(1, false);
        assert_eq!(outstanding.excess, FULL - LEAST);
        assert!(outstanding.was_let_go(1).is_none());
        assert!(outstanding.streams.is_empty() && outstanding.excess == 0);

        // What was reset is not held there.
        fill(&mut outstanding, 2, FULL);
        outstanding.close(2, true);
        assert!(outstanding.streams.is_empty() && outstanding.excess == 0);
        assert!(outstanding.was_let_go(2).is_none());
        assert!(outstanding.streams.is_empty(), "it was here");

        // Who waits learns that nobody is there, and so does who comes later.
        fill(&mut outstanding, 3, u64::MAX);
        assert_eq!(room(&mut outstanding, 3), 0);
        assert!(outstanding.was_let_go(3).is_some());
        assert!(outstanding.was_let_go(4).is_none());
        outstanding.open(4);
        assert_eq!(room(&mut outstanding, 3), u64::MAX);
        assert_eq!(room(&mut outstanding, 4), u64::MAX);
        outstanding.close(3, true);
        outstanding.close(4, true);
        assert!(outstanding.streams.is_empty());

        fill(&mut outstanding, 5, FULL);
        outstanding.forget(5);
        assert!(outstanding.streams.is_empty() && outstanding.excess == 0);
    }

    #[test]
    fn nobody_waits_for_what_is_not_heard() {
        let mut outstanding = Outstanding::default();
        assert_eq!(fill(&mut outstanding, 1, 2 * SHARED), 2 * SHARED);
        assert_eq!(fill(&mut outstanding, 2, FULL), FULL);
        outstanding.close(2, false);
        assert_eq!(outstanding.streams.len(), 1);

        assert!(outstanding.begin() && !outstanding.begin());
        assert_eq!(room(&mut outstanding, 1), 0);
        assert_eq!(fill(&mut outstanding, 3, FULL), LEAST);
        outstanding.close(3, false);
        assert_eq!(outstanding.end().len(), 1);
        assert_eq!(room(&mut outstanding, 1), u64::MAX);
        assert_eq!(outstanding.streams.len(), 1);
        outstanding.close(1, false);
        assert!(outstanding.streams.is_empty() && outstanding.excess == 0);
    }

    #[test]
    fn no_more_is_kept_of_what_never_comes_than_may() {
        let mut outstanding = heard();
        for id in 0..2 * MOST as u64 {
            assert!(outstanding.was_let_go(id).is_none());
        }
        assert_eq!(outstanding.streams.len(), MOST);
    }

    #[test]
    fn no_more_is_kept_of_what_is_never_let_go_of_than_may() {
        let mut outstanding = heard();
        // Most of them are read, or hold no more than is their own.
        for id in 0..2 * MOST as u64 {
            fill(&mut outstanding, id, LEAST);
            outstanding.close(id, false);
        }
        assert!(outstanding.streams.is_empty());

        // What holds little more counts, up to so many.
        let ids = 2 * MOST as u64..4 * MOST as u64;
        for id in ids.clone() {
            fill(&mut outstanding, id, LEAST + 1);
            outstanding.close(id, false);
        }
        outstanding.check();
        assert_eq!(outstanding.streams.len(), MOST);
        assert_eq!(outstanding.excess, MOST as u64);
        for id in ids {
            assert!(outstanding.was_let_go(id).is_none());
        }
        assert!(outstanding.streams.is_empty() && outstanding.excess == 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send(u64),
        Read(u64),
        Gone,
        Close(bool),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..3 * FULL).prop_map(Step::Send),
            4 => (0..3 * FULL).prop_map(Step::Read),
            1 => Just(Step::Gone),
            1 => any::<bool>().prop_map(Step::Close),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        /// Whatever happens in which order.
        #[test]
        fn no_more_is_held_than_there_is(steps in prop::collection::vec((0_u64..80, step()), 0..400)) {
            let mut outstanding = heard();
            for (id, step) in steps {
                match step {
                    Step::Send(bytes) => {
                        outstanding.open(id);
                        let bytes = bytes.min(room(&mut outstanding, id));
                        outstanding.sent(id, bytes);
                    }
                    Step::Read(read) => drop(outstanding.was_read(id, read)),
                    Step::Gone => drop(outstanding.was_let_go(id)),
                    Step::Close(is_reset) => outstanding.close(id, is_reset),
                    Step::Forget => outstanding.forget(id),
                }
                outstanding.check();
            }
        }
    }
}
