//! The Raft log on disk: segment files of our own, one writing thread, group commit.
//!
//! Entries and votes flow in from Raft and are acknowledged only after they are synced. Damage to
//! what was acknowledged is never served and never cut off; see docs/decisions/0002-raft-log.md.

pub mod index;
pub mod mark;
pub mod record;
pub mod replay;
pub mod seals;
pub mod segments;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::{Notify, mpsc, oneshot};

use self::index::{Found, Index};
use self::record::Record;
use self::replay::OpenError;
use self::seals::Seals;
use self::segments::{SEGMENT_BYTES, Segments, read_record};
use self::writer::Job;
use super::compaction::Extent;
use super::disk::Disk;
use super::runtime;
use super::seal::keys::{KeyId, Keys};
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::histogram::Histogram;

/// Entries of one append message: with its header it stays under the 4 MiB that a message may be.
/// Also what is read ahead of applying.
const MESSAGE_BYTES: usize = 3 * 1024 * 1024;

/// A handle to the log; clones share it.
#[derive(Clone)]
pub struct Log {
    disk: Arc<dyn Disk>,
    index: Arc<Mutex<Index>>,
    jobs: mpsc::Sender<Job>,
    seals: Seals,
    syncs: Arc<Histogram>,
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index
        .lock()
        .expect("nothing panics while it holds the log's index")
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log's writer has stopped")
}

impl Log {
    /// Opens the log; blocks while it reads all of it.
    pub fn open(disk: Arc<dyn Disk>, keys: Keys) -> Result<Self, OpenError> {
        Self::open_with(disk, SEGMENT_BYTES, keys)
    }

    /// The same, with segments that end at `segment_bytes`.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        keys: Keys,
    ) -> Result<Self, OpenError> {
        let (segments, recovered) = Segments::open(disk.clone(), segment_bytes, keys)?;
        let seals = segments.seals().clone();
        if let Some(cut) = &recovered.cut {
            tracing::warn!(
                file = %cut.path.display(),
                kept_bytes = cut.kept,
                removed_bytes = cut.removed,
                "cut off the end of the Raft log: a write that was interrupted and never acknowledged"
            );
        }
        let index = Arc::new(Mutex::new(Index::new(recovered)));
        let syncs = Arc::<Histogram>::default();
        let jobs = writer::spawn(segments, index.clone(), syncs.clone()).map_err(|source| {
            OpenError::Io {
                path: disk.path(""),
                source,
            }
        })?;
        Ok(Self {
            disk,
            index,
            jobs,
            seals,
            syncs,
        })
    }

    /// How long syncs took since the start.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    /// Syncs and stops the writer. Appends fail from then on.
    pub async fn close(&self) -> io::Result<()> {
        self.run(|done| Job::Stop { done }).await
    }

    /// Has what is written from now on sealed with the first key there is now, and removes segments
    /// that no entry needs.
    pub async fn renew_seal(&self) -> io::Result<()> {
        self.run(|done| Job::RenewSeal { done }).await
    }

    /// For each key, and for none, how many segments are sealed with it.
    pub fn seals(&self) -> BTreeMap<Option<KeyId>, u64> {
        self.seals.count()
    }

    pub fn purged(&self) -> Option<LogId> {
        lock(&self.index).purged()
    }

    /// What the log holds after entry `after`, up to entry `upto`.
    pub fn extent(&self, after: u64, upto: u64) -> Extent {
        lock(&self.index).extent(after, upto)
    }

    /// The last entry before those that, up to `index`, hold at least so many bytes.
    pub fn reaching_back(&self, index: u64, bytes: u64) -> u64 {
        lock(&self.index).reaching_back(index, bytes)
    }

    /// Wakes whoever waits for it after each so many entries or bytes that are appended.
    pub fn grown_by(&self, entries: u64, bytes: u64) -> Arc<Notify> {
        lock(&self.index).grown_by(Extent { entries, bytes })
    }

    /// Runs a job to its end; what it wrote is durable then.
    async fn run(
        &self,
        job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }

    async fn read(&self, first: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let found = lock(&self.index).read(first, end, limit);
        if found.iter().all(|item| matches!(item, Found::Cached(_))) {
            return Ok(found
                .into_iter()
                .filter_map(|item| match item {
                    Found::Cached(entry) => Some(entry),
                    Found::OnDisk(..) => None,
                })
                .collect());
        }
        let this = self.clone();
        runtime::blocking(move || this.load(found)).await?
    }

    fn load(&self, found: Vec<Found>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(found.len());
        for item in found {
            match item {
                Found::Cached(entry) => entries.push(entry),
                Found::OnDisk(id, place) => match read_record(&*self.disk, &self.seals, place) {
                    Ok(Record::Entry(entry)) if entry.log_id == id => entries.push(entry),
                    Ok(_) => {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("entry {id} is not where the index says"),
                        ));
                    }
                    // Purged while this was reading: it need not be there.
                    Err(_) if !lock(&self.index).holds(id) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (first, end) = bounds(&range);
        self.read(first, end, usize::MAX).await
    }

    /// In pieces, so that applying a long log never holds all of it in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (first, end) = bounds(&range);
        let log = self.clone();
        let pieces = stream::try_unfold(first, move |next| {
            let log = log.clone();
            async move {
                let entries = log.read(next, end, MESSAGE_BYTES).await?;
                let following = entries.last().map(|entry| entry.log_id.index + 1);
                Ok::<_, io::Error>(
                    following.map(|next| (stream::iter(entries.into_iter().map(Ok)), next)),
                )
            }
        });
        Box::pin(pieces.try_flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.index).vote())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, MESSAGE_BYTES).await
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let index = lock(&self.index);
        Ok(LogState {
            last_purged_log_id: index.purged(),
            last_log_id: index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.run(|done| Job::Vote { vote: *vote, done }).await?;
        lock(&self.index).set_vote(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with what is appended next: it only spares time at the next start.
        lock(&self.index).set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.index).committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = lock(&self.index);
            for entry in &entries {
                index.append(entry).map_err(|expected| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("entry {} appended where {expected} belongs", entry.log_id),
                    )
                })?;
            }
        }
        self.jobs
            .send(Job::Append {
                entries,
                flushed: callback,
            })
            .await
            .map_err(|_| stopped())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        lock(&self.index).truncate(from);
        self.run(|done| Job::Truncate { from, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        lock(&self.index).purge(log_id);
        self.run(|done| Job::Purge { id: log_id, done }).await
    }
}

#[cfg(test)]
pub mod tests;
