//! A control group with a limit to its memory: a small board on a large machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::{holds, until};

/// Killed processes are gone, and their group empty.
const EMPTIED: Duration = Duration::from_secs(120);

/// Removed by [`ControlGroup::remove`], once nothing is in it.
#[derive(Debug)]
pub struct ControlGroup {
    dir: PathBuf,
    is_v1: bool,
}

impl ControlGroup {
    /// With so many bytes for all that is in it. Fails where this user may make none: only root may, as a rule.
    pub fn with_memory(bytes: u64) -> io::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let is_v1 = v1.join("memory.limit_in_bytes").exists();
        let root = match is_v1 {
            true => v1,
            false => Path::new("/sys/fs/cgroup"),
        };
        let group = Self {
            dir: root.join(format!("hive-e2e-{}", std::process::id())),
            is_v1,
        };
        fs::create_dir(&group.dir)?;
        let limit = match is_v1 {
            true => "memory.limit_in_bytes",
            false => "memory.max",
        };
        if let Err(error) = fs::write(group.dir.join(limit), bytes.to_string()) {
            let _ = fs::remove_dir(&group.dir);
            return Err(error);
        }
        Ok(group)
    }

    /// What starts a program in it: the program and its arguments follow.
    pub fn launcher(&self) -> Vec<String> {
        let procs = self.dir.join("cgroup.procs");
        let enter = format!("echo $$ > {} && exec \"$@\"", procs.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).into()
    }

    /// Bytes that are in use, without those of files that the kernel would take back at once.
    pub fn used(&self) -> u64 {
        let (used, cache) = match self.is_v1 {
            true => ("memory.usage_in_bytes", "total_inactive_file"),
            false => ("memory.current", "inactive_file"),
        };
        let used: u64 = self.read(used).trim().parse().expect("it is a number");
        used - self.counter("memory.stat", cache)
    }

    /// How often a process of it was killed for want of memory.
    pub fn killed(&self) -> u64 {
        let file = match self.is_v1 {
            true => "memory.oom_control",
            false => "memory.events",
        };
        self.counter(file, "oom_kill")
    }

    /// Waits until nothing is in it any more, and removes it.
    pub async fn remove(self) {
        until("the control group is empty", EMPTIED, async || {
            let procs = self.read("cgroup.procs");
            holds(procs.is_empty(), procs)
        })
        .await;
        fs::remove_dir(&self.dir).expect("an empty group can be removed");
    }

    fn counter(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then(|| value.parse().ok()).flatten()
        });
        value.unwrap_or_else(|| panic!("{file} has no {name}"))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).expect("a file of its group")
    }
}
