//! Raft's messages to the other controllers.
//!
//! Heartbeats, appends and snapshots each go through a channel of their own, so that none waits
//! behind another. Appends follow each other without waiting for answers. What was sent and got no
//! answer is an error here; Raft itself repeats it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use hive_proto::v1::peers_client::PeersClient;
use hive_proto::v1::{RaftMessage, SnapshotChunk};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::type_config::alias;
use openraft::{RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::codec;
use super::compaction::Floor;
use super::refusals::Refusals;
use super::runtime;
use super::snapshot::SnapshotFile;
use super::types::{LogId, SnapshotMeta, TypeConfig, Vote};
use crate::peers::{Ask, Caller, Channel, Lane, Peers};
use crate::state::Member;

pub type RaftSnapshot = alias::SnapshotOf<TypeConfig, SnapshotFile>;
type RaftRpcError = RPCError<TypeConfig>;
type Appended<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RaftRpcError>>;
type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;

/// An append may wait for a slow disk's sync and for the batch before it. Raft offers a heartbeat
/// interval, which is for heartbeats.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// For a chunk of a snapshot to be taken; the whole may take as long as it gets on. Even a line of
/// 300 kbit/s carries one in that time, and a peer waits no longer for the next.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// From the last chunk to the answer: the peer checks the file, copies it and reads it in, some
/// GiB of an SD card at worst.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Appends on their way to one follower: entries, what was committed meanwhile, and the next of
/// both. More would only fill a slow follower's memory: one may have 3 MiB.
const APPENDS_UNDER_WAY: usize = 4;

/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// Chunks read ahead of the network.
const SNAPSHOT_CHUNKS_AHEAD: usize = 2;

/// Opens a snapshot's stream.
#[derive(Serialize, Deserialize)]
pub struct SnapshotHeader {
    pub vote: Vote,
    pub meta: SnapshotMeta,
}

/// A request for a vote, or whether one would be given.
#[derive(Serialize, Deserialize)]
pub struct VoteMessage {
    pub pre_vote: bool,
    pub request: VoteRequest<TypeConfig>,
}

/// Makes the clients that Raft sends through.
pub struct Network {
    id: u64,
    peers: Peers,
    floor: Floor,
    refusals: Refusals,
}

impl Network {
    pub fn new(id: u64, peers: Peers, floor: Floor, refusals: Refusals) -> Self {
        Self {
            id,
            peers,
            floor,
            refusals,
        }
    }

    fn client(&self, target: u64, member: &Member, lane: Lane) -> RaftClient {
        self.peers.set_member(target, member.clone());
        RaftClient {
            id: self.id,
            target,
            lane,
            peers: self.peers.clone(),
            floor: self.floor.clone(),
            refusals: self.refusals.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = RaftClient;

    async fn new_client(&mut self, target: u64, node: &Member) -> RaftClient {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> RaftClient {
        self.client(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> RaftClient {
        self.client(target, node, Lane::Bulk)
    }
}

/// Sends to one controller through one lane.
pub struct RaftClient {
    id: u64,
    target: u64,
    lane: Lane,
    peers: Peers,
    floor: Floor,
    refusals: Refusals,
}

/// Raft takes it for a failure of the network, and sends a snapshot next.
#[derive(Debug, thiserror::Error)]
#[error("controller {target} needs entries of the log that are to go: it gets a snapshot")]
struct TooFarBehind {
    target: u64,
}

impl RaftClient {
    fn client(&self, lane: Lane) -> Result<PeersClient<Channel>, Unreachable<TypeConfig>> {
        self.peers
            .client(self.target, lane)
            .map_err(|error| Unreachable::new(&error))
    }

    async fn call<R, F>(
        &self,
        action: RPCTypes,
        lane: Lane,
        timeout: Duration,
        body: Bytes,
        send: impl FnOnce(PeersClient<Channel>, Request<RaftMessage>) -> F,
    ) -> Result<R, RaftRpcError>
    where
        R: DeserializeOwned,
        F: Future<Output = Result<Response<RaftMessage>, Status>>,
    {
        let client = self.client(lane)?;
        let request = Request::new(RaftMessage { body });
        let answer = runtime::timeout(timeout, send(client, request))
            .await
            .map_err(|_| self.timeout(action, timeout))?;
        match &answer {
            Ok(_) => self.refusals.heard(self.target),
            Err(status) if status.code() == Code::PermissionDenied => {
                self.refusals.refused(self.target);
            }
            Err(_) => {}
        }
        let answer = answer.map_err(refused)?;
        codec::get_message(&answer.into_inner().body).map_err(|e| NetworkError::new(&e).into())
    }

    fn caller(&self) -> Result<Caller, Unreachable<TypeConfig>> {
        self.peers
            .caller(self.target, self.lane)
            .map_err(|error| Unreachable::new(&error))
    }

    /// Sends an append; it is on its way when this returns, before its answer is awaited.
    fn append(
        &self,
        caller: Caller,
        request: &AppendEntriesRequest<TypeConfig>,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<AppendEntriesResponse<TypeConfig>, RaftRpcError>> {
        let first = request.entries.first().map(|entry| entry.log_id.index);
        if first.is_some_and(|first| first < self.floor.first()) {
            let target = self.target;
            let error = NetworkError::new(&TooFarBehind { target }).into();
            return std::future::ready(Err(error)).boxed();
        }
        let timeout = match self.lane {
            Lane::Heartbeat => ttl,
            Lane::Append | Lane::Bulk | Lane::Requests => APPEND_TIMEOUT.max(ttl),
        };
        let answer = caller.call(Ask::Append, codec::put_append(request));
        let late = self.timeout(RPCTypes::AppendEntries, timeout);
        async move {
            let answer = runtime::timeout(timeout, answer).await;
            let answer = answer.map_err(|_| late)?.map_err(refused)?;
            codec::get_message(&answer).map_err(|e| NetworkError::new(&e).into())
        }
        .boxed()
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout {
            action,
            id: self.id,
            target: self.target,
            timeout,
        }
    }

    async fn send_vote(
        &self,
        pre_vote: bool,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        let body = codec::put_message(&VoteMessage { pre_vote, request });
        self.call(
            RPCTypes::Vote,
            Lane::Heartbeat,
            option.soft_ttl(),
            body,
            |mut client, request| async move { client.vote(request).await },
        )
        .await
    }
}

/// Raft backs off from a peer that is unreachable, and repeats at once what failed otherwise.
fn refused(status: Status) -> RaftRpcError {
    match status.code() {
        // Of a controller that takes none in this way: it is asked otherwise.
        Code::Unavailable | Code::Unimplemented => Unreachable::new(&status).into(),
        _ => NetworkError::new(&status).into(),
    }
}

impl RaftNetworkV2<TypeConfig> for RaftClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RaftRpcError> {
        self.append(self.caller()?, &request, option.soft_ttl())
            .await
    }

    /// Ends with the first append that the follower did not take whole: those behind it are moot.
    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Appended<'s>, RaftRpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let this = &*self;
        let session = async move {
            let mut requests = requests;
            // Raft waits in there before it tries again.
            let Some(first) = requests.next().await else {
                return Ok(stream::empty().boxed());
            };
            // One for all of them: Raft ends if a follower that took an append answers one sent
            // later as if it had not.
            let caller = this.caller()?;
            let under_way = match caller.keeps_order() {
                true => APPENDS_UNDER_WAY,
                false => 1,
            };
            let answers = stream::iter([first])
                .chain(requests)
                .map(move |request| {
                    let prev = request.prev_log_id;
                    let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                    let answer = this.append(caller.clone(), &request, option.soft_ttl());
                    async move { (prev, last, answer.await) }
                })
                .buffered(under_way);
            Ok(until_refused(answers).boxed())
        };
        session.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.send_vote(false, request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.send_vote(true, request, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client(self.lane)?;
        let header = codec::put_message(&SnapshotHeader {
            vote,
            meta: snapshot.meta,
        });
        let (chunks, stream) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let reader = read_chunks(snapshot.snapshot, header, chunks);
        let mut reader = std::pin::pin!(reader);
        let mut answered = std::pin::pin!(client.install_snapshot(ReceiverStream::new(stream)));
        let mut cancel = std::pin::pin!(cancel);
        // The peer may refuse before it has all.
        let early = tokio::select! {
            biased;
            closed = &mut cancel => return Err(closed.into()),
            read = &mut reader => {
                read.map_err(|error| NetworkError::new(&error))?;
                None
            }
            answer = &mut answered => Some(answer),
        };
        let answer = match early {
            Some(answer) => answer,
            None => tokio::select! {
                biased;
                closed = cancel => return Err(closed.into()),
                answer = runtime::timeout(INSTALL_TIMEOUT, answered) => answer
                    .map_err(|_| self.timeout(RPCTypes::InstallSnapshot, INSTALL_TIMEOUT))?,
            },
        };
        let answer = answer.map_err(refused)?;
        codec::get_message(&answer.into_inner().body).map_err(|e| NetworkError::new(&e).into())
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse, RaftRpcError> {
        let body = codec::put_message(&request);
        self.call(
            RPCTypes::TransferLeader,
            Lane::Heartbeat,
            option.soft_ttl(),
            body,
            |mut client, request| async move { client.transfer_leader(request).await },
        )
        .await
    }
}

/// Feeds a snapshot into a stream; ends early when nobody takes it any more, and fails when that takes
/// too long.
async fn read_chunks(
    snapshot: SnapshotFile,
    header: Bytes,
    chunks: mpsc::Sender<SnapshotChunk>,
) -> std::io::Result<()> {
    let mut chunk = SnapshotChunk {
        header,
        data: Bytes::new(),
    };
    let mut offset = 0;
    loop {
        let file = snapshot.clone();
        let data = runtime::blocking(move || file.read_at(offset, SNAPSHOT_CHUNK_BYTES)).await??;
        if data.is_empty() && offset > 0 {
            return Ok(());
        }
        offset += data.len() as u64;
        chunk.data = data.into();
        let taken = chunks.send(std::mem::take(&mut chunk));
        match runtime::timeout(CHUNK_TIMEOUT, taken).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

type Answer = Result<AppendEntriesResponse<TypeConfig>, RaftRpcError>;

/// What came of each append, up to the first that the follower did not take whole.
fn until_refused<'s>(
    answers: impl Stream<Item = (Option<LogId>, Option<LogId>, Answer)> + Send + 's,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RaftRpcError>> + Send + 's {
    stream::unfold(Some(Box::pin(answers)), |answers| async move {
        let mut answers = answers?;
        let (prev, last, answer) = answers.next().await?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some((Err(error), None)),
        };
        let whole = match &answer {
            AppendEntriesResponse::PartialSuccess(matching) => *matching == last,
            _ => true,
        };
        let result = answer.into_stream_result(prev, last);
        let more = (whole && result.is_ok()).then_some(answers);
        Some((Ok(result), more))
    })
}
