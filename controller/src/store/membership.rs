//! Who takes part in Raft. Only the leader changes it, one change at a time.
//!
//! A new member learns first and votes once it has caught up, so that adding it never costs the
//! others their majority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::{ChangeMembers, Instant as _};

use super::types::TypeConfig;
use super::{ProposeError, Replica, runtime};
use crate::state::{Command, Member, Outcome};

/// For a new member to fetch a snapshot and the log behind it, and for the change to commit.
/// Whoever asked asks again.
const DEADLINE: Duration = Duration::from_secs(120);

/// After a first controller's one-member cluster was made: its own vote, synced.
const FIRST_ELECTION: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("this controller belongs to a swarm already; remove its data directory to begin anew")]
    NotEmpty,
    #[error("this controller was started as number {id}, but the first one got number {admitted}")]
    NotFirst { id: u64, admitted: u64 },
    #[error("cannot record the first controller")]
    Propose(#[from] ProposeError),
    #[error("this controller stopped")]
    Stopped,
}

/// Why the members did not change. All of these may pass; ask again later.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this controller does not lead")]
    NotLeader,
    #[error("controller {id} did not catch up within {} s", DEADLINE.as_secs())]
    Behind { id: u64 },
    /// Another change is under way, or this one makes no sense.
    #[error("{0}")]
    Refused(String),
    #[error("this controller stopped")]
    Stopped,
}

/// An append is answered at the next sync, which a heartbeat leaves time for.
const ACKNOWLEDGED_HEARTBEATS: u32 = 2;

/// How a member keeps up with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Index of the last entry that it is known to hold.
    pub matched: u64,
    /// Since it answered last; `None` when it never did.
    pub silent: Option<Duration>,
}

type ClientError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl From<ClientError> for MembershipError {
    fn from(error: ClientError) -> Self {
        match error {
            RaftError::APIError(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
            ) => Self::NotLeader,
            RaftError::APIError(refused) => Self::Refused(refused.to_string()),
            RaftError::Fatal(_) => Self::Stopped,
        }
    }
}

