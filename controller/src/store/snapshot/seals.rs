//! With which keys snapshots are sealed, and their copies when another key comes first.
//!
//! Nothing sealed is let go of before its copy is in its place, unless it is damaged and a newer one whole.

use std::collections::BTreeMap;
use std::io;

use super::{SnapshotError, Snapshots, file_name, format, is_snapshot, open_file};
use crate::store::seal::file;
use crate::store::seal::keys::KeyId;

impl Snapshots {
    /// For each key, and for none, how many snapshots are sealed with it. An older one that says
    /// so no more, since it is damaged, opens with no key and is not counted. Blocks.
    pub fn seals(&self) -> Result<BTreeMap<Option<KeyId>, u64>, SnapshotError> {
        let mut counts = BTreeMap::new();
        for name in self.names()? {
            match self.key_of(&name) {
                Ok(Some(key)) => *counts.entry(key).or_default() += 1,
                Ok(None) => {}
                Err(SnapshotError::Damaged { .. }) if self.is_superseded(&name) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counts)
    }

    /// Writes those anew that are not sealed with the first key. Blocks.
    pub fn renew_seals(&self) -> Result<(), SnapshotError> {
        for name in self.names()? {
            match self.renew_seal(&name) {
                Err(SnapshotError::Damaged { what, .. }) if self.is_superseded(&name) => {
                    self.remove_damaged(&name, &what)?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn renew_seal(&self, name: &str) -> Result<(), SnapshotError> {
        let key = self.key_of(name)?;
        if key.is_none_or(|key| key == self.keys.first()) {
            return Ok(());
        }
        let old = open_file(&*self.disk, name, &self.keys)?;
        format::verify(&old.file, &old.path)?;
        let partial = self.copy(&old.file)?;
        let _keeping = self.lock_keeping();
        // One that was removed meanwhile does not come back.
        if self.key_of(name)?.is_some() {
            self.put_in_place(partial, name)?;
        }
        Ok(())
    }

    /// Whether another one has taken its place.
    fn is_superseded(&self, name: &str) -> bool {
        let current = self.current();
        current.is_some_and(|current| file_name(&current.meta).as_str() > name)
    }

    /// Nobody can go back to it, and the key with which it is sealed is to go: it would keep that
    /// from ever being done. The newer one must be whole.
    fn remove_damaged(&self, name: &str, what: &str) -> Result<(), SnapshotError> {
        if let Some(current) = self.current() {
            format::verify(&current.file, &current.path)?;
        }
        let path = self.disk.path(name);
        let io = |source| SnapshotError::Io {
            path: path.clone(),
            source,
        };
        let _keeping = self.lock_keeping();
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => self.disk.sync_directory().map_err(io)?,
        }
        tracing::error!(
            snapshot = %path.display(),
            what,
            "removed a damaged snapshot, which could not be sealed with the first key; \
             the newest one is whole"
        );
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let mut names = self.disk.list().map_err(|source| SnapshotError::Io {
            path: self.disk.path(""),
            source,
        })?;
        names.retain(|name| is_snapshot(name));
        Ok(names)
    }

    /// With what a snapshot is sealed; nothing when it is gone.
    fn key_of(&self, name: &str) -> Result<Option<Option<KeyId>>, SnapshotError> {
        let path = self.disk.path(name);
        match self.disk.open(name) {
            Ok(file) => match file::key_of(&*file) {
                Ok(key) => Ok(Some(key)),
                Err(error) => Err(format::unreadable(&path)(error)),
            },
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SnapshotError::Io { path, source }),
        }
    }
}
