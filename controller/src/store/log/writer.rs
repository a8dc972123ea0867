//! The one thread that writes the log: it takes whatever is waiting, writes it together, syncs once.
//!
//! Jobs come in Raft's order and are answered in that order, each only after its bytes are durable.
//! The thread ends when it is told to, after a last sync.

use std::io;
use std::sync::{Arc, Mutex};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::index::Index;
use super::record::Record;
use super::segments::Segments;
use crate::histogram::Histogram;
use crate::store::codec::entry_size;
use crate::store::runtime::{self, Instant};
use crate::store::types::{Entry, LogId, TypeConfig, Vote};

/// Jobs that may wait. Raft itself bounds what it has in flight; this only keeps a stalled disk
/// from hiding behind a long queue.
const WAITING_JOBS: usize = 256;

/// Bytes written with one sync. More would make the first job of the batch wait for the last.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

pub(super) type Done = oneshot::Sender<io::Result<()>>;

pub(super) enum Job {
    Append {
        entries: Vec<Entry>,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    Truncate {
        from: u64,
        done: Done,
    },
    Purge {
        id: LogId,
        done: Done,
    },
    RenewSeal {
        done: Done,
    },
    Stop {
        done: Done,
    },
}

/// Whom to tell once the batch is durable.
enum Waiting {
    Append(IOFlushed<TypeConfig>),
    Done(Done),
}

pub(super) fn spawn(
    segments: Segments,
    index: Arc<Mutex<Index>>,
    syncs: Arc<Histogram>,
) -> io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel(WAITING_JOBS);
    runtime::dedicated("raft-log", run(segments, index, queue, syncs))?;
    Ok(jobs)
}

async fn run(
    mut segments: Segments,
    index: Arc<Mutex<Index>>,
    mut queue: mpsc::Receiver<Job>,
    syncs: Arc<Histogram>,
) {
    let mut noted = super::lock(&index).committed();
    while let Some(first) = queue.recv().await {
        let mut batch = Batch::default();
        batch.take(first);
        while batch.bytes < BATCH_BYTES
            && batch.stop.is_none()
            && let Ok(job) = queue.try_recv()
        {
            batch.take(job);
        }
        batch.note_committed(&index, &mut noted);
        let result = batch.write(&mut segments, &index, &syncs);
        if let Err(error) = &result {
            tracing::error!(%error, "the Raft log cannot be written");
        }
        for waiting in batch.waiting {
            // io::Error cannot be cloned, and every job of the batch failed by the same one.
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match waiting {
                Waiting::Append(flushed) => flushed.io_completed(result),
                // Whoever asked may have gone; the work is done all the same.
                Waiting::Done(done) => drop(done.send(result)),
            }
        }
        if let Some(done) = batch.stop {
            let closed = segments.close();
            // Releases the directory's lock before anyone hears that it is free.
            drop(segments);
            drop(done.send(closed));
            return;
        }
    }
    // Dropped without a stop: the process ends or gave up. What was acknowledged is durable.
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    waiting: Vec<Waiting>,
    bytes: usize,
    sync: bool,
    purge: bool,
    renew_seal: bool,
    stop: Option<Done>,
}

impl Batch {
    fn take(&mut self, job: Job) {
        match job {
            Job::Append { entries, flushed } => {
                self.bytes += entries.iter().map(entry_size).sum::<usize>();
                self.records.extend(entries.into_iter().map(Record::Entry));
                self.sync = true;
                self.waiting.push(Waiting::Append(flushed));
            }
            Job::Vote { vote, done } => self.durable(Record::Vote(vote), done),
            Job::Truncate { from, done } => self.durable(Record::Truncate { from }, done),
            Job::Purge { id, done } => {
                self.purge = true;
                self.durable(Record::Purge(id), done);
            }
            Job::RenewSeal { done } => {
                self.renew_seal = true;
                self.waiting.push(Waiting::Done(done));
            }
            Job::Stop { done } => self.stop = Some(done),
        }
    }

    /// What is known as committed goes along. By itself it is not worth a write: it only spares
    /// time at the next start.
    fn note_committed(&mut self, index: &Mutex<Index>, noted: &mut Option<LogId>) {
        let committed = super::lock(index).committed();
        if let Some(id) = committed
            && committed != *noted
        {
            self.records.push(Record::Committed(id));
            *noted = committed;
        }
    }

    fn durable(&mut self, record: Record, done: Done) {
        self.records.push(record);
        self.sync = true;
        self.waiting.push(Waiting::Done(done));
    }

    fn write(
        &self,
        segments: &mut Segments,
        index: &Mutex<Index>,
        syncs: &Histogram,
    ) -> io::Result<()> {
        if self.renew_seal {
            segments.renew_seal()?;
        }
        if self.records.is_empty() {
            return Ok(());
        }
        let places = segments.write(&self.records)?;
        {
            let mut index = super::lock(index);
            for (record, place) in self.records.iter().zip(places) {
                if let Record::Entry(entry) = record {
                    index.place(entry.log_id, place);
                }
            }
            index.evict();
        }
        if self.sync {
            let began = Instant::now();
            segments.sync()?;
            syncs.observe(Instant::now() - began);
        }
        if self.purge {
            segments.remove_purged()?;
        }
        Ok(())
    }
}
