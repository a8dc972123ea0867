//! The file, and the two threads that use it.
//!
//! Requests come in over bounded queues; what has come together is written with one sync, and answered
//! after it. Every entry has a checksum, because redb finds flipped bits only when asked. Nothing here
//! knows what a function is: places are names.

mod file;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use hive_functions::{Entry, KeyValueError, Write};
use tokio::sync::{mpsc, oneshot};

use super::OpenError;
use file::File;

/// Requests that wait for a thread; more wait where they were made, in guests whose time runs.
const WAITING: usize = 256;

/// Writes that share a sync at most: what is answered together waits together.
const TOGETHER: usize = 64;

/// A bucket of a function.
#[derive(Clone, Debug)]
pub struct Place {
    pub function: Arc<str>,
    pub bucket: String,
}

/// A clone is the same. The threads end with the last one.
#[derive(Clone)]
pub struct Store {
    reads: mpsc::Sender<Read>,
    changes: mpsc::Sender<Change>,
}

type Answer<T> = oneshot::Sender<Result<T, KeyValueError>>;

enum Read {
    Get(Place, Vec<String>, Answer<Vec<Option<Entry>>>),
    List(Place, Option<String>, Answer<Vec<String>>),
}

enum Change {
    Apply(Batch, Answer<bool>),
    Retain(BTreeSet<String>, u64, Answer<Vec<String>>),
}

/// Writes that happen together or not at all.
struct Batch {
    place: Place,
    /// Of all that the function keeps, in bytes.
    quota: u64,
    writes: Vec<Write>,
    now: u64,
}

impl Store {
    /// Opens the file or makes it, and reads it whole. Blocks.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = Arc::new(File::open(path)?);
        let (reads, asked) = mpsc::channel(WAITING);
        let (changes, to_do) = mpsc::channel(WAITING);
        let io_error = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let reader = file.clone();
        thread::Builder::new()
            .name("keyvalue-read".to_owned())
            .spawn(move || read(&reader, asked))
            .map_err(io_error)?;
        thread::Builder::new()
            .name("keyvalue-write".to_owned())
            .spawn(move || write(&file, to_do))
            .map_err(io_error)?;
        Ok(Self { reads, changes })
    }

    pub async fn get(
        &self,
        place: Place,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Entry>>, KeyValueError> {
        asked(&self.reads, |answer| Read::Get(place, keys, answer)).await
    }

    pub async fn list(
        &self,
        place: Place,
        after: Option<String>,
    ) -> Result<Vec<String>, KeyValueError> {
        asked(&self.reads, |answer| Read::List(place, after, answer)).await
    }

    /// Durable when it is answered.
    pub async fn apply(
        &self,
        place: Place,
        quota: u64,
        writes: Vec<Write>,
        now: u64,
    ) -> Result<bool, KeyValueError> {
        let batch = Batch {
            place,
            quota,
            writes,
            now,
        };
        asked(&self.changes, |answer| Change::Apply(batch, answer)).await
    }

    /// Removes what is of no function of `wanted` and was of none for long; whose it was.
    pub async fn retain(
        &self,
        wanted: BTreeSet<String>,
        now: u64,
    ) -> Result<Vec<String>, KeyValueError> {
        asked(&self.changes, |answer| Change::Retain(wanted, now, answer)).await
    }
}

async fn asked<Q, T>(
    queue: &mpsc::Sender<Q>,
    question: impl FnOnce(Answer<T>) -> Q,
) -> Result<T, KeyValueError> {
    let gone = || KeyValueError::Store("its thread has ended".to_owned());
    let (answer, answered) = oneshot::channel();
    let asked = queue.send(question(answer)).await;
    asked.map_err(|_| gone())?;
    answered.await.unwrap_or_else(|_| Err(gone()))
}

/// Answers who asks until nobody can any more. Who has gone away meanwhile is no error.
fn read(file: &File, mut asked: mpsc::Receiver<Read>) {
    while let Some(question) = asked.blocking_recv() {
        match question {
            Read::Get(place, keys, answer) => _ = answer.send(file.get(&place, &keys)),
            Read::List(place, after, answer) => {
                _ = answer.send(file.list(&place, after.as_deref()));
            }
        }
    }
}

fn write(file: &File, mut to_do: mpsc::Receiver<Change>) {
    let mut next = None;
    while let Some(change) = next.take().or_else(|| to_do.blocking_recv()) {
        match change {
            Change::Retain(wanted, now, answer) => _ = answer.send(file.retain(&wanted, now)),
            Change::Apply(batch, answer) => {
                let (mut batches, mut answers) = (vec![batch], vec![answer]);
                while batches.len() < TOGETHER {
                    match to_do.try_recv() {
                        Ok(Change::Apply(batch, answer)) => {
                            batches.push(batch);
                            answers.push(answer);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                for (answer, outcome) in answers.into_iter().zip(file.apply(batches)) {
                    _ = answer.send(outcome);
                }
            }
        }
    }
}
