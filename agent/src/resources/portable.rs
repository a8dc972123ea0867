//! The machine as sysinfo tells it, where there is no /proc. Batteries it doesn't know.

use sysinfo::{Components, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{Memory, Sample};

/// The machine's memory.
pub struct MemoryGauge(Option<System>);

impl MemoryGauge {
    pub fn new() -> Self {
        Self(System::new().ok())
    }

    pub fn read(&mut self) -> Memory {
        let Some(system) = &mut self.0 else {
            return Memory::default();
        };
        system.refresh_memory();
        Memory {
            total: system.total_memory(),
            available: system.available_memory(),
            ..Memory::default()
        }
    }
}

pub struct Machine {
    memory: MemoryGauge,
    system: Option<System>,
    networks: Option<Networks>,
    components: Option<Components>,
    own: Option<Pid>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            memory: MemoryGauge::new(),
            system: System::new().ok(),
            networks: Networks::new().ok(),
            components: Components::new().ok(),
            own: sysinfo::get_current_pid().ok(),
        }
    }

    pub fn sample(&mut self) -> Sample {
        let mut sample = Sample {
            memory: self.memory.read(),
            temperature_celsius: self.components.as_mut().and_then(temperature),
            ..Sample::default()
        };
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            for (name, network) in networks.iter() {
                if !name.to_string_lossy().starts_with("lo") {
                    sample.network_received += network.total_received();
                    sample.network_sent += network.total_transmitted();
                }
            }
        }
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            let cores = system.cpus().len() as f32;
            sample.cpu_millis = (system.global_cpu_usage() / 100.0 * cores * 1000.0).round() as u32;
            sample.own_memory = self
                .own
                .and_then(|own| own_memory(system, own))
                .unwrap_or_default();
        }
        sample
    }
}

fn own_memory(system: &mut System, own: Pid) -> Option<u64> {
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[own]),
        true,
        ProcessRefreshKind::nothing().with_memory(),
    );
    Some(system.process(own)?.memory())
}

/// Of the hottest sensor that shows something that can be true.
fn temperature(components: &mut Components) -> Option<f32> {
    components.refresh(true);
    components
        .iter()
        .filter_map(sysinfo::Component::temperature)
        .filter(|degrees| (1.0..126.0).contains(degrees))
        .max_by(f32::total_cmp)
}
