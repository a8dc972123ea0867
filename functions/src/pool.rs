//! Where instances get their memory from: a pool mapped in advance, or the system, one by one.
//!
//! A pool makes an instance in microseconds but needs 4 GiB of address space a slot. Machines with
//! 39-bit addresses (many Android phones) have 512 GiB, some less: what fits is found by trying.

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, Memory, MemoryType, PoolingAllocationConfig, Store,
    component::Component,
};

use crate::config::Target;
use crate::limits::memory::TABLE_ELEMENTS;

/// Slots to try, in turn: 4 TiB of addresses, 1 TiB, 256 GiB for 39 bits, and 64 GiB where a process may not have as
/// much. Each slot has a stack with a guard page: a system call of 4 µs at the start, which an agent's first answer
/// waits for, and two of the 65,530 mappings that Linux gives a process.
pub(crate) const POOL_SLOTS: [u32; 4] = [1000, 256, 64, 16];

/// Memory a slot: of a machine with less, all slots are never in use at once. A slot costs half a kilobyte by itself, and
/// what runs in it from a tenth of this (Rust) to ten times as much (JavaScript).
const SLOT_MEMORY: u64 = 2 << 20;

/// Instances at once where no pool could be had. Each reserves 4 GiB too: 64 leave half of a 39-bit
/// address space.
const ON_DEMAND_SLOTS: u32 = 64;

/// The same with 32-bit addresses, where memories reserve what they have and some more.
const ON_DEMAND_SLOTS_32: u32 = 32;

/// Tables of a slot; who has more takes more slots.
const TABLES_PER_SLOT: u32 = 4;

/// What the host may keep of one instance's modules (its functions and globals) where the pool's own bound, 1 MiB, is
/// too little: a language whose every function can be called by a pointer has 32 bytes a function.
const INSTANCE_BEYOND: usize = 8 << 20;

/// Slots that each such instance takes, as it may have the memory of as many.
const SLOTS_BEYOND: u32 = (INSTANCE_BEYOND as u64 / SLOT_MEMORY) as u32;

/// Memories that each module of such an instance may have. (wasmtime looks at each when it unmaps code.)
const MEMORIES_BEYOND: u32 = 1000;

/// Tables that each such instance may have. All of one instance share a bound on what is in them.
const TABLES_BEYOND: u32 = 1000;

/// What a slot keeps of each of its tables when its instance ends, and zeroes itself: the tables of most components fit,
/// and need neither a system call nor a page fault for the next. All slots together keep less than a hundredth of
/// what they are made for ([`SLOT_MEMORY`]).
///
/// Memories keep nothing: without a look at which pages were written (`pagemap_scan`) that would touch more than it
/// spares, and with it, wasmtime 48 misses pages that are swapped out or on their way elsewhere: one request would
/// see what another left there.
const TABLE_BYTES_KEPT: usize = 4 << 10;

/// Where this machine's instances get their memory from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    Pooled { slots: u32 },
    OnDemand { slots: u32 },
}

impl Allocation {
    /// Memories that exist at once, over all functions.
    pub const fn slots(self) -> u32 {
        match self {
            Self::Pooled { slots } | Self::OnDemand { slots } => slots,
        }
    }
}

/// What to try on a machine that runs code for `target` and has `memory` bytes for it, for at most `max` instances, the
/// best first.
pub(crate) fn allocations(target: Target, max: u32, memory: u64) -> Vec<Allocation> {
    let [.., least] = POOL_SLOTS;
    let fed = u32::try_from(memory / SLOT_MEMORY).unwrap_or(u32::MAX);
    // The usual sizes only, so that machines that are alike are so in this, too.
    let fed = POOL_SLOTS.into_iter().find(|slots| *slots <= fed);
    let max = max.min(fed.unwrap_or(least));
    if target == Target::Pulley32 {
        // A pool's slots are as large as a memory may become: there is no address space for two of them.
        let slots = max.min(ON_DEMAND_SLOTS_32);
        return vec![Allocation::OnDemand { slots }];
    }
    // Also when it is none of the usual sizes, the greatest is tried first.
    let sizes = std::iter::once(max).chain(POOL_SLOTS.into_iter().filter(|slots| *slots < max));
    let pools = sizes.map(|slots| Allocation::Pooled { slots });
    let slots = max.min(ON_DEMAND_SLOTS);
    pools.chain([Allocation::OnDemand { slots }]).collect()
}

/// Takes the first allocation that `engine` can be made with.
pub(crate) fn probe<E>(
    allocations: &[Allocation],
    mut engine: impl FnMut(Allocation) -> wasmtime::Result<E>,
) -> wasmtime::Result<(Allocation, E)> {
    let mut refused = wasmtime::Error::msg("no way to allocate instances");
    for allocation in allocations {
        match engine(*allocation) {
            Ok(engine) => return Ok((*allocation, engine)),
            Err(error) => {
                tracing::info!(
                    ?allocation,
                    error = format!("{error:#}"),
                    "not possible here"
                );
                refused = error;
            }
        }
    }
    Err(refused)
}

