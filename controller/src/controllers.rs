//! The swarm's controllers as people see them, and the end of one's membership.
//!
//! What Raft and the controllers' reports say is put together on the leader; the others ask it.
//! Removals go through the leader one at a time, so that two of them can't each leave the other's
//! majority behind. Nothing here adds a controller: that is enrolment's.

mod description;
mod removal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hive_proto::v1::{ControllerFacts, RemoveControllerRequest};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::gateway::Presence;
use crate::peers::Peers;
use crate::state::{Command, Rejection, State, level};
use crate::store::{ProposeError, Replica};
pub use description::{Described, Standing};
pub use removal::{RemovalRefused, Seen, check};

/// From the request to a membership without the controller: a leader that is removed hands over
/// first, and each of Raft's two steps waits for a majority's disks.
const REMOVE_DEADLINE: Duration = Duration::from_secs(30);

/// Before the leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A follower that answered within so many heartbeats counts as up.
const HEARTBEATS_MISSED: u32 = 4;

#[derive(Clone)]
pub struct Controllers {
    replica: Replica,
    peers: Peers,
    presence: Presence,
    /// Held from the check of a removal to its end.
    changing: Arc<Mutex<()>>,
}

/// Why a controller is a member still.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("{0}")]
    Refused(String),
    #[error("controller {id} is not a member of this swarm")]
    Unknown { id: u64 },
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Nothing was done here.
    #[error("this controller does not lead")]
    NotLeader,
    #[error(
        "controller {id} is removed, but Raft has not confirmed it yet: look again with \
         `hivectl controller list`"
    )]
    Unconfirmed { id: u64 },
}

impl Controllers {
    pub fn new(replica: Replica, peers: Peers, presence: Presence) -> Self {
        Self {
            replica,
            peers,
            presence,
            changing: Arc::default(),
        }
    }

    /// Ends a controller's membership, at whoever leads. Its id is never used again.
    pub async fn remove(&self, id: u64, force: bool) -> Result<(), RemoveError> {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        loop {
            let leader = self.replica.leadership().borrow().leader;
            let done = match leader {
                Some(leader) if leader == self.replica.id() => self.remove_here(id, force).await,
                Some(leader) => self.ask_to_remove(leader, id, force, deadline).await,
                None => Err(RemoveError::NotLeader),
            };
            match done {
                Err(RemoveError::NotLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(RemoveError::NotLeader) => return Err(ProposeError::NoLeader.into()),
                done => return done,
            }
        }
    }

    async fn ask_to_remove(
        &self,
        leader: u64,
        id: u64,
        force: bool,
        deadline: Instant,
    ) -> Result<(), RemoveError> {
        let Ok(mut client) = self.peers.requests(leader) else {
            return Err(RemoveError::NotLeader);
        };
        let asked = client.remove_controller(RemoveControllerRequest {
            raft_id: id,
            force,
            pass_on: false,
        });
        match timeout_at(deadline, asked).await {
            Err(_) => Err(ProposeError::TimedOut.into()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => match status.code() {
                Code::FailedPrecondition => Err(RemoveError::NotLeader),
                Code::Aborted => Err(RemoveError::Refused(status.message().to_owned())),
                Code::NotFound => Err(RemoveError::Unknown { id }),
                Code::DeadlineExceeded => Err(RemoveError::Unconfirmed { id }),
                _ => Err(ProposeError::TimedOut.into()),
            },
        }
    }

    /// Ends a controller's membership if this one leads. A leader that is to go hands over first,
    /// and leaves the rest to its successor.
    pub async fn remove_here(&self, id: u64, force: bool) -> Result<(), RemoveError> {
        let _turn = self.changing.lock().await;
        if !self.replica.leadership().borrow().is_leader {
            return Err(RemoveError::NotLeader);
        }
        let state = self.replica.state();
        if state.controllers().all(|(known, _)| known != id) {
            return Err(RemoveError::Unknown { id });
        }
        check(&self.seen(&state), id, force).map_err(|e| RemoveError::Refused(e.to_string()))?;
        if id == self.replica.id() {
            self.replica.hand_over().await;
            return Err(RemoveError::NotLeader);
        }
        match self.replica.propose(Command::RemoveController { id }).await {
            // Somebody else removed it at this moment.
            Ok(_) | Err(ProposeError::Rejected(Rejection::NotFound)) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(controller = id, force, "controller removed");
        match self.replica.without_member(id, REMOVE_DEADLINE).await {
            true => Ok(()),
            false => Err(RemoveError::Unconfirmed { id }),
        }
    }

    /// Who votes and who is up, as the leader knows it.
    fn seen(&self, state: &State) -> BTreeMap<u64, Seen> {
        let members = self.replica.members();
        let progress = self.replica.progress();
        let patience = self.replica.heartbeat() * HEARTBEATS_MISSED;
        let own = self.replica.id();
        let seen = |id| Seen {
            votes: members.get(&id).is_some_and(|(_, votes)| *votes),
            up: id == own
                || progress
                    .get(&id)
                    .and_then(|seen| seen.silent)
                    .is_some_and(|silent| silent < patience),
        };
        state.controllers().map(|(id, _)| (id, seen(id))).collect()
    }
}

/// What this controller says of itself.
pub fn own_facts(replica: &Replica) -> ControllerFacts {
    ControllerFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        level: level::OWN,
        sync_us: replica
            .sync_time()
            .map_or(0, |time| time.as_micros() as u64),
    }
}

/// Raises the level of commands once all members have said that they know a higher one.
pub async fn raise_level(replica: &Replica, state: &State, presence: &Presence) {
    let facts = presence.facts();
    let own = replica.id();
    let announced = state.controllers().map(|(id, _)| match id {
        id if id == own => Some(level::OWN),
        id => facts.get(&id).map(|facts| facts.level.max(level::FIRST)),
    });
    let Some(to) = level::raise(state.level(), announced) else {
        return;
    };
    match replica.propose(Command::RaiseLevel { to }).await {
        Ok(_) => tracing::info!(level = to, "all controllers know commands of this level"),
        Err(error) => tracing::info!(%error, "the level of commands is not raised yet"),
    }
}
