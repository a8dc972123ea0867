//! The memory of one instance, held to its limit and to what the node has.
//!
//! Growth of memories and tables asks [`MemoryMeter`], which never waits and relies on nothing that
//! the guest does.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use wasmtime::ResourceLimiter;

use super::budget::{INSTANCE_BYTES, Share};
use crate::meter::{HeldMemory, Meter};

/// Entries of one table. The greatest seen in real components are 20,000 (JavaScript engines);
/// with 16 bytes each this bounds what a table costs the host to 1.6 MB.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// Entries of all tables of one instance, in the same way.
const ALL_TABLE_ELEMENTS: usize = 4 * TABLE_ELEMENTS;

/// Why a memory was not allowed to grow, if one was not. The guest sees a failed growth and may cope;
/// if it stops, this says why.
#[derive(Default)]
pub(crate) struct Refusal(AtomicU8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RefusedBy {
    Limit = 1,
    Node = 2,
}

impl Refusal {
    fn set(&self, by: RefusedBy) {
        self.0.store(by as u8, Ordering::Relaxed);
    }

    /// What was refused is of no meaning for what comes.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// By what the last growth that was refused was.
    pub(crate) fn get(&self) -> Option<RefusedBy> {
        let by = self.0.load(Ordering::Relaxed);
        [RefusedBy::Limit, RefusedBy::Node]
            .into_iter()
            .find(|known| *known as u8 == by)
    }
}

/// Counts an instance's memory and refuses what is over the limit, or more than the node has.
pub(crate) struct MemoryMeter {
    limit: u64,
    held: HeldMemory,
    /// What the growth under way adds; taken back when the host cannot give it.
    growing: u64,
    /// Entries of its tables. What the host could not give is not taken back: it has more than it needs then.
    elements: usize,
    share: Share,
    refusal: Arc<Refusal>,
}

impl MemoryMeter {
    pub(crate) fn new(limit: u64, share: Share, refusal: Arc<Refusal>, meter: Arc<Meter>) -> Self {
        Self {
            limit,
            held: HeldMemory::none(meter),
            growing: 0,
            elements: 0,
            share,
            refusal,
        }
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let used = self.held.bytes().saturating_add(more);
        if used > self.limit {
            self.refusal.set(RefusedBy::Limit);
            return Ok(false);
        }
        if !self.share.grow_to(INSTANCE_BYTES.saturating_add(used)) {
            self.refusal.set(RefusedBy::Node);
            return Ok(false);
        }
        self.held.set(used);
        self.growing = more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "memory could not grow");
        self.held.set(self.held.bytes() - self.growing);
        self.growing = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let all = self.elements.saturating_add(more);
        if desired > TABLE_ELEMENTS || all > ALL_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.elements = all;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::budget::Budget, *};

    #[test]
    fn all_memories_of_an_instance_share_the_limit() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let (refusal, counted) = (Arc::new(Refusal::default()), Arc::new(Meter::default()));
        let share = budget.try_share(INSTANCE_BYTES).unwrap();
        let mut meter = MemoryMeter::new(300, share, refusal.clone(), counted.clone());
        assert!(meter.memory_growing(0, 100, None).unwrap());
        assert!(meter.memory_growing(0, 200, None).unwrap());
        assert_eq!(counted.read().memory_bytes, 300);
        assert_eq!(refusal.get(), None);

        assert!(!meter.memory_growing(100, 101, None).unwrap());
        assert_eq!(refusal.get(), Some(RefusedBy::Limit));

        meter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .unwrap();
        assert_eq!(counted.read().memory_bytes, 100);
        assert!(meter.memory_growing(0, 200, None).unwrap());
        drop(meter);
        assert_eq!(counted.read().memory_bytes, 0);
    }

    #[test]
    fn tables_have_a_bound_each_and_together() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let share = budget.try_share(INSTANCE_BYTES).unwrap();
        let mut meter = MemoryMeter::new(300, share, Arc::default(), Arc::default());
        assert!(!meter.table_growing(0, TABLE_ELEMENTS + 1, None).unwrap());
        for _ in 0..4 {
            assert!(meter.table_growing(0, TABLE_ELEMENTS / 2, None).unwrap());
            let grown = meter.table_growing(TABLE_ELEMENTS / 2, TABLE_ELEMENTS, None);
            assert!(grown.unwrap());
        }
        assert!(!meter.table_growing(0, 1, None).unwrap());
    }

    #[test]
    fn what_the_node_does_not_have_is_refused_and_given_back_in_the_end() {
        let budget = Arc::new(Budget::new(INSTANCE_BYTES + 100));
        let refusal = Arc::new(Refusal::default());
        let share = budget.try_share(INSTANCE_BYTES + 60).unwrap();
        let mut meter = MemoryMeter::new(300, share, refusal.clone(), Arc::default());
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert_eq!(budget.used(), INSTANCE_BYTES + 60, "that was its share");
        assert!(meter.memory_growing(60, 100, None).unwrap());
        assert!(!meter.memory_growing(100, 101, None).unwrap());
        assert_eq!(refusal.get(), Some(RefusedBy::Node));
        drop(meter);
        assert_eq!(budget.used(), 0);
    }
}