pub(crate) fn engine(mut config: Config, allocation: Allocation) -> wasmtime::Result<Engine> {
    if let Allocation::Pooled { slots } = allocation {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            .total_memories(slots)
            // Only counted: a component's modules have a bound by size together.
            .total_core_instances(u32::MAX)
            .total_tables(slots.saturating_mul(TABLES_PER_SLOT))
            .total_stacks(slots)
            .table_elements(TABLE_ELEMENTS)
            .table_keep_resident(TABLE_BYTES_KEPT);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    Engine::new(&config)
}

/// An engine that maps what a runtime may run beyond its pool, and refuses the rest. It has no room for an instance.
pub(crate) fn bounds_beyond(mut config: Config) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(0)
        .total_core_instances(0)
        .total_memories(0)
        .total_stacks(0)
        .total_tables(TABLES_BEYOND)
        .table_elements(TABLE_ELEMENTS)
        .max_core_instance_size(INSTANCE_BEYOND)
        .max_component_instance_size(INSTANCE_BEYOND)
        .max_memories_per_module(MEMORIES_BEYOND)
        .max_tables_per_module(TABLES_BEYOND)
        .max_tables_per_component(TABLES_BEYOND);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Those that an instance begins with: it can make no more.
pub(crate) fn memories(component: &Component) -> u32 {
    // None only for components that import whole modules, which the linker does not have.
    let needs = component.resources_required();
    needs.map_or(1, |needs| needs.num_memories.max(1))
}

/// For an instance in the pool.
pub(crate) fn slots(component: &Component) -> u32 {
    let tables = component
        .resources_required()
        .map_or(0, |needs| needs.num_tables);
    memories(component).max(tables.div_ceil(TABLES_PER_SLOT))
}

/// For an instance beyond the pool, on a machine with `all` slots that has addresses for `given` memories there, which is
/// no fewer than the component has.
pub(crate) fn slots_beyond(component: &Component, all: u32, given: u32) -> u32 {
    let addresses = share(memories(component), all, given);
    slots(component).max(addresses).max(SLOTS_BEYOND).min(all)
}

/// So many of `all` slots that if instances of `memories` each take them all, they have no more than `given` memories.
fn share(memories: u32, all: u32, given: u32) -> u32 {
    let slots = u64::from(memories) * u64::from(all);
    let slots = slots.div_ceil(u64::from(given.min(all)));
    u32::try_from(slots).map_or(all, |slots| slots.min(all))
}

/// How many memories of `wanted` there are addresses for now, beside what else the process may want. Nothing is
/// kept of them. Blocks for some microseconds each.
pub(crate) fn addresses(engine: &Engine, wanted: u32) -> u32 {
    let mut store = Store::new(engine, ());
    let mut reserve = || Memory::new(&mut store, MemoryType::new(0, None)).is_ok();
    let given = (0..wanted).take_while(|_| reserve()).fold(0, |n, _| n + 1);
    if given < wanted {
        // Threads, files and code want some too.
        given - given.div_ceil(4)
    } else {
        given
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What is tried on a machine that can give `possible` slots to a pool, and what is taken.
    fn tried(max: u32, possible: u32) -> (Vec<Allocation>, Allocation) {
        let mut tried = Vec::new();
        let allocations = allocations(Target::X86_64, max, u64::MAX);
        let (taken, ()) = probe(&allocations, |allocation| {
            tried.push(allocation);
            match allocation {
                Allocation::Pooled { slots } if slots > possible => {
                    Err(wasmtime::Error::msg("mmap: out of memory"))
                }
                _ => Ok(()),
            }
        })
        .unwrap();
        (tried, taken)
    }

    #[test]
    fn the_greatest_pool_that_fits_is_taken() {
        use Allocation::{OnDemand, Pooled};
        let pooled = |slots| Pooled { slots };
        assert_eq!(tried(1000, u32::MAX), (vec![pooled(1000)], pooled(1000)));
        assert_eq!(
            tried(1000, 100),
            (vec![pooled(1000), pooled(256), pooled(64)], pooled(64))
        );
        assert_eq!(tried(u32::MAX, u32::MAX).1, pooled(1000));
        assert_eq!(tried(100, 64).1, pooled(64));
        assert_eq!(tried(100, 20).1, pooled(16));
        assert_eq!(tried(1000, 0).1, OnDemand { slots: 64 });
        assert_eq!(tried(10, 0).1, OnDemand { slots: 10 });
    }

    #[test]
    fn an_engine_that_can_be_had_in_no_way_is_an_error() {
        let allocations = allocations(Target::X86_64, 1000, u64::MAX);
        let refused = probe::<()>(&allocations, |_| Err(wasmtime::Error::msg("no")));
        assert_eq!(refused.unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_machine_has_as_many_slots_as_its_memory_feeds() {
        const MIB: u64 = 1 << 20;
        for (memory, slots) in [
            (0, 16),
            (64 * MIB, 16),
            (128 * MIB, 64),
            (512 * MIB, 256),
            (2048 * MIB, 1000),
            (4096 * MIB, 1000),
            (u64::MAX, 1000),
        ] {
            let best = allocations(Target::X86_64, 1000, memory)[0];
            assert_eq!(best, Allocation::Pooled { slots }, "{memory} bytes");
        }
        // Who asks for less gets less.
        let few = allocations(Target::X86_64, 4, u64::MAX)[0];
        assert_eq!(few, Allocation::Pooled { slots: 4 });
    }

    #[test]
    fn instances_beyond_the_pool_never_want_more_addresses_than_there_are() {
        for (memories, all, given, slots) in [
            (1, 1000, 1000, 1),
            (40, 1000, 1000, 40),
            // All of them: one runs at a time.
            (40, 16, 40, 16),
            (2, 64, 64, 2),
            (2, 64, 30, 5),
            (6, 64, 7, 55),
            (7, 64, 7, 64),
            (u32::MAX, u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!(
                share(memories, all, given),
                slots,
                "{memories} {all} {given}"
            );
            let at_once = (all / slots) * memories;
            assert!(at_once <= given, "{memories} {all} {given}");
        }
    }

    #[test]
    fn a_machine_with_32_bit_addresses_has_no_pool() {
        let slots = |max| allocations(Target::Pulley32, max, u64::MAX);
        assert_eq!(slots(1000), [Allocation::OnDemand { slots: 32 }]);
        assert_eq!(slots(4), [Allocation::OnDemand { slots: 4 }]);
    }
}
