//! The machine as /proc and /sys tell it. A file that can't be read (Android hides some from apps)
//! is one figure less.

use std::fs;
use std::path::{Path, PathBuf};

use super::memory::MemoryGauge;
use super::parse::{self, CpuTicks};
use super::{Battery, Sample};

pub struct Machine {
    memory: MemoryGauge,
    cores: u32,
    before: CpuTicks,
    sensors: Vec<PathBuf>,
    battery: Option<PathBuf>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            memory: MemoryGauge::new(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            before: ticks().unwrap_or_default(),
            sensors: entries("/sys/class/thermal", |dir| {
                has_prefix(dir, "thermal_zone") && dir.join("temp").exists()
            }),
            battery: entries("/sys/class/power_supply", |dir| {
                read(dir.join("type")).is_some_and(|kind| kind.trim() == "Battery")
                    && dir.join("capacity").exists()
            })
            .into_iter()
            .next(),
        }
    }

    pub fn sample(&mut self) -> Sample {
        let now = ticks().unwrap_or_default();
        let cpu_millis = parse::busy_millis(self.before, now, self.cores);
        self.before = now;

        let (network_received, network_sent) =
            parse::network_totals(&read("/proc/net/dev").unwrap_or_default());
        let own = read("/proc/self/status").unwrap_or_default();
        Sample {
            cpu_millis,
            memory: self.memory.read(),
            network_received,
            network_sent,
            temperature_celsius: self.temperature(),
            battery: self.battery.as_deref().and_then(battery),
            metered: metered(&read("/proc/net/route").unwrap_or_default()),
            own_memory: parse::kilobytes(&own, "VmRSS").unwrap_or_default(),
        }
    }

    /// Of the hottest sensor: that is the one at which the machine slows itself down.
    fn temperature(&self) -> Option<f32> {
        self.sensors
            .iter()
            .filter_map(|dir| parse::degrees(&read(dir.join("temp"))?))
            .max_by(f32::total_cmp)
    }
}

fn ticks() -> Option<CpuTicks> {
    parse::cpu_ticks(&read("/proc/stat")?)
}

/// Not known where there is no route, or where it cannot be read: apps on newer versions of Android cannot.
fn metered(route: &str) -> Option<bool> {
    parse::default_interface(route).map(parse::is_mobile)
}

fn battery(dir: &Path) -> Option<Battery> {
    let percent: u32 = read(dir.join("capacity"))?.trim().parse().ok()?;
    let status = read(dir.join("status"))?;
    Some(Battery {
        percent: percent.min(100),
        // "Full" and "Not charging" are said only while the cable is in.
        charging: matches!(status.trim(), "Charging" | "Full" | "Not charging"),
    })
}

fn entries(dir: &str, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| wanted(path))
        .collect();
    found.sort();
    found
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(prefix))
}

pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}
