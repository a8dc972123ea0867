//! When a write is acknowledged, a majority would still have it if all power went this moment.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::state_machine_safety::StateMachineSafety;
use super::{Breach, breach};
use crate::store::disk::simulated::Simulated;
use crate::store::log::record::Record;
use crate::store::types::LogId;

/// What a disk holds for certain.
#[derive(Debug, Default)]
pub struct Durable {
    entries: BTreeMap<u64, LogId>,
    /// Everything up to here is in a snapshot.
    snapshot: Option<u64>,
}

impl Durable {
    pub fn of(disk: &Simulated) -> Self {
        let mut durable = Self::default();
        for (name, bytes) in disk.durable_files() {
            if let Some(segment) = name.strip_suffix(".log") {
                let segment = segment.parse().expect("segments are numbered");
                durable.replay(segment, bytes.into());
            } else if let Some((snapshot, _)) = name
                .strip_suffix(".snapshot")
                .and_then(|name| name.split_once('-'))
            {
                durable.snapshot = durable.snapshot.max(snapshot.parse().ok());
            }
        }
        durable
    }

    fn replay(&mut self, segment: u64, mut bytes: Bytes) {
        let mut offset = 0;
        while let Ok((record, taken)) = Record::get(&bytes, segment, offset) {
            match record {
                Record::Entry(entry) => {
                    self.entries.insert(entry.log_id.index, entry.log_id);
                }
                Record::Truncate { from } => drop(self.entries.split_off(&from)),
                Record::Header { .. } | Record::Vote(_) => {}
                Record::Purge(_) | Record::Committed(_) => {}
            }
            offset += taken as u64;
            bytes = bytes.slice(taken..);
        }
    }

    fn holds(&self, id: LogId) -> bool {
        self.entries.get(&id.index) == Some(&id)
            || self.snapshot.is_some_and(|snapshot| snapshot >= id.index)
    }
}

pub fn check(
    revision: u64,
    machines: &StateMachineSafety,
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
    for voters in machines.voters(entry.id.index) {
        let holds = |id: &&u64| disks.get(*id).is_some_and(|disk| disk.holds(entry.id));
        let held = voters.iter().filter(holds).count();
        if held * 2 <= voters.len() {
            return breach(
                name,
                format!(
                    "entry {} is acknowledged, but only {held} of {voters:?} have it for certain",
                    entry.id
                ),
            );
        }
    }
    Ok(())
}
