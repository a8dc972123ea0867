//! How Raft's small calls reach a peer: in streams without HTTP/2, or as gRPC where the peer is of an
//! older version or the network is simulated.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hive_proto::calls::Calls;
use hive_proto::v1::peers_client::PeersClient;
use hive_proto::v1::{RaftMessage, ReadIndexRequest};
use tonic::Status;

use super::Channel;

/// What is asked. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ask {
    /// Raft's entries and heartbeats.
    Append = 1,
    /// A command for the leader.
    Propose = 2,
    /// How far is committed. The question is empty, the answer 8 bytes, the lowest first.
    ReadIndex = 3,
}

impl TryFrom<u8> for Ask {
    type Error = Status;

    fn try_from(kind: u8) -> Result<Self, Status> {
        match kind {
            1 => Ok(Self::Append),
            2 => Ok(Self::Propose),
            3 => Ok(Self::ReadIndex),
            other => Err(Status::unimplemented(format!(
                "this controller does not know call {other}"
            ))),
        }
    }
}

/// A stream in which calls are begun over there in the order in which they were made, also if none
/// is awaited in between.
pub trait InOrder: Send + Sync {
    /// The call is on its way when this returns.
    fn call(&self, ask: Ask, body: Bytes) -> BoxFuture<'static, Result<Bytes, Status>>;
}

impl InOrder for Calls {
    fn call(&self, ask: Ask, body: Bytes) -> BoxFuture<'static, Result<Bytes, Status>> {
        Calls::call(self, ask as u8, body).boxed()
    }
}

/// Calls to one peer in one lane, over the link as it is now. Not to be kept: links change.
#[derive(Clone)]
pub enum Caller {
    InOrder(Arc<dyn InOrder>),
    Grpc(Box<PeersClient<Channel>>),
}

impl Caller {
    /// gRPC promises no order.
    pub fn keeps_order(&self) -> bool {
        matches!(self, Self::InOrder(_))
    }

    /// Makes a call.
    pub fn call(self, ask: Ask, body: Bytes) -> BoxFuture<'static, Result<Bytes, Status>> {
        match self {
            Self::InOrder(stream) => stream.call(ask, body),
            Self::Grpc(client) => by_grpc(*client, ask, body).boxed(),
        }
    }
}

async fn by_grpc(mut client: PeersClient<Channel>, ask: Ask, body: Bytes) -> Result<Bytes, Status> {
    match ask {
        Ask::Append => Ok(client.append(RaftMessage { body }).await?.into_inner().body),
        Ask::Propose => Ok(client
            .propose(RaftMessage { body })
            .await?
            .into_inner()
            .body),
        Ask::ReadIndex => {
            let reply = client.read_index(ReadIndexRequest {}).await?.into_inner();
            Ok(index_bytes(reply.index))
        }
    }
}

pub fn index_bytes(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_le_bytes())
}

pub fn index_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
