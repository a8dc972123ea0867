//! The other controllers' requests, answered: the server side of [`super::network`].
//!
//! Bodies are opaque to the gRPC service; it passes them here and turns errors into a status.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hive_proto::v1::SnapshotChunk;
use openraft::Snapshot;
use openraft::errors::RaftError;
use openraft::raft::TransferLeaderRequest;
use tonic::Status;

use super::codec::{self, CodecError};
use super::network::{SnapshotHeader, VoteMessage};
use super::propose::Failure;
use super::runtime::{self, Instant, timeout};
use super::snapshot::{Receiving, SnapshotError, SnapshotFile};
use super::types::{Proposal, TypeConfig};
use super::{ProposeError, Replica};

/// For a forwarded command; its author waits as long, counted from earlier.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Between two chunks of a snapshot. A sender that went silent gives its place to the next.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Why another controller's request failed.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// Nothing was done.
    #[error("this controller does not lead")]
    NotLeader,
    /// What a command did is unknown.
    #[error("no answer in time")]
    TimedOut,
    #[error("the message cannot be read")]
    Malformed(#[from] CodecError),
    #[error("the sender stopped in the middle of a snapshot")]
    Interrupted,
    #[error("cannot take in the snapshot")]
    Snapshot(#[from] SnapshotError),
    #[error("this controller is stopping")]
    Stopped,
}

impl From<HandleError> for Status {
    fn from(error: HandleError) -> Self {
        match &error {
            HandleError::NotLeader => Status::failed_precondition(error.to_string()),
            HandleError::TimedOut => Status::deadline_exceeded(error.to_string()),
            HandleError::Malformed(source) => {
                Status::invalid_argument(format!("{error}: {source}"))
            }
            HandleError::Interrupted => Status::cancelled(error.to_string()),
            HandleError::Snapshot(source) => Status::internal(format!("{error}: {source}")),
            HandleError::Stopped => Status::unavailable(error.to_string()),
        }
    }
}

/// Raft has ended, or ends because of this.
impl From<RaftError<TypeConfig>> for HandleError {
    fn from(_: RaftError<TypeConfig>) -> Self {
        Self::Stopped
    }
}

impl Replica {
    pub async fn handle_append(&self, body: Bytes) -> Result<Bytes, HandleError> {
        let request = codec::get_append(body)?;
        let response = self.shared.raft.append_entries(request).await?;
        Ok(codec::put_message(&response))
    }

    pub async fn handle_vote(&self, body: Bytes) -> Result<Bytes, HandleError> {
        let VoteMessage { pre_vote, request } = codec::get_message(&body)?;
        let response = if pre_vote {
            self.shared.raft.pre_vote(request).await?
        } else {
            self.shared.raft.vote(request).await?
        };
        Ok(codec::put_message(&response))
    }

    pub async fn handle_transfer_leader(&self, body: Bytes) -> Result<Bytes, HandleError> {
        let request: TransferLeaderRequest<TypeConfig> = codec::get_message(&body)?;
        let response = self
            .shared
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(|_| HandleError::Stopped)?;
        Ok(codec::put_message(&response))
    }

    /// Performs a command that a follower forwards; never forwards it further.
    pub async fn handle_propose(&self, body: Bytes) -> Result<Bytes, HandleError> {
        let proposal = Proposal::from_encoded(body).map_err(CodecError::from)?;
        // In the log a command that cannot be read would stop every replica.
        let command = proposal.decode().map_err(CodecError::from)?;
        command.check().map_err(CodecError::from)?;
        let answer = self
            .write(proposal, Instant::now() + PROPOSE_DEADLINE)
            .await
            .map_err(refusal)?;
        Ok(codec::put_message(&answer))
    }

    pub async fn handle_read_index(&self) -> Result<u64, HandleError> {
        // Who asks waits no longer.
        let deadline = Instant::now() + self.shared.lease;
        self.read_index(deadline).await.map_err(refusal)
    }

    pub async fn handle_install_snapshot(
        &self,
        chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Send,
    ) -> Result<Bytes, HandleError> {
        let (header, snapshot) = self.receive_snapshot(chunks).await?;
        let snapshot = Snapshot {
            meta: header.meta,
            snapshot,
        };
        let response = self
            .shared
            .raft
            .install_full_snapshot(header.vote, snapshot)
            .await
            .map_err(|_| HandleError::Stopped)?;
        Ok(codec::put_message(&response))
    }

    async fn receive_snapshot(
        &self,
        chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Send,
    ) -> Result<(SnapshotHeader, SnapshotFile), HandleError> {
        // One at a time: two leaders cannot both fill this disk.
        let _turn = self.shared.receiving.lock().await;
        let mut chunks = std::pin::pin!(chunks);
        let mut header: Option<SnapshotHeader> = None;
        let mut receiving = self.shared.snapshots.receive()?;
        loop {
            let next = timeout(CHUNK_TIMEOUT, chunks.next())
                .await
                .map_err(|_| HandleError::Interrupted)?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|_| HandleError::Interrupted)?;
            if header.is_none() {
                header = Some(codec::get_message(&chunk.header)?);
            }
            receiving = write(receiving, chunk.data).await?;
        }
        let header = header.ok_or(CodecError::Short)?;
        let meta = header.meta.clone();
        let snapshot = runtime::blocking(move || receiving.finish(&meta))
            .await
            .map_err(|_| HandleError::Stopped)??;
        Ok((header, snapshot))
    }
}

async fn write(mut receiving: Receiving, data: Bytes) -> Result<Receiving, HandleError> {
    runtime::blocking(move || receiving.write(&data).map(|()| receiving))
        .await
        .map_err(|_| HandleError::Stopped)?
        .map_err(HandleError::from)
}

fn refusal(failure: Failure) -> HandleError {
    match failure {
        Failure::NotTaken => HandleError::NotLeader,
        Failure::Final(ProposeError::Stopped | ProposeError::Storage(_)) => HandleError::Stopped,
        Failure::Final(_) => HandleError::TimedOut,
    }
}
