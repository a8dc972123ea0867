//! The few things the log and the snapshots ask of a file system, so that tests can cut the power.
//!
//! One directory; file names in, bytes out. What is not synced may be lost, in any order; nothing
//! here hides that.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
pub mod simulated;

/// A directory.
pub trait Disk: Send + Sync + 'static {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new, empty file. Its name is durable after [`Disk::sync_directory`].
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// In one step, replacing what had the name; durable after [`Disk::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn sync_directory(&self) -> io::Result<()>;
    /// For messages to people.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    fn length(&self) -> io::Result<u64>;
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Everything written, and the length needed to read it, is durable on return.
    fn sync_data(&self) -> io::Result<()>;
    /// The same, and durable also where only metadata changed (a file cut shorter).
    fn sync_all(&self) -> io::Result<()>;
}

/// The log's directory and the replica's around it.
const NEW_DIRECTORIES: usize = 2;

/// A directory of the machine's file system.
pub struct Directory {
    path: PathBuf,
}

/// Keeps every other process out of a directory until it is dropped.
pub struct DirectoryLock {
    _file: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot use directory {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is in use by another process: is a controller running on it already?",
        path.display()
    )]
    Locked { path: PathBuf },
}

impl Directory {
    /// Opens `path`, making it if need be, and locks it.
    pub fn open(path: &Path) -> Result<(Self, DirectoryLock), DirectoryError> {
        let io = |source| DirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        let directory = Self::shared(path).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        Ok((directory, DirectoryLock { _file: lock }))
    }

    /// Opens `path`, making it if need be; for one whose neighbour is locked.
    pub fn shared(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        // Directories just made are durable only with their names; deeper ones were there before.
        let above = path.ancestors().skip(1).take(NEW_DIRECTORIES);
        for parent in above.filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}
