//! The memory that all instances of a runtime have together.
//!
//! A node promises each copy of a function memory for one instance, and runs as many as there are
//! requests: together they may want more than there is. An instance takes its share here before it
//! starts and as it grows. What there is not is refused; it must never be had from the machine.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::sync::{Mutex, Notify};

/// What an instance costs besides its memories: its tables and the pages that its stacks touch.
pub(crate) const INSTANCE_BYTES: u64 = 256 << 10;

pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    waiting: AtomicU32,
    /// Held by the first of those that wait; the others wait for it in order.
    first: Mutex<()>,
    freed: Notify,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            first: Mutex::new(()),
            freed: Notify::new(),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A share of so many bytes, if they are there and nobody waits for them.
    pub(crate) fn try_share(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let is_free = self.waiting.load(Ordering::Relaxed) == 0 && self.take(bytes);
        is_free.then(|| Share::of(self, bytes))
    }

    /// Waits until so many bytes are there, behind those that waited before. More than the whole
    /// are never there.
    pub(crate) async fn share(self: &Arc<Self>, bytes: u64) -> Share {
        let _waiting = Waiting::new(&self.waiting);
        let _first = self.first.lock().await;
        while !self.take(bytes) {
            // Kept when it came before anybody waited.
            self.freed.notified().await;
        }
        Share::of(self, bytes)
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.used.fetch_update(set, fetch, more).is_ok()
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One instance's share; given back when dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn of(budget: &Arc<Budget>, bytes: u64) -> Self {
        Self {
            budget: budget.clone(),
            bytes,
        }
    }

    /// Whether the share has so many bytes, or they were there to be added. A running instance
    /// passes those that wait to start: it would have to stop, they only wait a little longer.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let has = more == 0 || self.budget.take(more);
        if has {
            self.bytes += more;
        }
        has
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    #[test]
    fn shares_grow_within_the_budget_and_are_given_back() {
        let budget = Arc::new(Budget::new(100));
        let mut one = budget.try_share(40).unwrap();
        let other = budget.try_share(50).unwrap();
        assert!(budget.try_share(11).is_none());
        assert!(one.grow_to(30), "it has more than that");
        assert!(one.grow_to(50));
        assert!(!one.grow_to(51));
        assert_eq!(budget.used(), 100);
        drop(other);
        assert!(one.grow_to(100));
        drop(one);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_share(u64::MAX).is_none());
    }

    #[test]
    fn who_waits_comes_in_order_and_is_passed_by_nobody_but_running_instances() {
        let budget = Arc::new(Budget::new(100));
        let mut running = budget.try_share(60).unwrap();
        let other = budget.try_share(20).unwrap();
        let mut large = Box::pin(budget.share(50));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(budget.share(10));
        assert!(small.as_mut().now_or_never().is_none());
        assert!(budget.try_share(10).is_none());
        assert!(running.grow_to(70));

        drop(other);
        assert!(large.as_mut().now_or_never().is_none());
        drop(running);
        let large = large.now_or_never().unwrap();
        let small = small.now_or_never().unwrap();
        assert_eq!(budget.used(), 60);
        drop((large, small));
        assert!(budget.try_share(100).is_some());
    }

    /// Giving up must not cost the next in line the memory that became free.
    #[test]
    fn who_gives_up_leaves_its_place_to_the_next() {
        let budget = Arc::new(Budget::new(100));
        let running = budget.try_share(100).unwrap();
        let mut first = Box::pin(budget.share(100));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(budget.share(100));
        assert!(second.as_mut().now_or_never().is_none());
        drop(running);
        drop(first);
        assert!(second.now_or_never().is_some());
    }
}
