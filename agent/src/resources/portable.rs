//! The machine as sysinfo tells it, where there is no /proc. Batteries it doesn't know.

use sysinfo::{Components, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::Sample;

pub struct Machine {
    system: System,
    networks: Networks,
    components: Components,
    own: Option<Pid>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            system: System::new(),
            networks: Networks::new(),
            components: Components::new_with_refreshed_list(),
            own: sysinfo::get_current_pid().ok(),
        }
    }

    pub fn sample(&mut self) -> Sample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        self.components.refresh(true);
        let own_memory = self.own.and_then(|own| {
            self.system.refresh_processes_specifics(
                ProcessesToUpdate::Some(&[own]),
                true,
                ProcessRefreshKind::nothing().with_memory(),
            );
            Some(self.system.process(own)?.memory())
        });
        let cores = self.system.cpus().len() as f32;
        let total = |of: fn(&sysinfo::NetworkData) -> u64| {
            self.networks
                .iter()
                .filter(|(name, _)| !name.starts_with("lo"))
                .map(|(_, network)| of(network))
                .sum()
        };
        Sample {
            cpu_millis: (self.system.global_cpu_usage() / 100.0 * cores * 1000.0).round() as u32,
            memory_total: self.system.total_memory(),
            memory_available: self.system.available_memory(),
            network_received: total(sysinfo::NetworkData::total_received),
            network_sent: total(sysinfo::NetworkData::total_transmitted),
            temperature_celsius: self
                .components
                .iter()
                .filter_map(sysinfo::Component::temperature)
                .filter(|degrees| (1.0..126.0).contains(degrees))
                .max_by(f32::total_cmp),
            battery: None,
            own_memory: own_memory.unwrap_or_default(),
        }
    }
}
