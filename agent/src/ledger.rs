//! What the agent remembers through a restart: what it must run, and what its functions used.
//!
//! Each goes in and comes out whole, under a checksum, because redb finds flipped bits only when
//! asked. A write that changes nothing never reaches the flash. Keys, certificates, artifacts and
//! the controllers' addresses are files of their own: with them, a ledger that is lost comes again.

mod postponed;

use std::fs::{self, OpenOptions};
use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use hive_proto::v1;
use prost::Message;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, TableDefinition};

use crate::desired::DesiredSet;
use crate::ids::Digest;
use crate::os;
use postponed::Postponed;

const FILE: &str = "ledger.redb";
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("ledger");
const DESIRED: &str = "desired";
const METERING: &str = "metering";

/// redb's default is 1 GiB. The whole ledger has some kilobytes.
const CACHE_BYTES: usize = 1 << 20;

/// The ledger's file. One process at a time has it open.
pub struct Ledger {
    path: PathBuf,
    database: Database,
    disk: Postponed,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("another agent is running on {}", .0.display())]
    InUse(PathBuf),
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged ({what}): move it away, and the agent gets what it must run from its \
         controllers again", .path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        source: Box<redb::Error>,
    },
}

impl Ledger {
    /// Opens the ledger in `dir`, or makes it. Of one that is there the disk is only read: the rest is for
    /// [`Ledger::settle`].
    pub fn open(dir: &Path) -> Result<(Self, DesiredSet), LedgerError> {
        let path = dir.join(FILE);
        let io_error = |source| LedgerError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        let is_new = file.metadata().map_err(io_error)?.len() == 0;
        let file = FileBackend::new(file).map_err(|error| open_error(&path, error))?;
        let opened = Self::open_on(&path, file, is_new)?;
        if is_new {
            // Else a power cut can take the file's name, and all that was committed to it.
            os::sync_directory(dir).map_err(io_error)?;
        }
        Ok(opened)
    }

    fn open_on(
        path: &Path,
        disk: impl StorageBackend,
        is_new: bool,
    ) -> Result<(Self, DesiredSet), LedgerError> {
        let failed = |error| open_error(path, error);
        let disk = Postponed::new(disk);
        if is_new {
            // There is nothing to be read before it is made.
            disk.settle().map_err(|error| failed(error.into()))?;
        }
        let mut database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(disk.clone())
            .map_err(failed)?;
        // The file is small enough to be read whole at each start.
        if !is_new && !database.check_integrity().map_err(failed)? {
            tracing::warn!(path = %path.display(), "the ledger needed and got repair");
        }
        let ledger = Self {
            path: path.to_owned(),
            database,
            disk,
        };
        let desired = ledger.desired()?;
        Ok((ledger, desired))
    }

    /// Makes durable what was read of it, also what a killed agent wrote and did not sync. Until then a power
    /// cut may take it back, so nobody beyond this machine is to be told. Blocks for some disk syncs.
    pub fn settle(&self) -> Result<(), LedgerError> {
        self.disk
            .settle()
            .map_err(|error| self.not_written(error.into()))
    }

    /// Like [`Ledger::open`], but a damaged ledger is moved aside and a new one started: all in
    /// it comes again from the controllers. The error that led to this comes along, to be told.
    pub fn open_or_start_over(
        dir: &Path,
    ) -> Result<(Self, DesiredSet, Option<LedgerError>), LedgerError> {
        match Self::open_or_catch(dir) {
            Ok((ledger, desired)) => Ok((ledger, desired, None)),
            Err(damage @ LedgerError::Damaged { .. }) => {
                let path = dir.join(FILE);
                // One is kept, for whoever wants to know; disks of phones are small.
                let aside = dir.join(format!("{FILE}.damaged"));
                fs::rename(&path, &aside).map_err(|source| LedgerError::Io { path, source })?;
                let (ledger, desired) = Self::open(dir)?;
                Ok((ledger, desired, Some(damage)))
            }
            Err(error) => Err(error),
        }
    }

    /// With debug assertions redb panics over some damage that it reports without them. A build that
    /// aborts on panic has none.
    fn open_or_catch(dir: &Path) -> Result<(Self, DesiredSet), LedgerError> {
        catch_unwind(|| Self::open(dir)).unwrap_or_else(|_| {
            Err(LedgerError::Damaged {
                path: dir.join(FILE),
                what: "redb gave up on it".to_owned(),
            })
        })
    }

    /// Durable on return.
    pub fn save_desired(&self, desired: &DesiredSet) -> Result<(), LedgerError> {
        self.put(DESIRED, &desired.encode().encode_to_vec())
    }

    /// Durable on return.
    pub fn save_metering(&self, book: &v1::MeteringBook) -> Result<(), LedgerError> {
        self.put(METERING, &book.encode_to_vec())
    }

    /// As it was saved last; `None` where it never was.
    pub fn metering(&self) -> Result<Option<v1::MeteringBook>, LedgerError> {
        let Some(bytes) = self.get(METERING)? else {
            return Ok(None);
        };
        v1::MeteringBook::decode(&bytes[..])
            .map(Some)
            .map_err(|error| self.damaged(format!("{METERING}: {error}")))
    }

    fn desired(&self) -> Result<DesiredSet, LedgerError> {
        let Some(bytes) = self.get(DESIRED)? else {
            return Ok(DesiredSet::none());
        };
        let message = v1::Desired::decode(&bytes[..])
            .map_err(|error| self.damaged(format!("{DESIRED}: {error}")))?;
        DesiredSet::decode(message).map_err(|refused| self.damaged(format!("{DESIRED}: {refused}")))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(TABLE) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        let Some(sealed) = read().map_err(|error| self.damaged(error.to_string()))? else {
            return Ok(None);
        };
        unseal(key, &sealed)
            .map(|payload| Some(payload.to_vec()))
            .ok_or_else(|| self.damaged(format!("{key}: wrong checksum")))
    }

