//! The memory of one instance, held to its limit.
//!
//! Growth of memories and tables asks [`MemoryMeter`], which never waits and relies on nothing that
//! the guest does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use wasmtime::ResourceLimiter;

/// Entries of one table. The greatest seen in real components are 20,000 (JavaScript engines);
/// with 16 bytes each this bounds what a table costs the host to 1.6 MB.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// Counts an instance's memory and refuses what is over the limit.
pub(crate) struct MemoryMeter {
    limit: u64,
    used: u64,
    /// What the growth under way adds; taken back when the host cannot give it.
    growing: u64,
    refused: Arc<AtomicBool>,
    /// The same bytes, for the function's usage.
    total: Arc<AtomicU64>,
}

impl MemoryMeter {
    pub(crate) fn new(limit: u64, refused: Arc<AtomicBool>, total: Arc<AtomicU64>) -> Self {
        Self {
            limit,
            used: 0,
            growing: 0,
            refused,
            total,
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
        if self.used.saturating_add(more) > self.limit {
            // The guest sees a failed growth and may cope; if it traps, this says why.
            self.refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.used += more;
        self.growing = more;
        self.total.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "memory could not grow");
        self.used -= self.growing;
        self.total.fetch_sub(self.growing, Ordering::Relaxed);
        self.growing = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

impl Drop for MemoryMeter {
    fn drop(&mut self) {
        self.total.fetch_sub(self.used, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn all_memories_of_an_instance_share_the_limit() {
        let refused = Arc::new(AtomicBool::new(false));
        let total = Arc::new(AtomicU64::new(0));
        let mut meter = MemoryMeter::new(300, refused.clone(), total.clone());
        assert!(meter.memory_growing(0, 100, None).unwrap());
        assert!(meter.memory_growing(0, 200, None).unwrap());
        assert_eq!(total.load(Ordering::Relaxed), 300);
        assert!(!refused.load(Ordering::Relaxed));

        assert!(!meter.memory_growing(100, 101, None).unwrap());
        assert!(refused.load(Ordering::Relaxed));

        meter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .unwrap();
        assert_eq!(total.load(Ordering::Relaxed), 100);
        assert!(meter.memory_growing(0, 200, None).unwrap());
        drop(meter);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
