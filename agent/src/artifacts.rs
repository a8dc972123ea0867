//! Compiled artifacts on this node's disk: whole ones under their SHA-256, parts of others beside.
//!
//! A file gets its final name only after every byte of it was hashed and synced, so what has one is
//! right unless the disk rots, which is looked at before it is mapped. A part is kept through
//! cuts and restarts, because on a metered link no byte should come twice.

pub mod fetch;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hive_functions::VerifiedArtifact;
use sha2::{Digest as _, Sha256};

use crate::ids::Digest;
use crate::os;

const PART_SUFFIX: &str = ".part";

/// Space that is left to the system and to the ledger, come what may.
const SPACE_TO_LEAVE: u64 = 16 << 20;

/// The directory of artifacts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    dir: PathBuf,
}

/// What a start found on the disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub whole: Vec<Digest>,
    pub parts: Vec<Digest>,
}

/// An artifact that comes in: bytes are added at its end.
#[derive(Debug)]
pub struct Part {
    file: Arc<File>,
    path: PathBuf,
    target: PathBuf,
    digest: Digest,
    received: u64,
    size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "no space for {needed} more bytes on the disk of {} ({free} are free, of which {SPACE_TO_LEAVE} \
         stay free)", .dir.display()
    )]
    DiskFull {
        dir: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("more than the {size} bytes of its description came")]
    TooLong { size: u64 },
    #[error("what came does not have the SHA-256 of its description, and was thrown away")]
    Digest,
}

impl ArtifactStore {
    /// Whether there may be a function to load.
    pub fn holds_any(dir: &Path) -> bool {
        fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Opens the directory, or makes it, and looks at what is there. Strange files are left alone.
    pub fn open(dir: &Path) -> Result<(Self, Found), StoreError> {
        let failed = |source| StoreError::Write {
            path: dir.into(),
            source,
        };
        os::create_private_dir(dir).map_err(failed)?;
        if let Some(parent) = dir.parent()
            && !Self::holds_any(dir)
        {
            // Else a power cut can take the directory with all that comes. Before anything came it was done.
            os::sync_directory(parent).map_err(failed)?;
        }
        let mut found = Found::default();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.strip_suffix(PART_SUFFIX) {
                Some(stem) => found.parts.extend(Digest::from_hex(stem)),
                None => found.whole.extend(Digest::from_hex(name)),
            }
        }
        Ok((Self { dir: dir.into() }, found))
    }

    /// Where the artifact is, if it is whole.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// Begins or goes on with an artifact. Checks first that all of it will fit.
    pub fn part(&self, digest: Digest, size: u64) -> Result<Part, StoreError> {
        let path = self.part_path(digest);
        let failed = |source| write_error(&path, source);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(failed)?;
        let mut received = (&file).seek(io::SeekFrom::End(0)).map_err(failed)?;
        if received > size {
            // Of another description, or rotten: nothing in it can be trusted.
            file.set_len(0).map_err(failed)?;
            received = 0;
        }
        let needed = size - received;
        if let Ok(space) = os::space(&self.dir)
            && space.free < needed.saturating_add(SPACE_TO_LEAVE)
        {
            return Err(StoreError::DiskFull {
                dir: self.dir.clone(),
                needed,
                free: space.free,
            });
        }
        Ok(Part {
            file: Arc::new(file),
            target: self.path(digest),
            path,
            digest,
            received,
            size,
        })
    }

    /// Deletes the artifact and what there is of a part of it.
    pub fn remove(&self, digest: Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        for path in [VerifiedArtifact::note(&path), path, self.part_path(digest)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn part_path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{digest}{PART_SUFFIX}"))
    }
}

impl Part {
    /// How much of it is there: the offset from which the rest is wanted.
    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.received + bytes.len() as u64 > self.size {
            return Err(StoreError::TooLong { size: self.size });
        }
        (&*self.file)
            .write_all(bytes)
            .map_err(|source| write_error(&self.path, source))?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// What makes the bytes that came survive a power cut, when called. It blocks.
    pub fn syncing(&self) -> impl FnOnce() -> Result<(), StoreError> + Send + 'static {
        let (file, path) = (self.file.clone(), self.path.clone());
        move || {
            file.sync_data()
                .map_err(|source| write_error(&path, source))
        }
    }

