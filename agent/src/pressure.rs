//! Whether this machine is short of memory, and what functions may have of it meanwhile.
//!
//! Functions never get more than the node offers; but other programs live on the machine, and take what was offered.
//! What the machine says goes in, each second while functions run; what they may have together comes out, whether
//! instances may start, and whether code that nobody uses is given back. The controllers hear the same judgement.

use std::time::Duration;

use hive_functions::{MachineMemory, Runtime};
use hive_proto::memory::least_available;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::resources::{Memory, MemoryGauge};
use crate::runtime::{LazyRuntime, OWN_MEMORY};

/// Between two looks while functions run, or the machine is short: some ten small files. What functions may take
/// within that time is what was there at its beginning.
const EVERY: Duration = Duration::from_secs(1);

/// Of a machine that is short, code that nobody asked for so long is given back. Mapping it again takes milliseconds.
const UNUSED: Duration = Duration::from_secs(10);

/// Percent of ten seconds in which something waited for memory: from which on the machine is short, and until it falls
/// below which. A machine that takes pages of files back now and then stays below one.
const STALLED: (f32, f32) = (10.0, 2.0);

/// The part of all memory below which stalls count, and above which no longer. Where more is available, others wait within
/// limits of their own, and what functions do is nothing to them.
const STALLS_COUNT: (u64, u64) = (5, 4);

/// What functions may grow to together whatever the machine has: one that runs alone answers with it in most
/// languages. Bytes.
const FLOOR: u64 = 64 << 20;

/// What is known of it. A clone is the same.
#[derive(Clone, Default)]
pub struct Pressure(watch::Sender<bool>);

impl Pressure {
    /// Whether the machine is short of memory, by what it says now and was before.
    pub fn judge(&self, memory: &Memory) -> bool {
        let has_changed = self.0.send_if_modified(|short| {
            let before = *short;
            *short = is_short(before, memory);
            *short != before
        });
        let is_short = *self.0.borrow();
        if has_changed {
            let mebibytes = |bytes: u64| bytes >> 20;
            tracing::info!(
                is_short,
                available_mib = mebibytes(memory.available),
                total_mib = mebibytes(memory.total),
                stalled_percent = memory.stalled,
                "the machine's memory"
            );
        }
        is_short
    }

    /// Tells the functions' runtime what the machine has, until `stop`. Idle while nothing runs.
    pub async fn run(self, runtime: LazyRuntime, stop: CancellationToken) {
        stop.run_until_cancelled(self.watch(runtime)).await;
    }

    async fn watch(self, runtime: LazyRuntime) {
        // First: what was judged before the runtime started is to be heard by it.
        let mut judged = self.0.subscribe();
        let runtime = runtime.once_started().await;
        let mut gauge = MemoryGauge::new();
        loop {
            tokio::select! {
                () = runtime.begun() => {}
                // By whoever else has looked.
                _ = judged.changed() => {}
            }
            loop {
                let memory = gauge.read();
                let is_short = self.judge(&memory);
                runtime.set_machine_memory(given(is_short, &memory, runtime.memory_used()));
                if is_short {
                    give_back(&runtime);
                }
                tokio::time::sleep(EVERY).await;
                if !is_short && runtime.memory_used() == 0 {
                    break;
                }
            }
        }
    }
}

fn give_back(runtime: &Runtime) {
    let runtime = runtime.clone();
    tokio::task::spawn_blocking(move || {
        let unmapped = runtime.unmap_idle(UNUSED);
        if unmapped > 0 {
            tracing::info!(functions = unmapped, "gave back code that nobody uses");
        }
    });
}

/// Where nothing is told, all is zero, and nothing is less than that.
fn is_short(before: bool, memory: &Memory) -> bool {
    let Memory {
        total, available, ..
    } = *memory;
    let stalled = memory.stalled.unwrap_or_default();
    let least = least_available(total);
    let begins = available < least || (stalled >= STALLED.0 && available < total / STALLS_COUNT.0);
    let lasts =
        available < 2 * least || (stalled >= STALLED.1 && available < total / STALLS_COUNT.1);
    begins || (before && lasts)
}

