//! Snapshots on disk: the state as of one log entry, compressed and checksummed.
//!
//! Written under a temporary name, synced, renamed, directory synced; the last two are kept. A
//! snapshot that does not match its checksum is an error that names file and repair, never skipped.
//! Where this controller has keys, files are sealed with them; others are sent what is inside.

mod format;
mod seals;

use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use self::format::SnapshotError;
use tokio::sync::Notify;

use super::disk::{Directory, Disk, DiskFile};
use super::machine::check_level;
use super::seal::file::{Reader, Writer};
use super::seal::keys::{KeyId, Keys};
use super::types::SnapshotMeta;
use crate::state::State;

/// The one in use and the one before it, for a person to go back to when the newest is damaged.
const KEPT: usize = 2;

/// More than any state should take; bounds what a peer can make this disk hold.
const MAX_RECEIVED_BYTES: u64 = 4 * 1024 * 1024 * 1024;

const COPY_BYTES: usize = 1024 * 1024;

const EXTENSION: &str = "snapshot";
const PARTIAL: &str = "partial";

/// A directory of snapshots; clones share it.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    keys: Keys,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    /// Held while a complete file takes its place: two that become ready together follow each other.
    keeping: Arc<Mutex<()>>,
    /// Gives each temporary file a name of its own.
    partials: Arc<AtomicU64>,
    /// The last entry in the one before the current one.
    before: Arc<Mutex<Option<u64>>>,
    news: Arc<Notify>,
}

/// An open snapshot: it stays readable when a newer one replaces it.
#[derive(Clone)]
pub struct SnapshotFile {
    meta: SnapshotMeta,
    file: Arc<Reader>,
    path: Arc<Path>,
    /// Removes a received file that was not adopted.
    _partial: Option<Arc<Partial>>,
}

impl SnapshotFile {
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The last entry in it; 0 for a state without any.
    pub fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.file.length()
    }

    /// With which it is sealed, if it is.
    pub fn key(&self) -> Option<KeyId> {
        self.file.key()
    }

    /// Up to `limit` bytes from `offset`; empty at the end. Blocks.
    pub fn read_at(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let rest = self.file.length().saturating_sub(offset);
        let mut chunk = vec![0; usize::try_from(rest).unwrap_or(limit).min(limit)];
        self.file.read_exact_at(offset, &mut chunk)?;
        Ok(chunk)
    }

    /// Checks and reads the whole file. Blocks.
    pub fn load(&self) -> Result<State, SnapshotError> {
        let (meta, state) = format::read(&self.file, &self.path)?;
        if meta != self.meta {
            return Err(format::damaged(
                &self.path,
                "it is of another log entry than announced",
            ));
        }
        check_level(&state)?;
        Ok(state)
    }
}

impl Snapshots {
    /// Opens the directory and the newest snapshot in it, and removes what an interrupted write
    /// left behind. Blocks.
    pub fn open(directory: &Path, keys: Keys) -> Result<Self, SnapshotError> {
        let disk = Directory::shared(directory).map_err(|source| SnapshotError::Io {
            path: directory.to_owned(),
            source,
        })?;
        Self::on(Arc::new(disk), keys)
    }

    /// The same, on any disk.
    pub fn on(disk: Arc<dyn Disk>, keys: Keys) -> Result<Self, SnapshotError> {
        let io = |source| SnapshotError::Io {
            path: disk.path(""),
            source,
        };
        let mut kept = Vec::new();
        let mut partials = Vec::new();
        for name in disk.list().map_err(io)? {
            match extension(&name) {
                Some(PARTIAL) => partials.push(name),
                Some(EXTENSION) => kept.push(name),
                _ => {}
            }
        }
        // Names sort as the log entries do.
        kept.sort();
        let (newest, before) = (kept.pop(), kept.pop());
        // Before anything is changed: its key may be missing.
        let current = newest
            .map(|name| open_file(&*disk, &name, &keys))
            .transpose()?;
        for partial in partials {
            disk.remove(&partial).map_err(io)?;
        }
        // What was read may still be only in the system's cache (a process killed, not a machine):
        // the log is removed on the strength of it.
        disk.sync_directory().map_err(io)?;
        Ok(Self {
            disk,
            keys,
            current: Arc::new(Mutex::new(current)),
            keeping: Arc::default(),
            before: Arc::new(Mutex::new(before.as_deref().and_then(last_entry))),
            news: Arc::default(),
            partials: Arc::default(),
        })
    }