impl Replica {
    /// Makes this controller the first of a new swarm. Does the rest of it if an earlier call was
    /// interrupted, and nothing if that is done.
    pub async fn bootstrap(&self, member: Member) -> Result<(), BootstrapError> {
        let raft = &self.shared.raft;
        let id = self.id();
        match raft
            .initialize(BTreeMap::from([(id, member.clone())]))
            .await
        {
            Ok(()) => {}
            // Initialised before: by this call's predecessor, or as a member of another swarm.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                unreachable!("the members are this controller")
            }
            Err(RaftError::Fatal(_)) => return Err(BootstrapError::Stopped),
        }
        let mut leadership = self.leadership();
        match runtime::timeout(FIRST_ELECTION, leadership.wait_for(|l| l.is_leader)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(BootstrapError::Stopped),
            Err(_) => return Err(ProposeError::NoLeader.into()),
        }
        // Only now: the metrics follow an initialisation after a moment. Of these leadership is told, and Raft
        // sends the others after them.
        if !raft
            .server_metrics()
            .borrow_watched()
            .membership_config
            .voter_ids()
            .eq([id])
        {
            return Err(BootstrapError::NotEmpty);
        }
        if self.state().controllers().next().is_some() {
            return Ok(());
        }
        match self.propose(Command::AdmitController { member }).await? {
            Outcome::Controller(admitted) if admitted == id => Ok(()),
            Outcome::Controller(admitted) => Err(BootstrapError::NotFirst { id, admitted }),
            other => unreachable!("admitting a controller yields its number, not {other:?}"),
        }
    }

    /// Makes controller `id` a voter that is reached at `member`, or corrects where it is reached.
    /// On the leader only.
    pub async fn add_member(&self, id: u64, member: &Member) -> Result<(), MembershipError> {
        let deadline = runtime::Instant::now() + DEADLINE;
        let known = self.raft_member(id);
        let raft = &self.shared.raft;
        if let Some((known, _)) = &known
            && known != member
        {
            let nodes = BTreeMap::from([(id, member.clone())]);
            raft.change_membership(ChangeMembers::SetNodes(nodes), true)
                .await?;
            // Raft hands the new address to new clients only; those it has ask here.
            self.shared.peers.set_member(id, member.clone());
        }
        if known.is_some_and(|(_, votes)| votes) {
            return Ok(());
        }
        let added = raft.add_learner(id, member.clone(), true);
        runtime::timeout_at(deadline, added)
            .await
            .map_err(|_| MembershipError::Behind { id })??;
        raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), false)
            .await?;
        tracing::info!(controller = id, "votes in Raft now");
        Ok(())
    }

    /// Ends a controller's part in Raft; its id is never used again. On the leader only; a leader
    /// that is to go hands over, and its successor removes it.
    pub async fn remove_member(&self, id: u64) -> Result<(), MembershipError> {
        if id == self.id() {
            // Whoever leads next removes it: nobody has to wait for an election.
            self.hand_over().await;
            return Err(MembershipError::NotLeader);
        }
        let change = match self.raft_member(id) {
            None => return Ok(()),
            Some((_, true)) => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
            Some((_, false)) => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        };
        self.shared.raft.change_membership(change, false).await?;
        self.shared.peers.forget(id);
        tracing::info!(controller = id, "takes no part in Raft any more");
        Ok(())
    }

    /// The members of Raft, where they are reached, and whether they vote.
    pub fn members(&self) -> BTreeMap<u64, (Member, bool)> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, member)| (*id, (member.clone(), voters.contains(id))))
            .collect()
    }

    /// How far the members are and when they answered last, as the leader knows it; of the others
    /// nobody but this replica itself.
    pub fn progress(&self) -> BTreeMap<u64, Progress> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let own = self.id();
        let silent = |id: &u64| {
            let answered = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
            Some(answered.elapsed())
        };
        let mut progress: BTreeMap<u64, Progress> = metrics
            .replication
            .iter()
            .flatten()
            .map(|(id, matched)| {
                let matched = matched.map_or(0, |id| id.index);
                let silent = silent(id);
                (*id, Progress { matched, silent })
            })
            .collect();
        let itself = Progress {
            matched: metrics.last_log_index.unwrap_or(0),
            silent: Some(Duration::ZERO),
        };
        progress.insert(own, itself);
        progress
    }

    /// Waits until Raft's members, as far as they are known here, are without `id`. False when that
    /// takes too long.
    pub async fn without_member(&self, id: u64, patience: Duration) -> bool {
        let mut metrics = self.shared.raft.metrics();
        let gone = metrics.wait_until(|metrics| {
            let config = &metrics.committed_membership_config;
            let mut members = config.nodes().map(|(id, _)| *id);
            config.log_id() == metrics.membership_config.log_id()
                && members.all(|member| member != id)
        });
        matches!(runtime::timeout(patience, gone).await, Ok(Ok(_)))
    }

    /// Resolves when the others can go on without this replica: the members of Raft that it has on
    /// disk are to be without it, and the leader has had the time to hear that.
    pub async fn out_of_raft(&self) {
        let id = self.id();
        let mut metrics = self.shared.raft.metrics();
        let out = metrics.wait_until(|metrics| {
            let membership = metrics.membership_config.membership();
            let next = membership.get_joint_config().last();
            next.is_none_or(|voters| !voters.contains(&id))
        });
        // An error means that this replica has ended, so it votes no more.
        drop(out.await);
        super::runtime::sleep(self.heartbeat() * ACKNOWLEDGED_HEARTBEATS).await;
    }

    /// Resolves when a majority of the members that this replica knows of refuses its votes because it was
    /// removed: it was cut off when that was agreed on, and nobody will tell it any more.
    pub async fn cast_out(&self) {
        let metrics = self.shared.raft.metrics();
        let voters = || {
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_joint_config().clone()
        };
        self.shared.refusals.of_majorities(voters).await;
    }

    fn raft_member(&self, id: u64) -> Option<(Member, bool)> {
        self.members().remove(&id)
    }
}
