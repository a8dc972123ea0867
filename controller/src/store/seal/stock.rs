//! Which keys the files of a replica are sealed with, by their first bytes: without any key, and
//! also while a controller runs on them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::file;
use super::keys::KeyId;
use crate::store::disk::{Directory, Disk};
use crate::store::log::record::{RecordError, get_reference};
use crate::store::log::segments;
use crate::store::snapshot;

/// Enough for the header of a segment.
const FIRST_BYTES: u64 = 1024;

/// For each key, and for none, how many files in a replica's directory are sealed with it.
pub fn seals_of_replica(dir: &Path) -> io::Result<BTreeMap<Option<KeyId>, u64>> {
    let mut counts = BTreeMap::new();
    for part in ["log", "snapshots"] {
        let part = dir.join(part);
        if !part.exists() {
            continue;
        }
        let disk = Directory::shared(&part)?;
        for name in disk.list()? {
            // Segments and snapshots go while this looks.
            match key_of(&disk, &name) {
                Ok(Some(key)) => *counts.entry(key).or_default() += 1,
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(counts)
}

/// Nothing for a file that never holds secrets, or holds nothing yet.
fn key_of(disk: &dyn Disk, name: &str) -> io::Result<Option<Option<KeyId>>> {
    if snapshot::is_snapshot(name) {
        let key = file::key_of(&*disk.open(name)?);
        return Ok(Some(key.map_err(io::Error::from)?));
    }
    let Some(segment) = segments::number(name) else {
        return Ok(None);
    };
    let file = disk.open(name)?;
    let mut bytes = vec![0; file.length()?.min(FIRST_BYTES) as usize];
    file.read_exact_at(0, &mut bytes)?;
    match get_reference(&Bytes::from(bytes), segment) {
        Ok(reference) => Ok(Some(reference.map(|reference| reference.key))),
        // Being made, or torn when it was: nothing follows it.
        Err(RecordError::Short | RecordError::Length) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
