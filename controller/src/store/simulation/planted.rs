//! Faults put in on purpose: the invariants must find each of them.
//!
//! They sit around the store, in what only a simulation puts there: the program that is shipped
//! holds no switch that could turn one on.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use futures::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use crate::store::log::Log;
use crate::store::types::{Entry, LogId, TypeConfig, Vote};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The disk is told to sync, and is not waited for.
    SkipSync,
    /// The leader takes what it sent for what arrived.
    AcknowledgeBeforeCommit,
    /// One that has nothing counts as having everything.
    QuorumMinusOne,
    /// Entries are applied again after others.
    ApplyTwice,
    /// A vote is not on disk when it is given.
    ForgetVote,
    /// Reads are answered from what is applied here, without asking the leader.
    StaleRead,
}

/// A log that does what it should, but for what is planted.
#[derive(Clone)]
pub struct PlantedLog {
    log: Log,
    planted: Option<Planted>,
}

pub fn log(log: Log, planted: Option<Planted>) -> PlantedLog {
    PlantedLog { log, planted }
}

/// Entries between an entry and its second time.
const LATER: u64 = 3;

impl RaftLogReader<TypeConfig> for PlantedLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log.try_get_log_entries(range).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut entries = Vec::new();
        match self.log.try_get_log_entries(range).await {
            Err(error) => entries.push(Err(error)),
            Ok(read) => {
                for entry in read {
                    let index = entry.log_id.index;
                    if self.planted == Some(Planted::ApplyTwice) && index % 5 == 0 {
                        let again = index.saturating_sub(LATER);
                        let again = self.log.try_get_log_entries(again..=again).await;
                        entries.extend(again.into_iter().flatten().map(Ok));
                    }
                    entries.push(Ok(entry));
                }
            }
        }
        stream::iter(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for PlantedLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if self.planted == Some(Planted::ForgetVote) {
            return Ok(());
        }
        self.log.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.log.read_committed().await
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
        self.log.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last_log_id).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.log.purge(log_id).await
    }
}
