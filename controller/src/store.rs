//! The replicated store: openraft around [`State`](crate::state::State), seen only as a [`Replica`].
//!
//! Commands go in through [`Replica::propose`] on any controller; the applied state comes out as
//! O(1) clones, with watches for its changes. Nobody else touches Raft, its log or its snapshots.

mod codec;
mod compaction;
mod disk;
mod interests;
mod leadership;
mod log;
mod machine;
mod membership;
mod network;
pub mod offline;
mod progress;
mod propose;
mod refusals;
mod renewal;
mod rounds;
mod runtime;
pub mod seal;
mod serve;
mod settings;
mod snapshot;
mod start;
mod stop;
mod timing;
mod types;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::compaction::Bounds;
pub use self::disk::DirectoryError;
pub use self::leadership::Leadership;
pub use self::log::replay::OpenError;
pub use self::membership::{BootstrapError, MembershipError, Progress};
pub use self::propose::ProposeError;
pub use self::renewal::RenewalError;
pub use self::serve::HandleError;
pub use self::snapshot::SnapshotError;
pub use self::start::{ReplicaOptions, StartError};
pub use self::timing::{DiskSpeed, Timing, TimingError, Verdict};
pub use self::types::{MAX_PROPOSAL_BYTES, TooLarge};

use self::disk::DirectoryLock;
use self::log::Log;
use self::machine::{Machine, Published};
use self::refusals::Refusals;
use self::rounds::Rounds;
use self::snapshot::Snapshots;
use self::types::{LogId, TypeConfig};
use crate::peers::Peers;
use crate::state::{Change, State};

type RaftNode = Raft<TypeConfig, Machine>;

/// For writing one snapshot to a slow disk.
const COMPACTION_DEADLINE: Duration = Duration::from_secs(120);

/// What a replica knows of itself, for logs and health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub applied: u64,
    pub committed: u64,
    pub last_log: u64,
    pub leader: Option<u64>,
    pub term: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
}

/// This controller's copy of the state, and its part in agreeing on it. Clones are handles to one.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
}

struct Shared {
    raft: RaftNode,
    log: Log,
    snapshots: Snapshots,
    peers: Peers,
    published: Published,
    leadership: watch::Receiver<Leadership>,
    timing: Timing,
    /// Where it was measured.
    disk: Option<DiskSpeed>,
    /// A leader that heard from no majority for this long leads no more.
    lease: Duration,
    rounds: Rounds,
    refusals: Refusals,
    /// Held while a snapshot is taken in.
    receiving: tokio::sync::Mutex<()>,
    /// Let go only after everything is on disk.
    lock: Mutex<Option<DirectoryLock>>,
    stop: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replica {
    pub fn id(&self) -> u64 {
        *self.shared.raft.node_id()
    }

    /// What is applied here, as an O(1) clone. It may be behind the leader's; see
    /// [`Replica::read_barrier`].
    pub fn state(&self) -> State {
        self.shared.published.applied.borrow().state.clone()
    }

    /// The applied revision. Carries no data: read [`Replica::state`] when it changes.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.published.revisions.clone()
    }

    /// Changes when something happened that is `relevant`, or to controllers or artifacts. Carries
    /// no data; the state that is read after this call lacks nothing that is not told.
    pub fn touched(&self, relevant: fn(&Change) -> bool) -> watch::Receiver<u64> {
        self.shared.published.interests.join(relevant)
    }

    /// True for a controller that was admitted once and removed since.
    pub fn has_removed(&self, controller: u64) -> bool {
        let applied = self.shared.published.applied.borrow();
        applied.state.is_former_controller(controller)
    }

    /// How often a leader says that it is there.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.shared.timing.heartbeat_ms)
    }

    /// What one small synced write to this replica's disk took when it was measured.
    pub fn sync_time(&self) -> Option<Duration> {
        self.disk_speed().map(|disk| disk.sync())
    }

    pub fn disk_speed(&self) -> Option<DiskSpeed> {
        self.shared.disk
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    pub fn health(&self) -> Health {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        Health {
            applied: self.shared.published.applied.borrow().index(),
            committed: metrics.local_committed.map_or(0, |id: LogId| id.index),
            last_log: metrics.last_log_index.unwrap_or(0),
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
        }
    }

    /// Takes a snapshot now and removes the log before it; for a backup that is one file, and so
    /// that whoever joins next needs no log.
    pub async fn compact(&self) -> Result<(), ProposeError> {
        let stopped = |_| self.stopped().unwrap_or(ProposeError::Stopped);
        let raft = &self.shared.raft;
        let upto = self.shared.published.applied.borrow().index();
        raft.trigger().snapshot().await.map_err(stopped)?;
        let taken = raft.wait(Some(COMPACTION_DEADLINE));
        taken
            .metrics(
                |m| m.snapshot.is_some_and(|id| id.index >= upto),
                "snapshot taken",
            )
            .await
            .map_err(|_| ProposeError::TimedOut)?;
        raft.trigger().purge_log(upto).await.map_err(stopped)
    }

    /// Resolves, with what happened, when Raft ended by itself: its storage failed. Nothing is
    /// written after that; the process should say so and exit.
    pub async fn fatal(&self) -> String {
        // They change seldom, and end with Raft.
        let mut rare = self.shared.raft.server_metrics();
        while rare.changed().await.is_ok() {}
        let ended = self
            .shared
            .raft
            .metrics()
            .borrow_watched()
            .running_state
            .clone();
        match ended {
            Ok(()) | Err(Fatal::Stopped) => {}
            Err(fatal) => return fatal.to_string(),
        }
        if self.shared.stop.is_cancelled() {
            std::future::pending().await
        }
        "Raft ended".to_owned()
    }

    /// How long the log's syncs took since the start.
    pub(crate) fn log_syncs(&self) -> &crate::histogram::Histogram {
        self.shared.log.syncs()
    }

    /// Why nothing can be written here any more, if so.
    pub fn failure(&self) -> Option<ProposeError> {
        self.stopped()
    }

    fn stopped(&self) -> Option<ProposeError> {
        match &self.shared.raft.metrics().borrow_watched().running_state {
            Err(Fatal::StorageError(error)) => Some(ProposeError::Storage(error.to_string())),
            Err(Fatal::Panicked | Fatal::Stopped) => Some(ProposeError::Stopped),
            Ok(()) if self.shared.stop.is_cancelled() => Some(ProposeError::Stopped),
            Ok(()) => None,
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