/// What functions may have, that take `used` bytes now.
fn given(is_short: bool, memory: &Memory, used: u64) -> MachineMemory {
    let spare = memory
        .available
        .saturating_sub(least_available(memory.total));
    // What they have taken and not touched is in what is available still.
    let touched = memory
        .own
        .map_or(used, |own| own.saturating_sub(OWN_MEMORY).min(used));
    let ceiling = match memory.total {
        0 => u64::MAX,
        _ => touched.saturating_add(spare).max(FLOOR),
    };
    MachineMemory { ceiling, is_short }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory(total: u64, available: u64, stalled: Option<f32>) -> Memory {
        Memory {
            total: total * MIB,
            available: available * MIB,
            stalled,
            own: None,
        }
    }

    #[test]
    fn a_machine_is_short_from_one_threshold_on_until_another() {
        let board = |available| memory(512, available, None);
        let server = |available| memory(64 << 10, available, None);
        let stalled = |available, percent| memory(2000, available, Some(percent));
        // One after another: what the machine says, and whether it is short then.
        let cases = [
            vec![(Memory::default(), false)],
            vec![
                (board(26), false),
                (board(25), true),
                (board(50), true),
                (board(52), false),
                (board(26), false),
            ],
            // Of much memory a twentieth is plenty.
            vec![
                (server(300), false),
                (server(255), true),
                (server(511), true),
                (server(512), false),
            ],
            vec![
                (stalled(399, 9.9), false),
                (stalled(399, 10.0), true),
                (stalled(499, 2.0), true),
                (stalled(499, 1.9), false),
            ],
            // Others wait, and there is memory: that is their limit.
            vec![
                (stalled(401, 90.0), false),
                (stalled(399, 90.0), true),
                (stalled(501, 90.0), false),
            ],
            // Little is little without stalls, too.
            vec![(stalled(99, 0.0), true), (stalled(200, 0.0), false)],
        ];
        for said in cases {
            let mut short = false;
            for (memory, expected) in said {
                short = is_short(short, &memory);
                assert_eq!(short, expected, "{memory:?}");
            }
        }
    }

    #[test]
    fn functions_have_what_they_have_and_what_the_machine_can_spare() {
        let own = |mib: u64, of: Memory| Memory {
            own: Some(mib * MIB),
            ..of
        };
        // What the machine says, what is used, and what may be.
        for (memory, used, ceiling) in [
            (memory(1000, 500, None), 100, 100 + 450),
            // 200 are used, of which 68 are touched: the others are not taken from the 500 yet.
            (own(100, memory(1000, 500, None)), 200, 68 + 450),
            (own(20, memory(1000, 500, None)), 200, 450),
            (own(900, memory(1000, 500, None)), 200, 200 + 450),
            (memory(1000, 10, None), 200, 200),
            (memory(1000, 10, None), 5, 64),
        ] {
            for is_short in [false, true] {
                let given = given(is_short, &memory, used * MIB);
                let expected = MachineMemory {
                    ceiling: ceiling * MIB,
                    is_short,
                };
                assert_eq!(given, expected, "{memory:?}");
            }
        }
        assert_eq!(given(false, &Memory::default(), 5).ceiling, u64::MAX);
    }

    #[test]
    fn who_listens_hears_of_changes_only() {
        let pressure = Pressure::default();
        let mut judged = pressure.0.subscribe();
        assert!(!pressure.judge(&memory(1000, 500, None)));
        assert!(!judged.has_changed().is_ok_and(|changed| changed));
        assert!(pressure.judge(&memory(1000, 10, None)));
        assert!(pressure.judge(&memory(1000, 9, None)));
        assert!(*judged.borrow_and_update());
        assert!(!pressure.judge(&memory(1000, 900, None)));
        assert!(judged.has_changed().is_ok_and(|changed| changed));
    }
}
