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
mod renewal;
mod rounds;
mod runtime;
pub mod seal;
mod serve;
mod settings;
mod snapshot;
mod timing;
mod types;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::storage::RaftLogStorage;
use openraft::{Instant as _, Raft};
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
pub use self::timing::{DiskSpeed, Timing, TimingError, Verdict};
pub use self::types::{MAX_PROPOSAL_BYTES, TooLarge};

use self::compaction::Floor;
use self::disk::{Directory, DirectoryLock};
use self::log::Log;
use self::machine::{Machine, Published};
use self::network::Network;
use self::rounds::Rounds;
use self::seal::keys::Keys;
use self::snapshot::Snapshots;
use self::types::{LogId, TypeConfig};
use crate::peers::Peers;
use crate::state::{Change, State};

type RaftNode = Raft<TypeConfig, Machine>;

/// For writing one snapshot to a slow disk.
const COMPACTION_DEADLINE: Duration = Duration::from_secs(120);

pub struct ReplicaOptions {
    /// For the log and the snapshots; nothing else may use it.
    pub dir: PathBuf,
    /// This controller's Raft id: given once, never used for another data directory.
    pub id: u64,
    /// Measured on the directory's disk, and kept there, when `None`.
    pub timing: Option<Timing>,
    /// With which the log and the snapshots are sealed.
    pub keys: Keys,
}

/// Why a replica cannot start. Messages name the file and the repair.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Timing(#[from] TimingError),
    #[error(
        "the log in {} begins behind entry {purged}, but the newest snapshot ends at entry \
         {snapshot}: remove this controller's data directory and join it again",
        dir.display()
    )]
    Gap {
        dir: PathBuf,
        purged: u64,
        snapshot: u64,
    },
    #[error("Raft cannot start from {}: {reason}", dir.display())]
    Raft { dir: PathBuf, reason: String },
}

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
    /// Opens log and snapshots and takes up its part in Raft.
    pub async fn start(options: ReplicaOptions, peers: Peers) -> Result<Self, StartError> {
        Self::start_within(Bounds::default(), options, peers).await
    }

    /// The same, with a log that is kept within other bounds.
    pub async fn start_within(
        bounds: Bounds,
        options: ReplicaOptions,
        peers: Peers,
    ) -> Result<Self, StartError> {
        let ReplicaOptions {
            dir,
            id,
            timing,
            keys,
        } = options;
        let opened = runtime::blocking({
            let dir = dir.clone();
            move || open(&dir, timing, keys)
        })
        .await
        .map_err(|error| StartError::Raft {
            dir: dir.clone(),
            reason: error.to_string(),
        })??;
        let log = opened.log.clone();
        Self::assemble(id, dir, opened, log, peers, bounds).await
    }

    /// `storage` is the opened log, as Raft is to see it.
    async fn assemble(
        id: u64,
        dir: PathBuf,
        opened: Opened,
        storage: impl RaftLogStorage<TypeConfig>,
        peers: Peers,
        bounds: Bounds,
    ) -> Result<Self, StartError> {
        let Opened {
            lock,
            log,
            snapshots,
            machine,
            published,
            timing,
            disk,
        } = opened;
        let floor = Floor::default();
        let network = Network::new(id, peers.clone(), floor.clone());
        let failed = |reason: Fatal<TypeConfig>| StartError::Raft {
            dir: dir.clone(),
            reason: reason.to_string(),
        };
        let raft = Raft::new(id, settings::config(timing), network, storage, machine)
            .await
            .map_err(failed)?;
        let alone = raft
            .with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id]))
            .await
            .map_err(failed)?;
        if alone {
            // Nobody else can lead: no reason to wait for an election to be due.
            raft.trigger().elect(false).await.map_err(failed)?;
        }
        let lease = Duration::from_millis(timing.election_max_ms);
        let stop = CancellationToken::new();
        let (publish, leadership) = watch::channel(Leadership::default());
        // All end with the replica. Without them it would serve, but follow nobody, and its log
        // would grow.
        runtime::spawn(leadership::follow(
            raft.clone(),
            lease,
            published.applied.clone(),
            publish,
            stop.clone(),
        ));
        runtime::spawn(follow_members(raft.clone(), peers.clone(), stop.clone()));
        runtime::spawn(compaction::follow(
            raft.clone(),
            bounds,
            log.clone(),
            snapshots.clone(),
            published.applied.clone(),
            floor,
            stop.clone(),
        ));
        Ok(Self {
            shared: Arc::new(Shared {
                raft,
                log,
                snapshots,
                peers,
                published,
                leadership,
                timing,
                disk,
                lease,
                rounds: Rounds::default(),
                receiving: tokio::sync::Mutex::default(),
                lock: Mutex::new(lock),
                stop,
            }),
        })
    }

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

    /// Hands leadership over if this replica has it, and stops with everything on disk.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.shared.stop.cancel();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop cleanly");
        }
        if let Err(error) = self.shared.log.close().await {
            tracing::error!(%error, "the Raft log did not stop cleanly");
        }
        self.shared
            .lock
            .lock()
            .expect("nothing panics while it holds the directory's lock")
            .take();
    }

    /// Gives leadership to the follower that is furthest of those that answer, if this replica has
    /// it and one does. Best effort: without it the others elect a leader once they miss this one.
    pub async fn hand_over(&self) {
        let id = self.id();
        let mut metrics = self.shared.raft.metrics();
        let successor = {
            let metrics = metrics.borrow_watched();
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let answers = |peer: &u64| {
                let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(peer));
                let answered = answered.and_then(Option::as_ref);
                answered.is_some_and(|at| at.elapsed() < self.shared.lease)
            };
            metrics
                .replication
                .iter()
                .flatten()
                .filter(|(peer, _)| **peer != id && voters.contains(peer) && answers(peer))
                .max_by_key(|(_, matched)| **matched)
                .map(|(peer, _)| *peer)
        };
        let Some(successor) = successor else { return };
        if self
            .shared
            .raft
            .trigger()
            .transfer_leader(successor)
            .await
            .is_err()
        {
            return;
        }
        let handed = metrics.wait_until(|m| m.current_leader.is_some_and(|leader| leader != id));
        match runtime::timeout(self.shared.lease, handed).await {
            Ok(_) => tracing::info!(successor, "handed leadership over"),
            Err(_) => tracing::warn!(successor, "leadership was not taken over in time"),
        }
    }
}

