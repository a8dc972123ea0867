//! Writing: a command goes to the leader, and its author hears of it once it is applied here.
//!
//! A command is sent again only where it is certain that it was not taken. Otherwise its author is
//! told that the outcome is unknown, and knows what to do: compare-and-swap makes a repeat harmless.

use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::codec;
use super::runtime::{Instant, sleep, timeout_at};
use super::types::{Proposal, TypeConfig};
use super::{Replica, types};
use crate::peers::{Ask, Lane, index_of};
use crate::state::{Command, Outcome, Rejection, Reply};

/// From the call to the answer, elections and forwarding included. An election takes a few seconds
/// at most; whoever asks over HTTP waits no longer than this either.
const DEADLINE: Duration = Duration::from_secs(10);

/// For answers of a leader that has a successor: one that handed over still answers what it took.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Before another try, if nothing tells of a new leader sooner.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a command was not, or may not have been, performed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Committed, and it changed nothing. Trying the same again does not help.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Not performed; may be tried again.
    #[error("the controllers have no leader: a majority of them must be up and reach each other")]
    NoLeader,
    /// It may have been performed, or may yet be. Look before trying again.
    #[error("no answer in time; whether it was done is unknown")]
    TimedOut,
    /// Not performed. Trying the same again does not help.
    #[error(transparent)]
    TooLarge(#[from] types::TooLarge),
    /// This controller is stopping; another one may perform it.
    #[error("this controller is stopping")]
    Stopped,
    /// This controller's disk failed, and it stops; another one may perform it.
    #[error("this controller's storage failed: {0}")]
    Storage(String),
}

/// What the leader answers to a forwarded command.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    /// Log index of the command.
    pub index: u64,
    pub reply: Reply,
}

/// What came of one try.
#[derive(Debug)]
pub(super) enum Failure {
    /// Certainly not taken: another leader may take it.
    NotTaken,
    /// Final.
    Final(ProposeError),
}

