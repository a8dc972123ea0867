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

/// What a disk holds for certain, as it was looked at last.
#[derive(Default)]
pub struct Durable {
    entries: BTreeMap<u64, LogId>,
    /// Everything up to here is in a snapshot.
    snapshot: Option<u64>,
    /// Those that are there, by number.
    segments: BTreeMap<u64, Segment>,
}

/// A file of the log. It is read once: most are as they were at the look before.
struct Segment {
    bytes: Bytes,
    steps: Vec<Step>,
}

/// What a record does to the entries.
enum Step {
    Append(LogId),
    Truncate(u64),
}

impl Durable {
    /// No key is ever taken away, so the same bytes say the same.
    pub fn look(&mut self, disk: &Simulated, keys: &Keys) {
        let mut before = std::mem::take(self);
        for (name, bytes) in disk.durable_files() {
            if let Some(number) = name.strip_suffix(".log") {
                let number: u64 = number.parse().expect("segments are numbered");
                let known = before.segments.remove(&number);
                let known = known.filter(|known| known.bytes == bytes);
                let segment = known.unwrap_or_else(|| Segment::read(number, bytes.into(), keys));
                self.replay(&segment);
                self.segments.insert(number, segment);
            } else if let Some((snapshot, _)) = name
                .strip_suffix(".snapshot")
                .and_then(|name| name.split_once('-'))
            {
                self.snapshot = self.snapshot.max(snapshot.parse().ok());
            }
        }
    }

    fn replay(&mut self, segment: &Segment) {
        for step in &segment.steps {
            match step {
                Step::Append(id) => {
                    self.entries.insert(id.index, *id);
                }
                Step::Truncate(from) => drop(self.entries.split_off(from)),
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

impl Segment {
    fn read(number: u64, bytes: Bytes, keys: &Keys) -> Self {
        let mut records = Records::of(number, bytes.clone(), keys);
        let mut steps = Vec::new();
        while let Some(Ok((record, _))) = records.next() {
            match record {
                Record::Entry(entry) => steps.push(Step::Append(entry.log_id)),
                Record::Truncate { from } => steps.push(Step::Truncate(from)),
                Record::Header { .. } | Record::Vote(_) => {}
                Record::Purge(_) | Record::Committed(_) => {}
            }
        }
        Self { bytes, steps }
    }
}

pub fn check(
    revision: u64,
    machines: &StateMachineSafety,
    logs: &LogMatching,
    disks: &BTreeMap<u64, &Durable>,
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
