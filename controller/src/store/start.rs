//! A replica's start: what is on the disk is opened and checked, and takes up its part in Raft.
//!
//! Everything that ends with the replica is begun here. It never starts from a log that does not go on
//! where its snapshot ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::storage::RaftLogStorage;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::compaction::{self, Bounds, Floor};
use super::disk::{Directory, DirectoryError, DirectoryLock};
use super::leadership::{self, Leadership};
use super::log::Log;
use super::log::replay::OpenError;
use super::machine::{Machine, Published};
use super::network::Network;
use super::refusals::Refusals;
use super::rounds::Rounds;
use super::seal::keys::Keys;
use super::snapshot::{SnapshotError, Snapshots};
use super::timing::{DiskSpeed, Timing, TimingError};
use super::types::TypeConfig;
use super::{RaftNode, Replica, Shared, runtime, settings};
use crate::peers::Peers;

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
    pub(super) async fn assemble(
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
        let refusals = Refusals::default();
        let network = Network::new(id, peers.clone(), floor.clone(), refusals.clone());
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
                refusals,
                receiving: tokio::sync::Mutex::default(),
                lock: Mutex::new(lock),
                stop,
            }),
        })
    }
}

/// What is on the disk, checked.
pub(super) struct Opened {
    pub(super) lock: Option<DirectoryLock>,
    pub(super) log: Log,
    pub(super) snapshots: Snapshots,
    pub(super) machine: Machine,
    pub(super) published: Published,
    pub(super) timing: Timing,
    pub(super) disk: Option<DiskSpeed>,
}

fn open(dir: &Path, timing: Option<Timing>, keys: Keys) -> Result<Opened, StartError> {
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
pub(super) fn check_joined(dir: &Path, log: &Log, published: &Published) -> Result<(), StartError> {
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
