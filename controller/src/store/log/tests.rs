#![allow(clippy::unwrap_used)]

mod damage;
pub mod held;
mod power_cuts;
mod raft;
mod sealed;

use std::sync::Arc;

use openraft::EntryPayload;

use super::record::{Record, Standing};
use super::replay::{OpenError, Recovered};
use super::segments::Segments;
use crate::store::disk::simulated::Simulated;
use crate::store::seal::keys::Keys;
use crate::store::types::{Entry, LeaderId, LogId, Proposal, Vote};

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: 1 },
        index,
    }
}

pub(super) fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId { term, node_id: 1 },
        committed: false,
    }
}

/// An entry whose content tells its term and index.
pub(super) fn entry(term: u64, index: u64) -> Entry {
    let content = format!("{{\"entry\":\"{term}-{index}\"}}");
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal::from_encoded(content.into()).unwrap()),
    }
}

pub(super) fn open(disk: &Simulated, keys: &Keys) -> Result<(Segments, Recovered), OpenError> {
    Segments::open(Arc::new(disk.clone()), SMALL_SEGMENT, keys.clone())
}

/// Every rule of the log holds whether it is sealed or not.
pub(super) fn plain_and_sealed() -> [Keys; 2] {
    [Keys::default(), Keys::of(1)]
}

/// So that a few records fill it.
pub(super) const SMALL_SEGMENT: u64 = 700;

/// What a log should hold after some records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub standing: Standing,
    pub entries: Vec<Entry>,
}

impl Model {
    pub fn last(&self) -> Option<LogId> {
        self.entries
            .last()
            .map(|e| e.log_id)
            .or(self.standing.purged)
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Header { .. } => {}
            Record::Entry(entry) => self.entries.push(entry.clone()),
            Record::Vote(vote) => self.standing.vote = Some(*vote),
            Record::Truncate { from } => self.entries.retain(|e| e.log_id.index < *from),
            Record::Purge(id) => {
                self.entries.retain(|e| e.log_id.index > id.index);
                self.standing.purged = Some(*id);
            }
            Record::Committed(id) => self.standing.committed = Some(*id),
        }
    }

    /// What a log on this disk holds, entries read back and checked.
    pub fn read(disk: &Simulated, segments: &Segments, recovered: &Recovered) -> Self {
        let entries = recovered
            .entries
            .iter()
            .map(
                |(id, place)| match super::read_record(disk, segments.seals(), *place).unwrap() {
                    Record::Entry(entry) => {
                        assert_eq!(entry.log_id, *id);
                        entry
                    }
                    other => panic!("{other:?} where entry {id} should be"),
                },
            )
            .collect();
        Self {
            standing: recovered.standing,
            entries,
        }
    }

    /// As recovery gives it: what is committed but not there is not known as committed.
    pub fn recovered(&self) -> Self {
        let mut model = self.clone();
        model.standing.committed = model.standing.committed.min(model.last());
        model
    }
}