    /// Hashes the whole and gives it its name. What has another hash is deleted.
    pub fn finish(self) -> Result<(), StoreError> {
        let failed = |source| write_error(&self.path, source);
        (&*self.file).seek(io::SeekFrom::Start(0)).map_err(failed)?;
        if hash(&self.file).map_err(failed)? != self.digest {
            fs::remove_file(&self.path).map_err(failed)?;
            return Err(StoreError::Digest);
        }
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, &self.target).map_err(failed)?;
        let dir = self.target.parent().unwrap_or(Path::new("."));
        os::sync_directory(dir).map_err(failed)
    }

    /// Throws away what came.
    pub fn discard(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(|source| write_error(&self.path, source))
    }
}

fn hash(mut file: &File) -> io::Result<Digest> {
    // Small beside the 15 MB that an idle agent may take.
    let mut buffer = vec![0; 64 * 1024];
    let mut hasher = Sha256::new();
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(&buffer[..read]);
    }
}

fn write_error(path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let dir = path.parent().unwrap_or(path);
            StoreError::DiskFull {
                dir: dir.into(),
                needed: 0,
                free: os::space(dir).map_or(0, |space| space.free),
            }
        }
        _ => StoreError::Write {
            path: path.into(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_part_goes_on_after_a_restart_and_becomes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("artifacts");
        let digest = Digest::of(b"hello world");
        let (store, found) = ArtifactStore::open(&dir).unwrap();
        assert_eq!(found, Found::default());
        let mut part = store.part(digest, 11).unwrap();
        part.append(b"hello ").unwrap();
        drop(part);

        let (store, found) = ArtifactStore::open(&dir).unwrap();
        assert_eq!((found.whole, found.parts), (vec![], vec![digest]));
        let mut part = store.part(digest, 11).unwrap();
        assert_eq!(part.received(), 6);
        part.append(b"world").unwrap();
        assert!(part.is_complete());
        part.finish().unwrap();

        let (store, found) = ArtifactStore::open(&dir).unwrap();
        assert_eq!((found.whole, found.parts), (vec![digest], vec![]));
        let path = store.path(digest);
        assert_eq!(fs::read(&path).unwrap(), b"hello world");
        VerifiedArtifact::verify(&path, &digest.0).unwrap();
        store.remove(digest).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        store.remove(digest).unwrap();
        assert_eq!(ArtifactStore::open(&dir).unwrap().1, Found::default());
    }

    #[test]
    fn false_content_never_gets_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"hello");
        let (store, _) = ArtifactStore::open(dir.path()).unwrap();
        let mut part = store.part(digest, 5).unwrap();
        assert!(matches!(
            part.append(b"hello!"),
            Err(StoreError::TooLong { size: 5 })
        ));
        part.append(b"hallo").unwrap();
        assert!(matches!(part.finish(), Err(StoreError::Digest)));
        assert_eq!(ArtifactStore::open(dir.path()).unwrap().1, Found::default());
    }

    #[test]
    fn what_cannot_fit_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = ArtifactStore::open(dir.path()).unwrap();
        let error = store.part(Digest([1; 32]), u64::MAX / 2).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    }

    #[test]
    fn a_part_longer_than_its_artifact_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = ArtifactStore::open(dir.path()).unwrap();
        let mut part = store.part(Digest([1; 32]), 100).unwrap();
        part.append(&[0; 50]).unwrap();
        drop(part);
        assert_eq!(store.part(Digest([1; 32]), 49).unwrap().received(), 0);
    }
}