    pub fn current(&self) -> Option<SnapshotFile> {
        self.lock().clone()
    }

    /// The current one, and the last entry in the one that is kept beside it.
    pub fn kept(&self) -> (Option<SnapshotFile>, Option<u64>) {
        let before = *self
            .before
            .lock()
            .expect("nothing panics while it holds it");
        (self.current(), before)
    }

    /// Wakes whoever waits for it when another snapshot has become the current one.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SnapshotFile>> {
        self.current
            .lock()
            .expect("nothing panics while it holds the current snapshot")
    }

    /// Writes a snapshot of `state`. Blocks; the state is a clone that nobody changes.
    pub fn write(&self, meta: &SnapshotMeta, state: &State) -> Result<SnapshotFile, SnapshotError> {
        let (partial, mut out) = self.partial()?;
        format::write(&mut out, meta, state)
            .and_then(|()| out.finish())
            .map_err(|source| partial.failed(source))?;
        self.keep(partial, meta)
    }

    /// Begins to take in a snapshot that another controller sends.
    pub fn receive(&self) -> Result<Receiving, SnapshotError> {
        let (partial, out) = self.partial()?;
        Ok(Receiving {
            partial,
            out,
            keys: self.keys.clone(),
            length: 0,
        })
    }

    /// Keeps a copy of a snapshot from elsewhere as the current one; nothing if it is that already.
    /// Blocks.
    pub fn adopt(&self, snapshot: &SnapshotFile) -> Result<(), SnapshotError> {
        if self
            .current()
            .is_some_and(|current| current.path == snapshot.path)
        {
            return Ok(());
        }
        let partial = self.copy(&snapshot.file)?;
        self.keep(partial, &snapshot.meta)?;
        Ok(())
    }

    /// A complete file with the same content, sealed with the first key.
    fn copy(&self, content: &Reader) -> Result<Partial, SnapshotError> {
        let (partial, mut out) = self.partial()?;
        io::copy(
            &mut BufReader::with_capacity(COPY_BYTES, content.range(0, content.length())),
            &mut out,
        )
        .and_then(|_| out.finish())
        .map_err(|source| partial.failed(source))?;
        Ok(partial)
    }

    fn partial(&self) -> Result<(Partial, Writer), SnapshotError> {
        let number = self.partials.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}.{PARTIAL}");
        let io = |source| SnapshotError::Io {
            path: self.disk.path(&name),
            source,
        };
        let file: Arc<dyn DiskFile> = self.disk.create(&name).map_err(io)?.into();
        let partial = Partial {
            disk: self.disk.clone(),
            file: file.clone(),
            name: name.clone(),
            kept: false,
        };
        let out = Writer::begin(file, &self.keys).map_err(io)?;
        Ok((partial, out))
    }

    fn lock_keeping(&self) -> std::sync::MutexGuard<'_, ()> {
        self.keeping
            .lock()
            .expect("nothing panics while a snapshot takes its place")
    }

    /// Makes a complete file the snapshot of that name, durable, and the current one if it is not
    /// older than that.
    fn put_in_place(
        &self,
        mut partial: Partial,
        name: &str,
    ) -> Result<SnapshotFile, SnapshotError> {
        let io = |source| SnapshotError::Io {
            path: self.disk.path(name),
            source,
        };
        partial.file.sync_all().map_err(io)?;
        self.disk.rename(&partial.name, name).map_err(io)?;
        partial.kept = true;
        self.disk.sync_directory().map_err(io)?;
        let file = open_file(&*self.disk, name, &self.keys)?;
        let mut current = self.lock();
        if current
            .as_ref()
            .is_none_or(|known| known.meta.last_log_id <= file.meta.last_log_id)
        {
            *current = Some(file.clone());
        }
        Ok(file)
    }

    /// Makes a complete file the current snapshot and removes those no longer kept.
    fn keep(&self, partial: Partial, meta: &SnapshotMeta) -> Result<SnapshotFile, SnapshotError> {
        let name = file_name(meta);
        let _keeping = self.lock_keeping();
        let file = self.put_in_place(partial, &name)?;
        let before = self.remove_old().map_err(|source| SnapshotError::Io {
            path: self.disk.path(&name),
            source,
        })?;
        *self
            .before
            .lock()
            .expect("nothing panics while it holds it") = before;
        self.news.notify_one();
        Ok(file)
    }

    /// The last entry in the newest but one of those that stay.
    fn remove_old(&self) -> io::Result<Option<u64>> {
        let mut names = self.disk.list()?;
        names.retain(|name| extension(name) == Some(EXTENSION));
        names.sort();
        for old in names.iter().rev().skip(KEPT) {
            self.disk.remove(old)?;
        }
        self.disk.sync_directory()?;
        Ok(names.iter().rev().nth(1).and_then(|name| last_entry(name)))
    }
}

