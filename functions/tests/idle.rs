//! What an agent with no function pays for being able to run some. Alone in its process: it looks
//! at the memory of all of it.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use hive_functions::{Allocation, Runtime, RuntimeOptions};

/// Kilobytes of this process's own memory; pages of its file are shared and can be dropped.
fn anonymous() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = maps
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[test]
fn an_idle_runtime_takes_addresses_but_no_memory() {
    let before = anonymous();
    let options = RuntimeOptions {
        memory_bytes: 2 << 30,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::start(options).unwrap();
    let taken = anonymous() - before;
    assert_eq!(runtime.allocation(), Allocation::Pooled { slots: 1000 });
    // 15 MB is what a whole idle agent may take.
    assert!(taken < 2048, "{taken} kB");
}
