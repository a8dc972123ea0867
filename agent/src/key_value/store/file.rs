//! The tables of the file, and what is read from and written to them in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use hive_functions::{Entry, Expected, KeyValueError, MAX_BATCH_BYTES, PAGE};
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition, TableError,
};

use super::super::OpenError;
use super::super::retention::{self, Step};
use super::{Batch, Place};
use crate::ids::Digest;
use crate::os;

/// By function, bucket and key: version, checksum, value.
const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");
/// By function: the bytes that it keeps, and when it was last noted as wanted, in seconds.
const FUNCTIONS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("functions");
/// The version that was given last.
const LAST: TableDefinition<&str, u64> = TableDefinition::new("last");
const VERSION: &str = "version";

/// redb's default is 1 GiB. What is asked for again and again is small.
const CACHE_BYTES: usize = 4 << 20;

const CHECKSUM_BYTES: usize = 32;

/// What an entry counts besides its key and value: about what it takes on the disk.
const ENTRY_BYTES: usize = 64;

/// Before the value: version and checksum.
const HEADER_BYTES: usize = 8 + CHECKSUM_BYTES;

pub struct File {
    path: PathBuf,
    /// None after an error of the disk, until it can be opened again: redb goes on with none.
    database: RwLock<Option<Database>>,
}

type Readable = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Entries<'a> = Table<'a, &'static [u8], &'static [u8]>;
type Functions<'a> = Table<'a, &'static str, (u64, u64)>;

