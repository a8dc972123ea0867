//! What can go wrong in a simulation, and how often it did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The power goes: what was not synced is lost in part.
    PowerCut,
    /// The power goes in the middle of something that the disk does.
    TornWrite,
    /// The process is killed, and the system's cache survives.
    Killed,
    /// Stopped for a while without noticing.
    Paused,
    ClockJump,
    SlowDisk,
    DiskFull,
    SyncFailed,
    /// Cut off from everyone.
    Isolated,
    /// Heard by nobody, but hearing, or the other way round.
    OneWay,
    /// The members in two groups.
    Split,
    Lost,
    Late,
    Twice,
    Snapshot,
    Compaction,
    SnapshotInstalled,
    MemberAdded,
    MemberRemoved,
    LeaderHandedOver,
    /// Disks are sealed with another key from now on.
    KeyChanged,
}

impl Fault {
    pub const ALL: [Fault; 21] = [
        Fault::PowerCut,
        Fault::TornWrite,
        Fault::Killed,
        Fault::Paused,
        Fault::ClockJump,
        Fault::SlowDisk,
        Fault::DiskFull,
        Fault::SyncFailed,
        Fault::Isolated,
        Fault::OneWay,
        Fault::Split,
        Fault::Lost,
        Fault::Late,
        Fault::Twice,
        Fault::Snapshot,
        Fault::Compaction,
        Fault::SnapshotInstalled,
        Fault::MemberAdded,
        Fault::MemberRemoved,
        Fault::LeaderHandedOver,
        Fault::KeyChanged,
    ];
}

/// Counts faults where they take effect, not where they are ordered.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<Fault, u64>>>);

impl Seen {
    pub fn happened(&self, fault: Fault) {
        *self
            .0
            .lock()
            .expect("no panics inside")
            .entry(fault)
            .or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.0.lock().expect("no panics inside").clone()
    }
}
