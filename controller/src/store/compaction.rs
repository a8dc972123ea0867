//! When a snapshot is taken, and how much of the log before it stays: by entries and by bytes.
//!
//! What log and snapshots hold goes in, steps come out ([`plan`]); [`follow`] takes them. It never
//! removes what no snapshot holds, nor what the last snapshot but one needs to be started from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::RaftNode;
use super::log::Log;
use super::machine::Applied;
use super::snapshot::Snapshots;

/// A snapshot is made this often. It holds every object, so more often costs a busy swarm with many
/// of them dearly; a start replays no more than this, which takes a fraction of a second.
const ENTRIES: u64 = 50_000;

/// Or when the log since the last one has so many bytes, or as many as that snapshot: then a disk
/// holds a small multiple of the state at most, and no byte of state is written more than once for
/// each byte of log. A start reads two of these: some three seconds from an SD card.
const BYTES: u64 = 64 * 1024 * 1024;

/// How often the plan is looked at while the log grows: the bounds are overshot by no more.
const STEPS: u64 = 16;

/// How much log there may be between two snapshots, and how much stays behind the newest.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub entries: u64,
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: ENTRIES,
            bytes: BYTES,
        }
    }
}

impl Bounds {
    /// The log says that it grew after so many entries or bytes.
    fn step(self) -> Self {
        Self {
            entries: (self.entries / STEPS).max(1),
            bytes: (self.bytes / STEPS).max(1),
        }
    }
}

/// A part of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub entries: u64,
    pub bytes: u64,
}

/// What is on disk.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Size of the newest snapshot's file; 0 without one.
    snapshot_bytes: u64,
    /// The last entry in the newest snapshot but one; 0 without one.
    before: u64,
    /// Applied, and in no snapshot.
    since: Extent,
    /// Behind this entry, the log up to the newest snapshot has all that is to stay.
    enough: u64,
    /// The last entry that is gone.
    purged: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    /// The last entry to remove.
    purge: Option<u64>,
    snapshot: bool,
}

/// How many bytes of log a state of this size is worth.
fn room(bounds: Bounds, snapshot_bytes: u64) -> u64 {
    bounds.bytes.max(snapshot_bytes)
}

fn plan(bounds: Bounds, seen: Seen) -> Steps {
    let removable = seen.before.min(seen.enough);
    Steps {
        purge: (removable > seen.purged).then_some(removable),
        snapshot: seen.since.entries >= bounds.entries
            || seen.since.bytes >= room(bounds, seen.snapshot_bytes),
    }
}

fn look(bounds: Bounds, log: &Log, snapshots: &Snapshots, applied: u64) -> Seen {
    let (newest, before) = snapshots.kept();
    let snapshot = newest.as_ref().map_or(0, |newest| newest.index());
    let snapshot_bytes = newest.map_or(0, |newest| newest.length());
    let by_bytes = log.reaching_back(snapshot, room(bounds, snapshot_bytes));
    Seen {
        snapshot_bytes,
        before: before.unwrap_or(0),
        since: log.extent(snapshot, applied),
        enough: by_bytes.max(snapshot.saturating_sub(bounds.entries)),
        purged: log.purged().map_or(0, |id| id.index),
    }
}

/// The first entry that is not purged, nor to be. A follower that needs one before it gets a
/// snapshot: Raft would keep for it what it still reads, however slow it is.
#[derive(Clone, Default)]
pub struct Floor(Arc<AtomicU64>);

impl Floor {
    fn raise(&self, first: u64) {
        self.0.fetch_max(first, Ordering::Relaxed);
    }

    pub fn first(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes the steps whenever the log grew or a snapshot was kept, until it is to stop or Raft has.
pub async fn follow(
    raft: RaftNode,
    bounds: Bounds,
    log: Log,
    snapshots: Snapshots,
    applied: watch::Receiver<Applied>,
    floor: Floor,
    stop: CancellationToken,
) {
    let step = bounds.step();
    let grown = log.grown_by(step.entries, step.bytes);
    let kept = snapshots.news();
    loop {
        let applied = applied.borrow().index();
        let Steps { purge, snapshot } = plan(bounds, look(bounds, &log, &snapshots, applied));
        if let Some(upto) = purge {
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
            // Not before Raft was told: it would try the same entries again.
            floor.raise(upto + 1);
        }
        // While one is being built, Raft begins no other.
        if snapshot && raft.trigger().snapshot().await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = grown.notified() => {}
            () = kept.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        entries: 100,
        bytes: 1_000,
    };

    fn since(entries: u64, bytes: u64, snapshot_bytes: u64) -> Seen {
        Seen {
            since: Extent { entries, bytes },
            snapshot_bytes,
            ..Seen::default()
        }
    }

    #[test]
    fn a_snapshot_is_due_by_entries_by_bytes_and_by_its_own_size() {
        let table = [
            (since(0, 0, 0), false),
            (since(99, 999, 0), false),
            (since(100, 0, 0), true),
            (since(1, 1_000, 0), true),
            // A large state is not written anew for little log.
            (since(1, 4_999, 5_000), false),
            (since(1, 5_000, 5_000), true),
            // But a start never replays more entries.
            (since(100, 200, 5_000), true),
        ];
        for (seen, due) in table {
            assert_eq!(plan(BOUNDS, seen).snapshot, due, "{seen:?}");
        }
    }

    #[test]
    fn the_log_goes_where_neither_followers_nor_the_snapshot_before_need_it() {
        let table = [
            // (before, enough, purged), what is removed
            ((0, 0, 0), None),
            // Only one snapshot: if it were damaged, the log would be all there is.
            ((0, 80, 0), None),
            ((50, 80, 0), Some(50)),
            ((80, 50, 0), Some(50)),
            ((50, 80, 49), Some(50)),
            ((50, 80, 50), None),
            // One that was received removed more than that.
            ((50, 80, 200), None),
        ];
        for ((before, enough, purged), expected) in table {
            let seen = Seen {
                before,
                enough,
                purged,
                ..Seen::default()
            };
            assert_eq!(plan(BOUNDS, seen).purge, expected, "{seen:?}");
        }
    }

    #[test]
    fn the_usual_bounds_are_looked_at_often_enough() {
        let step = Bounds::default().step();
        assert!(step.bytes <= 4 * 1024 * 1024 && step.entries <= 5_000);
        let tiny = Bounds {
            entries: 1,
            bytes: 1,
        };
        assert!(tiny.step().entries == 1 && tiny.step().bytes == 1);
    }
}