impl File {
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        if !path.try_exists().map_err(io_error)? {
            make(path)?;
        }
        // Else a power cut can take the file's name, and all that was committed to it. Also of a file
        // that is there: who made it may have ended before this.
        let directory = path.parent().unwrap_or(Path::new("."));
        os::sync_directory(directory).map_err(io_error)?;
        let mut database = database(path).map_err(|error| open_error(path, error))?;
        if !database
            .check_integrity()
            .map_err(|error| open_error(path, error))?
        {
            // What was damaged can be the last that was written.
            tracing::error!(path = %path.display(), "the functions' stores were damaged and repaired");
        }
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
        })
    }

    pub fn get(&self, place: &Place, keys: &[String]) -> Result<Vec<Option<Entry>>, KeyValueError> {
        let Some(entries) = self.entries()? else {
            return Ok(vec![None; keys.len()]);
        };
        let mut bytes = 0;
        let one = |key: &String| {
            let key = place.key(key);
            let found = entries
                .get(&key[..])
                .map_err(|error| self.told(error.into()))?;
            let Some(found) = found else {
                return Ok(None);
            };
            bytes += found.value().len().saturating_sub(HEADER_BYTES);
            if bytes > MAX_BATCH_BYTES {
                return Err(KeyValueError::TooMuch);
            }
            let entry = unsealed(&key, found.value());
            entry.map(Some).ok_or_else(|| self.damaged(&place.function))
        };
        keys.iter().map(one).collect()
    }

    pub fn list(&self, place: &Place, after: Option<&str>) -> Result<Vec<String>, KeyValueError> {
        let Some(entries) = self.entries()? else {
            return Ok(Vec::new());
        };
        let prefix = place.key("");
        let start = match after {
            // The first key behind it: no key ends in its place.
            Some(after) => [&place.key(after)[..], b"\0"].concat(),
            None => prefix.clone(),
        };
        let end = place.end();
        let told = |error: StorageError| self.told(error.into());
        let mut keys = Vec::new();
        for entry in entries
            .range(&start[..]..&end[..])
            .map_err(told)?
            .take(PAGE)
        {
            let (key, _) = entry.map_err(told)?;
            let key = std::str::from_utf8(&key.value()[prefix.len()..]);
            keys.push(key.map_err(|_| self.damaged(&place.function))?.to_owned());
        }
        Ok(keys)
    }

    /// What became of each batch, in their order; durable on return. One that is refused is as if it
    /// had not been asked for; if the disk fails, none of them happened.
    pub fn apply(&self, batches: Vec<Batch>) -> Vec<Result<bool, KeyValueError>> {
        let count = batches.len();
        let written = self.within(|database| {
            let transaction = database.begin_write()?;
            let outcomes = {
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut functions = transaction.open_table(FUNCTIONS)?;
                let mut last = transaction.open_table(LAST)?;
                let mut version = last.get(VERSION)?.map_or(0, |it| it.value());
                let mut outcomes = Vec::with_capacity(count);
                for batch in &batches {
                    outcomes.push(batch.write(&mut entries, &mut functions, &mut version)?);
                }
                last.insert(VERSION, version)?;
                outcomes
            };
            // A batch of refusals is not worth a sync.
            if outcomes.iter().any(|outcome| matches!(outcome, Ok(true))) {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(outcomes)
        });
        written.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Removes what nobody wants any more; whose it was.
    pub fn retain(
        &self,
        wanted: &BTreeSet<String>,
        now: u64,
    ) -> Result<Vec<String>, KeyValueError> {
        self.within(|database| {
            let transaction = database.begin_write()?;
            let mut removed = Vec::new();
            let steps = {
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut functions = transaction.open_table(FUNCTIONS)?;
                let steps = retention::plan(&held(&functions)?, wanted, now);
                for step in &steps {
                    match step {
                        Step::Note(function) => {
                            let used = functions.get(&**function)?.map_or(0, |it| it.value().0);
                            functions.insert(&**function, (used, now))?;
                        }
                        Step::Remove(function) => {
                            let (start, end) = all_of(function);
                            entries.retain_in(&start[..]..&end[..], |_, _| false)?;
                            functions.remove(&**function)?;
                            removed.push(function.clone());
                        }
                    }
                }
                steps
            };
            if steps.is_empty() {
                transaction.abort()?;
            } else {
                transaction.commit()?;
            }
            Ok(removed)
        })
    }

    /// None before anything was written.
    fn entries(&self) -> Result<Option<Readable>, KeyValueError> {
        self.within(|database| {
            let transaction = database.begin_read()?;
            match transaction.open_table(ENTRIES) {
                Ok(entries) => Ok(Some(entries)),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn within<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, KeyValueError> {
        let mut database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            drop(database);
            self.open_again()?;
            database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let outcome = match &*database {
            Some(database) => act(database),
            None => Err(redb::Error::PreviousIo),
        };
        drop(database);
        outcome.map_err(|error| {
            // Nothing of this transaction is there. redb refuses all that follow on the same file.
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                *self
                    .database
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = None;
            }
            self.told(error)
        })
    }

    fn open_again(&self) -> Result<(), KeyValueError> {
        let mut held = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(database(&self.path).map_err(|error| self.told(error.into()))?);
        }
        Ok(())
    }

    /// In words for guests; what it was exactly is for the agent's log.
    fn told(&self, error: redb::Error) -> KeyValueError {
        tracing::warn!(path = %self.path.display(), %error, "the functions' stores");
        match error {
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                KeyValueError::DiskFull
            }
            _ => {
                KeyValueError::Store("its disk or file fails; the agent's log says how".to_owned())
            }
        }
    }

    fn damaged(&self, function: &str) -> KeyValueError {
        tracing::error!(path = %self.path.display(), function, "an entry has a wrong checksum");
        KeyValueError::Store("this entry is damaged: write or remove it".to_owned())
    }
}

impl Batch {
    /// False, or a refusal, and nothing is changed.
    fn write(
        &self,
        entries: &mut Entries<'_>,
        functions: &mut Functions<'_>,
        version: &mut u64,
    ) -> Result<Result<bool, KeyValueError>, redb::Error> {
        // What is said of a key last is what holds.
        let writes: BTreeMap<_, _> = self.writes.iter().map(|it| (&it.key, it)).collect();
        let function = &*self.place.function;
        let (before, noted) = functions
            .get(function)?
            .map_or((0, self.now), |it| it.value());
        let mut used = before;
        for write in writes.values() {
            let there = entries.get(&self.place.key(&write.key)[..])?;
            let there = there.as_ref().map(|it| it.value());
            if !is_met(write.expected, there.and_then(version_of)) {
                return Ok(Ok(false));
            }
            let was = there.map_or(0, |it| {
                size(&write.key, it.len().saturating_sub(HEADER_BYTES))
            });
            let will_be = write
                .value
                .as_ref()
                .map_or(0, |it| size(&write.key, it.len()));
            used = used.saturating_sub(was) + will_be;
        }
        // Who is over it already, because it was lowered, may shrink.
        if used > self.quota && used > before {
            return Ok(Err(KeyValueError::Quota(self.quota)));
        }
        for write in writes.values() {
            let key = self.place.key(&write.key);
            match &write.value {
                None => drop(entries.remove(&key[..])?),
                Some(value) => {
                    *version += 1;
                    entries.insert(&key[..], &sealed(&key, *version, value)[..])?;
                }
            }
        }
        functions.insert(function, (used, noted))?;
        Ok(Ok(true))
    }
}

/// What an entry of this key counts with a value of so many bytes.
fn size(key: &str, value: usize) -> u64 {
    (ENTRY_BYTES + key.len() + value) as u64
}

fn is_met(expected: Option<Expected>, version: Option<u64>) -> bool {
    match expected {
        None => true,
        Some(Expected::Nothing) => version.is_none(),
        Some(Expected::Version(expected)) => version == Some(expected),
    }
}

impl Place {
    /// Names of functions and buckets have no zero byte, so nobody's key begins as another's place.
    fn key(&self, key: &str) -> Vec<u8> {
        let parts = [
            self.function.as_bytes(),
            self.bucket.as_bytes(),
            key.as_bytes(),
        ];
        parts.join(&0)
    }

    /// Behind all keys of the bucket.
    fn end(&self) -> Vec<u8> {
        let mut end = self.key("");
        if let Some(last) = end.last_mut() {
            *last = 1;
        }
        end
    }
}

/// From the first key of a function to behind its last.
fn all_of(function: &str) -> (Vec<u8>, Vec<u8>) {
    let bounded = |end: u8| [function.as_bytes(), &[end]].concat();
    (bounded(0), bounded(1))
}

fn held(functions: &Functions<'_>) -> Result<BTreeMap<String, u64>, redb::Error> {
    let mut held = BTreeMap::new();
    for row in functions.iter()? {
        let (function, row) = row?;
        held.insert(function.value().to_owned(), row.value().1);
    }
    Ok(held)
}

/// The checksum covers the key too: a value under another's key is as wrong as a flipped bit.
fn sealed(key: &[u8], version: u64, value: &[u8]) -> Vec<u8> {
    let version = version.to_be_bytes();
    [&version[..], &checksum(key, version, value).0, value].concat()
}

fn unsealed(key: &[u8], sealed: &[u8]) -> Option<Entry> {
    let (version, rest) = sealed.split_first_chunk::<8>()?;
    let (sum, value) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    (*sum == checksum(key, *version, value).0).then(|| Entry {
        value: value.to_vec(),
        version: u64::from_be_bytes(*version),
    })
}

fn version_of(sealed: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*sealed.first_chunk()?))
}

fn checksum(key: &[u8], version: [u8; 8], value: &[u8]) -> Digest {
    Digest::of(&[key, b"\0", &version, value].concat())
}

/// Makes the file whole under another name: redb takes one that a power cut left half made for damaged.
fn make(path: &Path) -> Result<(), OpenError> {
    let io_error = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    // It is synced when redb gives it back.
    drop(database(&unfinished).map_err(|error| open_error(&unfinished, error))?);
    std::fs::rename(&unfinished, path).map_err(io_error)
}

fn database(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData
                && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            OpenError::Io { path, source }
        }
        other => OpenError::Damaged {
            path,
            what: other.to_string(),
        },
    }
}
