//! The Raft part of what controllers ask of each other, answered by a simulated machine.

use std::pin::Pin;

use futures::Stream;
use hive_proto::v1::peers_server::Peers;
use hive_proto::v1::*;
use openraft::raft::AppendEntriesResponse;
use tonic::{Request, Response, Status, Streaming};

use super::faults::{Fault, Seen};
use crate::store::types::TypeConfig;
use crate::store::{Replica, codec};

#[derive(Clone)]
pub struct Answering {
    /// Nobody: all that is sent there is said to be there.
    pub replica: Option<Replica>,
    pub seen: Seen,
}

type Reply<T> = Result<Response<T>, Status>;

fn reply(body: bytes::Bytes) -> Response<RaftMessage> {
    Response::new(RaftMessage { body })
}

const NOT_SIMULATED: &str = "not simulated";

impl Answering {
    fn replica(&self) -> Result<&Replica, Status> {
        self.replica
            .as_ref()
            .ok_or_else(|| Status::unavailable("nobody is there"))
    }
}

#[tonic::async_trait]
impl Peers for Answering {
    async fn append(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        let Some(replica) = &self.replica else {
            let yes = AppendEntriesResponse::<TypeConfig>::Success;
            return Ok(reply(codec::put_message(&yes)));
        };
        Ok(reply(replica.handle_append(body).await?))
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        Ok(reply(self.replica()?.handle_vote(body).await?))
    }

    async fn transfer_leader(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        self.seen.happened(Fault::LeaderHandedOver);
        Ok(reply(self.replica()?.handle_transfer_leader(body).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Reply<RaftMessage> {
        let chunks = request.into_inner();
        let installed = self.replica()?.handle_install_snapshot(chunks).await?;
        self.seen.happened(Fault::SnapshotInstalled);
        Ok(reply(installed))
    }

    async fn propose(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        Ok(reply(self.replica()?.handle_propose(body).await?))
    }

    async fn read_index(&self, _: Request<ReadIndexRequest>) -> Reply<ReadIndexReply> {
        let index = self.replica()?.handle_read_index().await?;
        Ok(Response::new(ReadIndexReply { index }))
    }

    async fn report_presence(&self, _: Request<PresenceReport>) -> Reply<PresenceReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn function_use(&self, _: Request<FunctionUseRequest>) -> Reply<FunctionUseReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn tunnel_door(&self, _: Request<TunnelDoorRequest>) -> Reply<TunnelDoorReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn node_usage(&self, _: Request<NodeUsageRequest>) -> Reply<NodeUsageReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn describe_controllers(
        &self,
        _: Request<DescribeControllersRequest>,
    ) -> Reply<DescribeControllersReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn remove_controller(
        &self,
        _: Request<RemoveControllerRequest>,
    ) -> Reply<RemoveControllerReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    async fn put_artifact(
        &self,
        _: Request<Streaming<PutArtifactChunk>>,
    ) -> Reply<PutArtifactReply> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }

    type FetchArtifactStream = Pin<Box<dyn Stream<Item = Result<ArtifactChunk, Status>> + Send>>;

    async fn fetch_artifact(
        &self,
        _: Request<FetchArtifactRequest>,
    ) -> Reply<Self::FetchArtifactStream> {
        Err(Status::unimplemented(NOT_SIMULATED))
    }
}
