//! The directory of a replica that does not run: what is in it, and one made anew.
//!
//! Reading takes the lock that a running controller holds, and applies the whole log: what the
//! last leader had others acknowledge may be in entries that this one never heard were committed.
//! Making writes a snapshot and no log, into a directory that is not in use yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures::TryStreamExt;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{Membership, RaftLogReader};

use super::disk::{Directory, DirectoryLock};
use super::log::Log;
use super::machine::Machine;
use super::seal::keys::Keys;
use super::snapshot::Snapshots;
use super::start::check_joined;
use super::types::{LeaderId, LogId, SnapshotMeta, StoredMembership};
use super::{SnapshotError, StartError};
use crate::state::{Member, State};

/// What a stopped controller's directory holds. Nobody else can use the directory meanwhile.
pub struct Offline {
    /// With every entry of the log applied.
    pub state: State,
    /// Index and term of the last entry.
    pub last_index: u64,
    pub last_term: u64,
    /// Entries up to here were known here as committed.
    pub committed: u64,
    /// The members of Raft, and whether they vote.
    pub members: BTreeMap<u64, (Member, bool)>,
    /// When something was last written to the log: about when the others were last heard of.
    pub written: Option<SystemTime>,
    _lock: DirectoryLock,
}

/// Reads a replica's directory.
pub async fn read(dir: &Path, keys: &Keys) -> Result<Offline, StartError> {
    let failed = |error: io::Error| StartError::Raft {
        dir: dir.to_owned(),
        reason: error.to_string(),
    };
    let log_dir = dir.join("log");
    let written = newest_write(&log_dir);
    let (directory, lock) = Directory::open(&log_dir)?;
    let (mut machine, published) =
        Machine::open(Snapshots::open(&dir.join("snapshots"), keys.clone())?)?;
    let mut log = Log::open(Arc::new(directory), keys.clone())?;
    check_joined(dir, &log, &published)?;
    let snapshot = published.applied.borrow().last;
    let committed = log.read_committed().await.map_err(failed)?;
    let first = snapshot.map_or(0, |id| id.index + 1);
    let entries = log.entries_stream(first..).await;
    machine
        .apply(entries.map_ok(|entry| (entry, None)))
        .await
        .map_err(failed)?;
    // Not closed: that writes to it, and looking must not change when the log was written last.
    drop(log);
    if let Some(written) = written {
        set_back(&log_dir, written).map_err(failed)?;
    }
    let applied = published.applied.borrow().clone();
    let membership = applied.membership.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let members = membership
        .nodes()
        .map(|(id, member)| (*id, (member.clone(), voters.contains(id))))
        .collect();
    Ok(Offline {
        last_index: applied.index(),
        last_term: applied.last.map_or(0, |id| id.leader_id.term),
        committed: committed.max(snapshot).map_or(0, |id| id.index),
        members,
        written,
        state: applied.state,
        _lock: lock,
    })
}

/// Makes the directory of a replica that is the only member of its Raft and holds `state`. Durable
/// on return; what an attempt that was interrupted left there is removed.
pub fn found(
    dir: &Path,
    id: u64,
    member: &Member,
    after: u64,
    state: &State,
    keys: &Keys,
) -> Result<(), SnapshotError> {
    let io = |source| SnapshotError::Io {
        path: dir.to_owned(),
        source,
    };
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(io)?;
    }
    fs::create_dir_all(dir).map_err(io)?;
    // As the first entry of every Raft, it is of no leader's term.
    let last = LogId {
        leader_id: LeaderId {
            term: 0,
            node_id: 0,
        },
        index: after + 1,
    };
    let nodes = BTreeMap::from([(id, member.clone())]);
    let membership = Membership::new(vec![BTreeSet::from([id])], nodes)
        .expect("the one voter is among the nodes");
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    Snapshots::open(&dir.join("snapshots"), keys.clone())?.write(&meta, state)?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))
        .and_then(|parent| parent.sync_all())
        .map_err(io)
}

fn newest_write(log: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(log).ok()?.filter_map(Result::ok);
    files
        .filter(|file| file.file_name() != "lock")
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .max()
}

/// To open a log may mend its end, which is no news of the others.
fn set_back(log: &Path, written: SystemTime) -> io::Result<()> {
    for file in fs::read_dir(log)? {
        let file = file?;
        if file.metadata()?.modified()? > written {
            let file = File::options().append(true).open(file.path())?;
            file.set_modified(written)?;
        }
    }
    Ok(())
}

/// Whether a controller runs on a replica's directory.
pub fn is_locked(dir: &Path) -> bool {
    Directory::open(&dir.join("log")).is_err()
}
