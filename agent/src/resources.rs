//! What this machine is and how busy it is: for the scheduler, and for `hivectl top`.
//!
//! Read every few seconds for as long as the agent lives, so it has to be nearly free: on Linux and
//! Android a handful of small files, elsewhere sysinfo. What the system doesn't tell is left out,
//! never guessed.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod memory;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod parse;
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod portable;

use std::path::{Path, PathBuf};

use hive_proto::v1;

use crate::config::{Config, Metered};
use crate::os;

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux::Machine;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use memory::MemoryGauge;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use portable::Machine;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use portable::MemoryGauge;

/// What a look at the machine gave.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sample {
    /// Since the look before; 1000 = one core busy.
    cpu_millis: u32,
    memory: Memory,
    network_received: u64,
    network_sent: u64,
    temperature_celsius: Option<f32>,
    battery: Option<Battery>,
    /// Of the link to everywhere else.
    metered: Option<bool>,
    own_memory: u64,
}

/// The memory that the agent may have. Zero where nothing is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    pub total: u64,
    pub available: u64,
    /// Percent of the last ten seconds in which something waited for memory, where the system tells.
    pub stalled: Option<f32>,
    /// What the agent and its functions have of it for themselves, likewise.
    pub own: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Battery {
    percent: u32,
    charging: bool,
}

/// Looks at the machine; remembers what is needed to tell how busy it was since the last look. The
/// first one is at its making.
pub struct Resources {
    machine: Machine,
    data_dir: PathBuf,
    metered: Metered,
}

impl Resources {
    pub fn new(data_dir: &Path, metered: Metered) -> Self {
        Self {
            machine: Machine::new(),
            data_dir: data_dir.into(),
            metered,
        }
    }

    /// How busy the machine is, without the functions' part.
    pub fn usage(&mut self) -> (v1::Usage, Memory) {
        let sample = self.machine.sample();
        let Memory {
            total, available, ..
        } = sample.memory;
        let usage = v1::Usage {
            cpu_millis: sample.cpu_millis,
            memory_used_bytes: total.saturating_sub(available),
            memory_available_bytes: available,
            storage_free_bytes: os::space(&self.data_dir).map_or(0, |space| space.free),
            network_received_bytes: sample.network_received,
            network_sent_bytes: sample.network_sent,
            temperature_celsius: sample.temperature_celsius,
            battery_percent: sample.battery.map(|battery| battery.percent),
            battery_charging: sample.battery.map(|battery| battery.charging),
            functions: Vec::new(),
            partial: false,
            agent_memory_bytes: sample.own_memory,
            metered: match self.metered {
                Metered::Yes => Some(true),
                Metered::No => Some(false),
                Metered::Auto => sample.metered,
            },
            memory_pressure: None,
        };
        (usage, sample.memory)
    }
}

/// What the node offers, in bytes.
pub fn memory(config: &Config) -> u64 {
    let all = || MemoryGauge::new().read().total;
    config.memory.unwrap_or_else(all)
}

/// What the machine is, and that it offers `memory` bytes.
pub fn node_info(config: &Config, memory: u64, local_address: String) -> v1::NodeInfo {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    v1::NodeInfo {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: os::kernel(),
        target: hive_functions::host_target().into(),
        wasmtime_version: hive_functions::engine_version(),
        memory_bytes: memory,
        cpu_millis: config.cpu_millis.unwrap_or(cores.saturating_mul(1000)),
        storage_bytes: os::space(&config.data_dir).map_or(0, |space| space.total),
        local_address,
        labels: config.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use super::*;

    /// By then a moment has come in which nothing disturbs.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Two independent ways to ask the same machine.
    #[test]
    fn agrees_with_sysinfo() {
        let near = |a: u64, b: u64| a.abs_diff(b) <= a.max(b) / 4;
        let begun = Instant::now();
        loop {
            let ours = Machine::new().sample();
            let theirs = portable::Machine::new().sample();
            assert!(ours.memory.total > 0 && ours.memory.total <= theirs.memory.total);
            assert!(ours.memory.available <= ours.memory.total);
            if near(ours.own_memory, theirs.own_memory)
                && near(ours.network_received, theirs.network_received)
            {
                return;
            }
            // Other tests use memory and the network, also between the two.
            assert!(begun.elapsed() < DEADLINE, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn usage_and_info_are_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut resources = Resources::new(dir.path(), Metered::Yes);
        let (usage, _) = resources.usage();
        assert_eq!(usage.metered, Some(true));
        assert!(usage.memory_available_bytes > 0);
        assert!(usage.storage_free_bytes > 0);
        assert!(usage.agent_memory_bytes > 1 << 20);
    }

    #[test]
    fn a_busy_core_is_seen() {
        let mut machine = Machine::new();
        let begun = Instant::now();
        loop {
            machine.sample();
            let start = Instant::now();
            let mut spun = 0_u64;
            while start.elapsed() < Duration::from_millis(300) {
                spun = std::hint::black_box(spun + 1);
            }
            let seen = machine.sample().cpu_millis;
            if seen >= 200 {
                return;
            }
            // It may have been others who had the core, beyond what this machine counts as its own.
            assert!(begun.elapsed() < DEADLINE, "{seen}");
        }
    }
}
