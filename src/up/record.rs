//! What a local swarm leaves on disk about itself: its shape, and which processes it consists of.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// Of the layout of the data directory; raised when an older program could not read it.
const VERSION: &str = "1";

/// How a swarm was made; a second `up` on the same data resumes it with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape {
    pub controllers: u8,
    pub agents: u8,
    pub base_port: u16,
}

/// A process that was started, told apart from a later one with the same id by its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    /// Clock ticks from boot to its start; 0 where the system does not tell.
    pub started: u64,
}

impl Process {
    pub fn of(name: &str, pid: u32) -> Self {
        Self {
            name: name.to_owned(),
            pid,
            started: start_ticks(pid).unwrap_or_default(),
        }
    }

    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid).is_some_and(|started| started == self.started)
    }
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); `None` for no process, or a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn shape_path(data_dir: &Path) -> PathBuf {
    data_dir.join("swarm.json")
}

fn processes_path(data_dir: &Path) -> PathBuf {
    data_dir.join("processes.json")
}

/// Held by the one `up` that works in a directory; `None` when another one has it. It ends with the
/// process, however that ends.
pub fn lock(data_dir: &Path) -> anyhow::Result<Option<File>> {
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot create {}", data_dir.display()))?;
    let path = data_dir.join("up.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The shape of the swarm in a directory, if one was made there.
pub fn load_shape(data_dir: &Path) -> anyhow::Result<Option<Shape>> {
    match std::fs::read_to_string(data_dir.join("version")) {
        Ok(found) if found.trim() != VERSION => bail!(
            "{} was written in layout {}, this program knows layout {VERSION}: use the program that wrote it, another --data-dir, or remove the directory",
            data_dir.display(),
            found.trim()
        ),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", data_dir.display())),
    }
    read(&shape_path(data_dir))
}

pub fn save_shape(layout: &Layout, shape: Shape) -> anyhow::Result<()> {
    let dir = &layout.data_dir;
    std::fs::create_dir_all(dir.join("logs"))
        .and_then(|()| std::fs::write(dir.join("version"), VERSION))
        .with_context(|| format!("cannot prepare {}", dir.display()))?;
    write(&shape_path(dir), &shape)
}

/// Processes of the swarm that are alive.
pub fn load_processes(data_dir: &Path) -> anyhow::Result<Vec<Process>> {
    let recorded: Vec<Process> = read(&processes_path(data_dir))?.unwrap_or_default();
    Ok(recorded.into_iter().filter(Process::is_alive).collect())
}

pub fn save_processes(data_dir: &Path, processes: &[Process]) -> anyhow::Result<()> {
    write(&processes_path(data_dir), &processes)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| {
            format!("{} cannot be read: remove it", path.display())
        })?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    // A crash in between leaves the old file whole.
    let temporary = path.with_extension("json.new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_namesake_is_not() {
        let own = Process::of("self", std::process::id());
        assert!(own.is_alive());
        let other = Process {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
    }

    #[test]
    fn one_up_at_a_time_works_in_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        let first = lock(temp.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(temp.path()).unwrap().is_none());
        drop(first);
        assert!(lock(temp.path()).unwrap().is_some());
    }

    #[test]
    fn a_directory_of_another_layout_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(load_shape(temp.path()).unwrap(), None);
        std::fs::write(temp.path().join("version"), "9").unwrap();
        let error = load_shape(temp.path()).unwrap_err().to_string();
        assert!(error.contains("layout 9"), "{error}");
    }
}
