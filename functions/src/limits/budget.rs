//! The memory that all instances of a runtime have together.
//!
//! A node promises each copy of a function memory for one instance, and runs as many as there are
//! requests: together they may want more than there is. An instance takes its share here before it
//! starts and as it grows. What there is not is refused; it must never be had from the machine. Others live on
//! that machine, too: what it has now is said from outside ([`MachineMemory`]), and bounds what is given as well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use tokio::sync::{Mutex, Notify};

/// What an instance costs besides its memories: its tables and the pages that its stacks touch.
pub(crate) const INSTANCE_BYTES: u64 = 256 << 10;

/// What the machine has for all instances together, whatever else takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// Bytes, with those that instances have already.
    pub ceiling: u64,
    /// No instance starts beside others.
    pub is_short: bool,
}

pub(crate) struct Budget {
    limit: u64,
    /// As the machine's state was said last.
    ceiling: AtomicU64,
    is_short: AtomicBool,
    used: AtomicU64,
    waiting: AtomicU32,
    /// Held by the first of those that wait; the others wait for it in order.
    first: Mutex<()>,
    freed: Notify,
    /// There was none, and now there is an instance.
    begun: Notify,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            ceiling: AtomicU64::new(limit),
            is_short: AtomicBool::new(false),
            used: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            first: Mutex::new(()),
            freed: Notify::new(),
            begun: Notify::new(),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn set_machine(&self, machine: MachineMemory) {
        let ceiling = machine.ceiling.min(self.limit);
        self.ceiling.store(ceiling, Ordering::Relaxed);
        self.is_short.store(machine.is_short, Ordering::Relaxed);
        // Whoever is the first to wait looks again.
        self.freed.notify_one();
    }

    /// Whether instances with nothing to do are in the way: half of what there is may be theirs.
    pub(crate) fn is_scarce(&self) -> bool {
        let half = self.ceiling.load(Ordering::Relaxed) / 2;
        self.is_short.load(Ordering::Relaxed) || self.used() > half
    }

    /// Whether it is for the machine's state that an instance with so many bytes does not start.
    pub(crate) fn is_held_up(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.limit
    }

    /// Comes when there is an instance, after there was none. For one that waits.
    pub(crate) async fn begun(&self) {
        self.begun.notified().await;
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A share of so many bytes, if they are there and nobody waits for them.
    pub(crate) fn try_share(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let is_free = self.waiting.load(Ordering::Relaxed) == 0 && self.begin(bytes);
        is_free.then(|| Share::of(self, bytes))
    }

    /// Waits until so many bytes are there, behind those that waited before. More than the limit
    /// are never there.
    pub(crate) async fn share(self: &Arc<Self>, bytes: u64) -> Share {
        let _waiting = Waiting::new(&self.waiting);
        let _first = self.first.lock().await;
        while !self.begin(bytes) {
            // Kept when it came before anybody waited.
            self.freed.notified().await;
        }
        Share::of(self, bytes)
    }

    /// For an instance that starts. Where there is no other it may whatever the machine has, so that nobody
    /// waits for ever.
    fn begin(&self, bytes: u64) -> bool {
        let beside_others = match self.is_short.load(Ordering::Relaxed) {
            true => 0,
            false => self.ceiling.load(Ordering::Relaxed),
        };
        let before = self.take(bytes, |used| match used {
            0 => self.limit,
            _ => beside_others,
        });
        if before == Some(0) {
            self.begun.notify_one();
        }
        before.is_some()
    }

    /// For an instance that runs.
    fn grow(&self, bytes: u64) -> bool {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        self.take(bytes, |_| ceiling).is_some()
    }

    /// What was used before these bytes, if they are within what may be used.
    fn take(&self, bytes: u64, most: impl Fn(u64) -> u64) -> Option<u64> {
        let more = |used: u64| used.checked_add(bytes).filter(|all| *all <= most(used));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.used.fetch_update(set, fetch, more).ok()
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
        let has = more == 0 || self.budget.grow(more);
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

    #[test]
    fn what_the_machine_lacks_is_not_given_and_one_instance_starts_all_the_same() {
        let machine = |ceiling, is_short| MachineMemory { ceiling, is_short };
        let budget = Arc::new(Budget::new(100));
        budget.set_machine(machine(50, false));
        let mut one = budget.try_share(40).unwrap();
        assert!(budget.try_share(11).is_none());
        assert!(budget.is_held_up(11) && !budget.is_held_up(61));
        assert!(one.grow_to(50) && !one.grow_to(51));

        // Short, it gives what runs a little more, and starts nothing beside it.
        budget.set_machine(machine(60, true));
        assert!(one.grow_to(55) && budget.is_scarce());
        let mut next = Box::pin(budget.share(2));
        assert!(next.as_mut().now_or_never().is_none());
        drop(one);
        let next = next.now_or_never().unwrap();
        assert!(budget.try_share(1).is_none());

        // What waits begins when the machine has memory again, which is never more than the limit.
        let mut last = Box::pin(budget.share(90));
        assert!(last.as_mut().now_or_never().is_none());
        budget.set_machine(machine(u64::MAX, false));
        drop((next, last.now_or_never().unwrap()));
        assert!(budget.try_share(101).is_none());

        // Of nothing, not even that which the first needs: it starts, and cannot grow.
        budget.set_machine(machine(0, true));
        let mut lone = budget.try_share(70).unwrap();
        assert!(!lone.grow_to(71));
    }

    #[test]
    fn who_looks_after_instances_is_woken_for_the_first() {
        let budget = Arc::new(Budget::new(100));
        let one = budget.try_share(1).unwrap();
        let other = budget.try_share(1).unwrap();
        assert!(budget.begun().now_or_never().is_some());
        drop(one);
        let another = budget.try_share(1).unwrap();
        assert!(budget.begun().now_or_never().is_none());
        drop((other, another));
        let _first = budget.try_share(1).unwrap();
        assert!(budget.begun().now_or_never().is_some());
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