impl Replica {
    /// Performs a command: on the leader, wherever that is. Returns after it is applied here, so
    /// that a read of [`Replica::state`] afterwards sees it.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.propose_within(command, DEADLINE).await
    }

    /// The same for somebody who waits no longer than `patience`.
    pub async fn propose_within(
        &self,
        command: Command,
        patience: Duration,
    ) -> Result<Outcome, ProposeError> {
        let proposal = Proposal::encode(&command)?;
        let deadline = Instant::now() + patience;
        let answer = self
            .at_leader(deadline, |leader| {
                let proposal = proposal.clone();
                async move {
                    if leader == self.id() {
                        self.write(proposal, deadline).await
                    } else {
                        self.forward(leader, proposal, deadline).await
                    }
                }
            })
            .await?;
        self.applied_through(answer.index, deadline).await?;
        Ok(answer.reply?)
    }

    /// Returns once this replica has applied all that was committed anywhere before the call.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        self.read_barrier_within(DEADLINE).await
    }

    /// The same for somebody who waits no longer than `patience`.
    pub async fn read_barrier_within(&self, patience: Duration) -> Result<(), ProposeError> {
        let deadline = Instant::now() + patience;
        // A round waits for the one before it, and each for a leader.
        let index = timeout_at(deadline, self.next_round())
            .await
            .map_err(|_| ProposeError::NoLeader)??;
        // A read changes nothing: what it lacks is a leader that answers.
        self.applied_through(index, deadline)
            .await
            .map_err(|error| match error {
                ProposeError::TimedOut => ProposeError::NoLeader,
                other => other,
            })
    }

    /// What is committed, by the leader's word after a majority confirmed that it leads.
    pub(super) async fn ask_how_far(&self) -> Result<u64, ProposeError> {
        let deadline = Instant::now() + DEADLINE;
        self.at_leader(deadline, |leader| async move {
            if leader == self.id() {
                self.read_index(deadline).await
            } else {
                self.ask_read_index(leader, deadline).await
            }
        })
        .await
    }

    /// Tries `act` at whoever leads until it is taken, fails for good, or time runs out.
    async fn at_leader<T, F>(
        &self,
        deadline: Instant,
        act: impl Fn(u64) -> F,
    ) -> Result<T, ProposeError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut leadership = self.leadership();
        loop {
            if let Some(error) = self.stopped() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::NoLeader);
            }
            let leader = leadership.borrow_and_update().leader;
            if let Some(leader) = leader {
                match act(leader).await {
                    Ok(done) => return Ok(done),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::NotTaken) => {}
                }
            }
            let until = deadline.min(Instant::now() + RETRY_PAUSE);
            if let Ok(Err(_)) = timeout_at(until, leadership.changed()).await {
                // Nobody follows Raft any more: it has ended.
                return Err(self.stopped().unwrap_or(ProposeError::Stopped));
            }
        }
    }

    /// Waits until entry `index` is applied and visible here.
    async fn applied_through(&self, index: u64, deadline: Instant) -> Result<(), ProposeError> {
        let applied = self.shared.published.progress.reached(index);
        match timeout_at(deadline, applied).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.stopped().unwrap_or(ProposeError::Stopped)),
            Err(_) => Err(ProposeError::TimedOut),
        }
    }

    /// Performs a command on this replica, which should lead.
    pub(super) async fn write(
        &self,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let written = timeout_at(deadline, self.shared.raft.client_write(proposal))
            .await
            .map_err(|_| Failure::Final(ProposeError::TimedOut))?;
        match written {
            Ok(response) => Ok(Answer {
                index: response.log_id.index,
                reply: response.data,
            }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(Failure::NotTaken)
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(Failure::Final(ProposeError::TimedOut))
            }
            Err(RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            )) => unreachable!("a plain write changes no membership and names no precondition"),
            // Raft may have ended after it took the command.
            Err(RaftError::Fatal(_)) => Err(Failure::Final(
                self.stopped().unwrap_or(ProposeError::TimedOut),
            )),
        }
    }

    async fn forward(
        &self,
        leader: u64,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let Ok(caller) = self.shared.peers.caller(leader, Lane::Requests) else {
            return Err(Failure::NotTaken);
        };
        let answer = caller.call(Ask::Propose, proposal.encoded().clone());
        let unknown = Failure::Final(ProposeError::TimedOut);
        // A leader that died does not say so: who leads in its place does.
        let mut leadership = self.leadership();
        let succeeded = async {
            let another = leadership.wait_for(|l| l.leader.is_some_and(|now| now != leader));
            // An error means that this replica stops.
            drop(another.await);
            sleep(LAST_ANSWERS).await;
        };
        let answer = tokio::select! {
            biased;
            answer = timeout_at(deadline, answer) => answer,
            () = succeeded => return Err(unknown),
        };
        match answer {
            Err(_) => Err(unknown),
            Ok(Ok(answer)) => codec::get_message(&answer).map_err(|error| {
                tracing::warn!(leader, %error, "the leader's answer cannot be read");
                unknown
            }),
            // Said before the command was taken, or by a controller that takes none in this way, or
            // here since too much waits for its turn.
            Ok(Err(status))
                if matches!(
                    status.code(),
                    Code::FailedPrecondition | Code::Unimplemented | Code::ResourceExhausted
                ) =>
            {
                Err(Failure::NotTaken)
            }
            Ok(Err(status)) => {
                tracing::debug!(leader, %status, "a forwarded command got no answer");
                Err(unknown)
            }
        }
    }

    /// The read index of this replica, which should lead: a majority confirms that it does.
    pub(super) async fn read_index(&self, deadline: Instant) -> Result<u64, Failure> {
        // One that no majority answers would ask for ever; whoever leads in its place is asked then.
        let until = deadline.min(Instant::now() + self.shared.lease);
        let read = self.shared.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let read = timeout_at(until, read)
            .await
            .map_err(|_| Failure::NotTaken)?;
        match read {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(
                LinearizableReadError::<TypeConfig>::ForwardToLeader(_)
                | LinearizableReadError::QuorumNotEnough(_),
            )) => Err(Failure::NotTaken),
            Err(RaftError::Fatal(_)) => Err(Failure::Final(
                self.stopped().unwrap_or(ProposeError::Stopped),
            )),
        }
    }

    async fn ask_read_index(&self, leader: u64, deadline: Instant) -> Result<u64, Failure> {
        let Ok(caller) = self.shared.peers.caller(leader, Lane::Requests) else {
            return Err(Failure::NotTaken);
        };
        // Asking again is always safe; a leader that went silent is given up for a new one.
        let until = deadline.min(Instant::now() + self.shared.lease);
        let answer = timeout_at(until, caller.call(Ask::ReadIndex, Bytes::new())).await;
        let index = answer
            .ok()
            .and_then(Result::ok)
            .as_deref()
            .and_then(index_of);
        index.ok_or(Failure::NotTaken)
    }
}
