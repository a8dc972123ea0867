//! The memory that the agent may have, as /proc and the control groups tell it: what the machine has available, and
//! what is left of the limits of the groups that it is in, whichever is least.
//!
//! Of both versions of control groups: services and containers have version 2 nearly everywhere, older boards 1.

use std::path::{Component, Path, PathBuf};

use super::linux::read;
use super::{Memory, parse};

pub struct MemoryGauge {
    /// The root of the file system, but in tests.
    root: PathBuf,
}

/// A version of control groups: where it is mounted, and what its files are called.
struct Version {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: pages of files that the kernel takes back before anybody has to wait for it.
    cache: &'static str,
}

const V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file",
};

const V2: Version = Version {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    cache: "inactive_file",
};

impl MemoryGauge {
    pub fn new() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub fn read(&mut self) -> Memory {
        let meminfo = self.text("proc/meminfo");
        let own = self.text("proc/self/status");
        let groups = self.text("proc/self/cgroup");
        let is_v1 = |controllers: &str| controllers.split(',').any(|name| name == "memory");
        let v1 = levels(&V1, parse::group(&groups, is_v1));
        let v2 = levels(&V2, parse::group(&groups, str::is_empty));

        // Of the machine, and of the group that the agent is in itself.
        let innermost = v2.first().map(|dir| dir.join("memory.pressure"));
        let stalled = [Some("proc/pressure/memory".into()), innermost];
        let stalled = stalled.into_iter().flatten();
        let stalled = stalled.filter_map(|path: PathBuf| parse::stalled(&self.text(path)));

        let mut memory = Memory {
            total: parse::kilobytes(&meminfo, "MemTotal").unwrap_or_default(),
            available: parse::kilobytes(&meminfo, "MemAvailable").unwrap_or_default(),
            stalled: stalled.max_by(f32::total_cmp),
            own: parse::kilobytes(&own, "RssAnon"),
        };
        for (version, dirs) in [(&V1, v1), (&V2, v2)] {
            for dir in dirs {
                self.within(version, &dir, &mut memory);
            }
        }
        memory
    }

    fn within(&self, version: &Version, dir: &Path, memory: &mut Memory) {
        let number = |name: &str| parse::limit(&self.text(dir.join(name)));
        let Some(limit) = number(version.limit).filter(|limit| *limit < memory.total) else {
            return;
        };
        let stat = self.text(dir.join("memory.stat"));
        let cache = parse::counter(&stat, version.cache).unwrap_or_default();
        let used = number(version.used).unwrap_or_default();
        let left = limit.saturating_sub(used.saturating_sub(cache));
        memory.total = limit;
        memory.available = memory.available.min(left);
    }

    /// Nothing where there is no such file, or it may not be read.
    fn text(&self, path: impl AsRef<Path>) -> String {
        read(self.root.join(path)).unwrap_or_default()
    }
}

/// The directories of a group and of those around it, the innermost first. In a container that sees only its own, that
/// is the outermost.
fn levels(version: &Version, path: Option<&str>) -> Vec<PathBuf> {
    let ancestors = path
        .into_iter()
        .flat_map(|path| Path::new(path).ancestors());
    // A group outside of what can be seen from here is told as `/..`.
    let is_seen = |path: &&Path| path.components().all(|part| part != Component::ParentDir);
    ancestors
        .filter(is_seen)
        .map(|path| Path::new(version.mount).join(path.strip_prefix("/").unwrap_or(path)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is read where these files are.
    fn told(files: &[(&str, &str)]) -> Memory {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        MemoryGauge::below(root.path()).read()
    }

    const MACHINE: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n",
    );

    #[test]
    fn a_machine_without_groups_or_stalls_tells_what_it_has() {
        let plain = Memory {
            total: 2048 * MIB,
            available: 1024 * MIB,
            stalled: None,
            own: None,
        };
        assert_eq!(told(&[MACHINE]), plain);
        let in_none = ("proc/self/cgroup", "0::/\n");
        assert_eq!(told(&[MACHINE, in_none]), plain);
        assert_eq!(told(&[]), Memory::default());
        let status = ("proc/self/status", "VmRSS: 9 kB\nRssAnon:\t  4 kB\n");
        assert_eq!(told(&[MACHINE, status]).own, Some(4096));
    }

    #[test]
    fn the_limit_of_any_group_around_bounds_it_and_cached_files_do_not_count() {
        let group = ("proc/self/cgroup", "0::/system.slice/hive.service\n");
        let own = "sys/fs/cgroup/system.slice/hive.service";
        let files = [
            MACHINE,
            group,
            (&format!("{own}/memory.max"), "536870912\n"),
            (&format!("{own}/memory.current"), "419430400\n"),
            (
                &format!("{own}/memory.stat"),
                "anon 1\ninactive_file 104857600\n",
            ),
        ];
        let memory = told(&files);
        assert_eq!((memory.total, memory.available), (512 * MIB, 212 * MIB));

        // The group around it has less.
        let mut around = files.to_vec();
        let slice = "sys/fs/cgroup/system.slice";
        let (max, current) = (
            format!("{slice}/memory.max"),
            format!("{slice}/memory.current"),
        );
        around.extend([(&*max, "268435456"), (&*current, "209715200")]);
        let memory = told(&around);
        assert_eq!((memory.total, memory.available), (256 * MIB, 56 * MIB));
    }

    #[test]
    fn a_container_and_the_first_version_are_read_too() {
        let container = [
            MACHINE,
            ("proc/self/cgroup", "0::/../elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ];
        assert_eq!(told(&container).available, 1024 * MIB);
        let limited = [
            MACHINE,
            ("proc/self/cgroup", "0::/../elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "104857600\n"),
        ];
        assert_eq!(told(&limited).available, 100 * MIB);

        let dir = "sys/fs/cgroup/memory/board";
        let first = [
            MACHINE,
            ("proc/self/cgroup", "4:memory:/board\n0::/\n"),
            (&format!("{dir}/memory.limit_in_bytes"), "536870912\n"),
            (&format!("{dir}/memory.usage_in_bytes"), "536870912\n"),
            (
                &format!("{dir}/memory.stat"),
                "total_inactive_file 1048576\n",
            ),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        let memory = told(&first);
        assert_eq!((memory.total, memory.available), (512 * MIB, MIB));
    }

    #[test]
    fn of_stalls_the_worse_counts() {
        let some = |avg10: &str| format!("some avg10={avg10} avg60=0.00 avg300=0.00 total=0\n");
        let (machine, own) = (some("1.50"), some("30.00"));
        let of_machine = ("proc/pressure/memory", &*machine);
        assert_eq!(told(&[MACHINE, of_machine]).stalled, Some(1.5));
        let both = [
            MACHINE,
            of_machine,
            ("proc/self/cgroup", "0::/hive\n"),
            ("sys/fs/cgroup/hive/memory.pressure", &own),
        ];
        assert_eq!(told(&both).stalled, Some(30.0));
    }
}
