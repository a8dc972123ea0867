//! The state machine: applies committed entries to [`State`] and publishes the result.
//!
//! State, log id and membership travel together in [`Applied`]. Readers and snapshots take O(1)
//! clones; nothing they do delays an apply. A writer hears of its command only after it is published.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::watch;

use super::interests::Interests;
use super::progress::Progress;
use super::runtime;
use super::snapshot::{SnapshotError, SnapshotFile, Snapshots};
use super::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::state::{Outcome, State, level};

/// Entries applied before the result is published. Readers then see at most so many at once, and
/// writers wait for at most so many others.
const PUBLISHED_TOGETHER: usize = 64;

/// The state as of one log entry.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub state: State,
    pub last: Option<LogId>,
    pub membership: Arc<StoredMembership>,
}

impl Applied {
    /// Entries up to here are applied; 0 before the first.
    pub fn index(&self) -> u64 {
        self.last.map_or(0, |id| id.index)
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: StoredMembership::clone(&self.membership),
        }
    }
}

/// What the state machine tells the rest of the program.
#[derive(Clone)]
pub struct Published {
    pub applied: watch::Receiver<Applied>,
    pub progress: Arc<Progress>,
    /// The state's revision; changes only when the state does.
    pub revisions: watch::Receiver<u64>,
    pub interests: Arc<Interests>,
}

pub struct Machine {
    applied: Applied,
    snapshots: Snapshots,
    publish: watch::Sender<Applied>,
    progress: Arc<Progress>,
    revisions: watch::Sender<u64>,
    interests: Arc<Interests>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl Machine {
    /// Starts from the newest snapshot, or empty. Blocks.
    pub fn open(snapshots: Snapshots) -> Result<(Self, Published), SnapshotError> {
        let applied = match snapshots.current() {
            None => Applied::default(),
            Some(snapshot) => applied_of(&snapshot, snapshot.load()?),
        };
        let (publish, applied_now) = watch::channel(applied.clone());
        let (revisions, revision) = watch::channel(applied.state.revision());
        let progress = Arc::new(Progress::starting_at(applied.index()));
        let published = Published {
            applied: applied_now,
            progress: progress.clone(),
            revisions: revision,
            interests: Arc::default(),
        };
        let machine = Self {
            applied,
            snapshots,
            publish,
            progress,
            revisions,
            interests: published.interests.clone(),
        };
        Ok((machine, published))
    }

    fn publish(&self) {
        self.publish.send_replace(self.applied.clone());
        self.progress.advance(self.applied.index());
    }

    /// Wakes whoever follows the state; who waits for an answer should have it before.
    fn announce(&self) {
        let revision = self.applied.state.revision();
        let seen = *self.revisions.borrow();
        self.revisions.send_if_modified(|known| {
            let changed = *known != revision;
            *known = revision;
            changed
        });
        self.interests.announce(seen, &self.applied.state);
    }
}

/// The swarm may use commands from now on that this program would not understand.
pub(super) fn check_level(state: &State) -> Result<(), TooOld> {
    match state.level() {
        agreed if agreed > level::OWN => Err(TooOld { agreed }),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this swarm's controllers have agreed on commands of level {agreed}, and this program knows \
     those up to level {}: run the version that the other controllers run",
    level::OWN
)]
pub struct TooOld {
    pub agreed: u32,
}

/// State never goes back.
fn check_order(snapshot: Option<LogId>, applied: Option<LogId>) -> Result<(), Older> {
    match snapshot < applied {
        true => Err(Older { snapshot, applied }),
        false => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a snapshot that ends at entry {} was to replace the newer state after entry {}: nothing was \
     changed; start this controller again",
    snapshot.map_or(0, |id| id.index),
    applied.map_or(0, |id| id.index)
)]
struct Older {
    snapshot: Option<LogId>,
    applied: Option<LogId>,
}

fn applied_of(snapshot: &SnapshotFile, state: State) -> Applied {
    Applied {
        state,
        last: snapshot.meta().last_log_id,
        membership: Arc::new(snapshot.meta().last_membership.clone()),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let membership = StoredMembership::clone(&self.applied.membership);
        Ok((self.applied.last, membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.ready_chunks(PUBLISHED_TOGETHER);
        while let Some(chunk) = entries.next().await {
            let mut replies = Vec::new();
            let mut result = Ok(());
            for item in chunk {
                let (entry, responder) = match item {
                    Ok(item) => item,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                };
                let reply = match entry.payload {
                    EntryPayload::Blank => Ok(Outcome::Done),
                    EntryPayload::Membership(membership) => {
                        self.applied.membership =
                            Arc::new(StoredMembership::new(Some(entry.log_id), membership));
                        Ok(Outcome::Done)
                    }
                    EntryPayload::Normal(proposal) => match proposal.decode() {
                        Ok(command) => {
                            let reply = self.applied.state.apply(command);
                            if let Err(error) = check_level(&self.applied.state) {
                                result = Err(io::Error::other(error));
                                break;
                            }
                            reply
                        }
                        Err(error) => {
                            // Skipping it would make this replica's state differ from the others'.
                            result = Err(io::Error::other(format!(
                                "entry {} holds a command that this version does not know \
                                 ({error}): is this controller older than the others?",
                                entry.log_id
                            )));
                            break;
                        }
                    },
                };
                self.applied.last = Some(entry.log_id);
                if let Some(responder) = responder {
                    replies.push((responder, reply));
                }
            }
            self.publish();
            for (responder, reply) in replies {
                responder.send(reply);
            }
            self.announce();
            result?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: self.applied.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        // Raft turns such a snapshot away before. If it ever does not, it believes from here on
        // that what came after the snapshot is still to be applied: going on with either state
        // would be wrong.
        check_order(snapshot.meta().last_log_id, self.applied.last).map_err(io::Error::other)?;
        let snapshots = self.snapshots.clone();
        let (snapshot, state) = blocking(move || {
            let state = snapshot.load()?;
            snapshots.adopt(&snapshot)?;
            Ok((snapshot, state))
        })
        .await?;
        self.applied = applied_of(&snapshot, state);
        self.publish();
        self.announce();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<super::network::RaftSnapshot>, io::Error> {
        Ok(self.snapshots.current().map(with_meta))
    }
}

/// Holds the state as it was; builds beside the applying of later entries.
pub struct Builder {
    applied: Applied,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<super::network::RaftSnapshot, io::Error> {
        let applied = self.applied.clone();
        let snapshots = self.snapshots.clone();
        let file = blocking(move || snapshots.write(&applied.meta(), &applied.state)).await?;
        Ok(with_meta(file))
    }
}

fn with_meta(snapshot: SnapshotFile) -> super::network::RaftSnapshot {
    Snapshot {
        meta: snapshot.meta().clone(),
        snapshot,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    runtime::blocking(work).await?.map_err(|error| match error {
        SnapshotError::Io { path, source } => {
            io::Error::new(source.kind(), format!("{}: {source}", path.display()))
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    })
}

#[cfg(test)]
mod tests;
