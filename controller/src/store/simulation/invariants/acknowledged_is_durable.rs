//! When a write is acknowledged, a majority would still have it if all power went this moment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::log_matching::LogMatching;
use super::state_machine_safety::StateMachineSafety;
use super::{Breach, breach};
use crate::store::disk::simulated::Simulated;
use crate::store::log::record::{Record, Records};
use crate::store::seal::keys::Keys;
use crate::store::types::LogId;

/// What a disk holds for certain.
#[derive(Debug, Default)]
pub struct Durable {
    entries: BTreeMap<u64, LogId>,
    /// Everything up to here is in a snapshot.
    snapshot: Option<u64>,
}

impl Durable {
    pub fn of(disk: &Simulated, keys: &Keys) -> Self {
        let mut durable = Self::default();
        for (name, bytes) in disk.durable_files() {
            if let Some(segment) = name.strip_suffix(".log") {
                let segment = segment.parse().expect("segments are numbered");
                durable.replay(segment, bytes.into(), keys);
            } else if let Some((snapshot, _)) = name
                .strip_suffix(".snapshot")
                .and_then(|name| name.split_once('-'))
            {
                durable.snapshot = durable.snapshot.max(snapshot.parse().ok());
            }
        }
        durable
    }

    fn replay(&mut self, segment: u64, bytes: Bytes, keys: &Keys) {
        let mut records = Records::of(segment, bytes, keys);
        while let Some(Ok((record, _))) = records.next() {
            match record {
                Record::Entry(entry) => {
                    self.entries.insert(entry.log_id.index, entry.log_id);
                }
                Record::Truncate { from } => drop(self.entries.split_off(&from)),
                Record::Header { .. } | Record::Vote(_) => {}
                Record::Purge(_) | Record::Committed(_) => {}
            }
        }
    }

    /// The first and last entry, and the newest snapshot.
    fn ends(&self) -> (Option<&LogId>, Option<&LogId>, Option<u64>) {
        let first = self.entries.values().next();
        (first, self.entries.values().next_back(), self.snapshot)
    }

    fn holds(&self, id: LogId) -> bool {
        self.entries.get(&id.index) == Some(&id)
            || self.snapshot.is_some_and(|snapshot| snapshot >= id.index)
    }
}

pub fn check(
    revision: u64,
    machines: &StateMachineSafety,
    logs: &LogMatching,
    disks: &BTreeMap<u64, Durable>,
) -> Result<(), Breach> {
    let name = "acknowledged_is_durable";
    let entry = machines
        .committed()
        .values()
        .find(|entry| entry.revision == revision);
    let Some(entry) = entry else {
        return breach(
            name,
            format!("revision {revision} is acknowledged, but nobody applied it"),
        );
    };
    let holds = |id: &&u64| disks.get(*id).is_some_and(|disk| disk.holds(entry.id));
    let majority = |set: &BTreeSet<u64>| set.iter().filter(holds).count() * 2 > set.len();
    // Those who vote by a later entry decide also of what is before it, once all those of the
    // entry before have it: also then a majority of theirs must hold this one.
    let mut voters = logs.voters_behind(entry.id.index);
    voters.push(machines.voters(entry.id.index));
    if voters.iter().any(|sets| sets.iter().all(majority)) {
        return Ok(());
    }
    let ends: Vec<_> = disks.iter().map(|(id, disk)| (id, disk.ends())).collect();
    breach(
        name,
        format!(
            "entry {} is acknowledged, but no majority of {voters:?} has it for certain: {ends:?}",
            entry.id
        ),
    )
}