struct Opened {
    lock: Option<DirectoryLock>,
    log: Log,
    snapshots: Snapshots,
    machine: Machine,
    published: Published,
    timing: Timing,
    disk: Option<DiskSpeed>,
}

fn open(dir: &std::path::Path, timing: Option<Timing>, keys: Keys) -> Result<Opened, StartError> {
    let (directory, lock) = Directory::open(&dir.join("log"))?;
    let (timing, disk) = match timing {
        Some(timing) => (timing, None),
        None => {
            let (timing, disk) = Timing::of(dir)?;
            (timing, Some(disk))
        }
    };
    let snapshots = Snapshots::open(&dir.join("snapshots"), keys.clone())?;
    let (machine, published) = Machine::open(snapshots.clone())?;
    let log = Log::open(Arc::new(directory), keys)?;
    check_joined(dir, &log, &published)?;
    Ok(Opened {
        lock: Some(lock),
        log,
        snapshots,
        machine,
        published,
        timing,
        disk,
    })
}

/// The log must go on where the snapshot ends.
fn check_joined(dir: &std::path::Path, log: &Log, published: &Published) -> Result<(), StartError> {
    let snapshot = published.applied.borrow().last;
    if let Some(purged) = log.purged()
        && snapshot < Some(purged)
    {
        return Err(StartError::Gap {
            dir: dir.to_owned(),
            purged: purged.index,
            snapshot: snapshot.map_or(0, |id| id.index),
        });
    }
    Ok(())
}

/// Tells the peers' links where the members are, so that a follower can reach whoever leads.
async fn follow_members(raft: RaftNode, peers: Peers, stop: CancellationToken) {
    // Not those that change with each entry.
    let mut metrics = raft.server_metrics();
    let mut known = None;
    loop {
        let membership = metrics.borrow_and_update().membership_config.clone();
        if known.as_ref() != Some(membership.log_id()) {
            known = Some(*membership.log_id());
            // One that was not admitted yet knows of no members, but may have been told of some.
            if membership.nodes().next().is_some() {
                let members = membership.nodes();
                peers.set_members(members.map(|(id, member)| (*id, member.clone())));
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