    fn put(&self, key: &str, payload: &[u8]) -> Result<(), LedgerError> {
        self.settle()?;
        if self
            .get(key)
            .is_ok_and(|held| held.as_deref() == Some(payload))
        {
            return Ok(());
        }
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction
                .open_table(TABLE)?
                .insert(key, &seal(key, payload)[..])?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.not_written(error))
    }

    fn not_written(&self, error: redb::Error) -> LedgerError {
        LedgerError::Write {
            path: self.path.clone(),
            source: Box::new(error),
        }
    }

    fn damaged(&self, what: String) -> LedgerError {
        LedgerError::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

fn open_error(path: &Path, error: DatabaseError) -> LedgerError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse(path.into()),
        DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData
                && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            LedgerError::Io {
                path: path.into(),
                source,
            }
        }
        other => LedgerError::Damaged {
            path: path.into(),
            what: other.to_string(),
        },
    }
}

/// The checksum covers the key too: a value under another's key is as wrong as a flipped bit.
fn seal(key: &str, payload: &[u8]) -> Vec<u8> {
    let mut sealed = checksum(key, payload).0.to_vec();
    sealed.extend_from_slice(payload);
    sealed
}

fn unseal<'a>(key: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, payload) = sealed.split_first_chunk::<32>()?;
    (*sum == checksum(key, payload).0).then_some(payload)
}

fn checksum(key: &str, payload: &[u8]) -> Digest {
    Digest::of(&[key.as_bytes(), b"\0", payload].concat())
}

#[cfg(test)]
mod cuts;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_proto::desired::{EncodedAssignment, desired_hash};

    use super::*;

    pub(super) fn some_set() -> DesiredSet {
        let assignment = EncodedAssignment::new(v1::Assignment {
            namespace: "default".into(),
            name: "hello-1".into(),
            function: "hello".into(),
            ..Default::default()
        });
        DesiredSet {
            epoch: 1,
            generation: 7,
            hash: Digest(desired_hash([&assignment])),
            assignments: vec![assignment],
        }
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, empty) = Ledger::open(dir.path()).unwrap();
        assert_eq!(empty, DesiredSet::none());
        ledger.save_desired(&some_set()).unwrap();
        drop(ledger);

        let (_, desired) = Ledger::open(dir.path()).unwrap();
        assert_eq!(desired, some_set());
    }

    #[test]
    fn what_is_there_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.save_desired(&some_set()).unwrap();
        let before = fs::read(dir.path().join(FILE)).unwrap();
        ledger.save_desired(&some_set()).unwrap();
        assert!(fs::read(dir.path().join(FILE)).unwrap() == before);
    }

    #[test]
    fn a_second_agent_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Ledger::open(dir.path()).unwrap();
        assert!(matches!(
            Ledger::open(dir.path()),
            Err(LedgerError::InUse(_))
        ));
    }

    #[test]
    fn a_flipped_bit_is_found_and_a_new_ledger_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.save_desired(&some_set()).unwrap();
        drop(ledger);

        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(7).position(|w| w == b"hello-1").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();

        let message = Ledger::open(dir.path()).err().unwrap().to_string();
        assert!(message.contains("ledger.redb is damaged"), "{message}");
        let (_, desired, damage) = Ledger::open_or_start_over(dir.path()).unwrap();
        assert!(damage.is_some());
        assert_eq!(desired, DesiredSet::none());
        assert!(dir.path().join("ledger.redb.damaged").exists());
    }

    #[test]
    fn a_file_that_is_no_ledger_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"not a database at all").unwrap();
        let (_, desired, damage) = Ledger::open_or_start_over(dir.path()).unwrap();
        assert!(matches!(damage, Some(LedgerError::Damaged { .. })));
        assert_eq!(desired, DesiredSet::none());
    }

    /// Whatever a dying disk makes of the file, the agent starts.
    #[test]
    fn no_damage_keeps_the_agent_from_starting() {
        let origin = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(origin.path()).unwrap();
        ledger.save_desired(&some_set()).unwrap();
        drop(ledger);
        let whole = fs::read(origin.path().join(FILE)).unwrap();

        let cuts = [
            0,
            1,
            9,
            100,
            512,
            4095,
            4096,
            8192,
            whole.len() / 2,
            whole.len() - 1,
        ];
        let cut = cuts.iter().map(|at| whole[..*at].to_vec());
        // Every part of both commit slots in the header, and pages beyond it.
        let flipped = (0..512)
            .step_by(41)
            .chain((4096..whole.len()).step_by(whole.len() / 16));
        let flipped = flipped.map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let zeroed = (0..whole.len()).step_by(whole.len() / 8).map(|at| {
            let mut bytes = whole.clone();
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
            bytes
        });
        for bytes in cut.chain(flipped).chain(zeroed) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), bytes).unwrap();
            let (ledger, desired, _) = Ledger::open_or_start_over(dir.path()).unwrap();
            assert!(desired == some_set() || desired == DesiredSet::none());
            ledger.save_desired(&some_set()).unwrap();
        }
    }

    #[test]
    fn a_value_under_another_key_is_refused() {
        assert_eq!(unseal("a", &seal("a", b"x")), Some(&b"x"[..]));
        assert_eq!(unseal("b", &seal("a", b"x")), None);
        assert_eq!(unseal("a", b"short"), None);
    }
}