/// Sorts by log index, then term, as text.
fn file_name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta
        .last_log_id
        .map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:020}-{term:020}.{EXTENSION}")
}

/// What [`file_name`] was made of.
fn last_entry(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

/// Whether a complete snapshot has that name.
pub fn is_snapshot(name: &str) -> bool {
    extension(name) == Some(EXTENSION)
}

fn extension(name: &str) -> Option<&str> {
    Some(name.rsplit_once('.')?.1)
}

fn open_file(disk: &dyn Disk, name: &str, keys: &Keys) -> Result<SnapshotFile, SnapshotError> {
    let path = disk.path(name);
    let file = disk.open(name).map_err(|source| SnapshotError::Io {
        path: path.clone(),
        source,
    })?;
    let file = Reader::open(file.into(), keys).map_err(format::unreadable(&path))?;
    let meta = format::read_meta(&file, &path)?;
    Ok(SnapshotFile {
        meta,
        file: Arc::new(file),
        path: path.into(),
        _partial: None,
    })
}

/// A file not yet complete; removed when dropped before it was kept.
struct Partial {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    name: String,
    kept: bool,
}

impl Partial {
    fn path(&self) -> PathBuf {
        self.disk.path(&self.name)
    }

    fn failed(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Io {
            path: self.path(),
            source,
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about it here; the next start removes it.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// A snapshot that is being received.
pub struct Receiving {
    partial: Partial,
    out: Writer,
    keys: Keys,
    length: u64,
}

impl Receiving {
    /// Blocks.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.length += chunk.len() as u64;
        if self.length > MAX_RECEIVED_BYTES {
            return Err(SnapshotError::TooLarge {
                limit: MAX_RECEIVED_BYTES,
            });
        }
        self.out
            .write_all(chunk)
            .map_err(|source| self.partial.failed(source))
    }

    /// Checks what arrived. It is gone with its last handle unless it is adopted. Blocks.
    pub fn finish(self, announced: &SnapshotMeta) -> Result<SnapshotFile, SnapshotError> {
        self.out
            .finish()
            .map_err(|source| self.partial.failed(source))?;
        let mut snapshot = open_file(&*self.partial.disk, &self.partial.name, &self.keys)?;
        format::verify(&snapshot.file, &snapshot.path)?;
        if snapshot.meta != *announced {
            return Err(format::damaged(
                &snapshot.path,
                "it is of another log entry than announced",
            ));
        }
        snapshot._partial = Some(Arc::new(self.partial));
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests;
