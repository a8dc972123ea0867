//! What other controllers ask of this one: Raft, forwarded commands, presence, artifacts.

use std::error::Error;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use hive_identity::Subject;
use hive_manifests::function::MAX_COMPILED_BYTES;
use hive_proto::artifact;
use hive_proto::grpc::LinkInfo;
use hive_proto::v1::peers_server::Peers as PeersRpc;
use hive_proto::v1::{
    ArtifactChunk, DescribeControllersReply, DescribeControllersRequest, FetchArtifactRequest,
    FunctionUseReply, FunctionUseRequest, NodeUsageReply, NodeUsageRequest, PresenceReply,
    PresenceReport, PutArtifactChunk, PutArtifactReply, RaftMessage, ReadIndexReply,
    ReadIndexRequest, RemoveControllerReply, RemoveControllerRequest, SnapshotChunk,
    TunnelDoorReply, TunnelDoorRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::audited::Record;
use super::{Nodes, Presence, status};
use crate::artifacts::{Artifacts, Digest, pieces};
use crate::audit::Audit;
use crate::controllers::Controllers;
use crate::store::Replica;
use crate::tunnels::Tunnels;

pub struct PeersService {
    pub replica: Replica,
    pub artifacts: Artifacts,
    pub nodes: Nodes,
    pub presence: Presence,
    pub controllers: Controllers,
    pub tunnels: Tunnels,
    pub audit: Audit,
}

pub type Chunks = Pin<Box<dyn Stream<Item = Result<ArtifactChunk, Status>> + Send>>;

/// Only a controller that was not removed may speak here: its Raft id.
fn controller<T>(replica: &Replica, request: &Request<T>) -> Result<u64, Status> {
    let peer = request
        .extensions()
        .get::<LinkInfo>()
        .and_then(|info| info.peer.as_ref());
    let Some(Subject::Controller { raft_id }) = peer.map(|peer| &peer.subject) else {
        return Err(Status::permission_denied("only controllers may ask this"));
    };
    if replica.has_removed(*raft_id) {
        return Err(status::removed_controller(*raft_id));
    }
    Ok(*raft_id)
}

fn raft_reply(
    result: Result<Bytes, crate::store::HandleError>,
) -> Result<Response<RaftMessage>, Status> {
    result
        .map(|body| Response::new(RaftMessage { body }))
        .map_err(status::from_handle)
}

/// The bytes of an artifact as a stream of messages; any controller fetches what it lacks first.
pub async fn artifact_chunks(
    artifacts: &Artifacts,
    request: FetchArtifactRequest,
    may_fetch: bool,
) -> Result<Chunks, Status> {
    let digest = Digest::try_from(&request.sha256[..])
        .map_err(|e| Status::invalid_argument(format!("sha256: {e}")))?;
    if may_fetch {
        artifacts
            .ensure(&digest)
            .await
            .map_err(status::from_fetch)?;
    }
    let size = artifacts
        .files()
        .size(&digest)
        .ok_or_else(|| Status::not_found(format!("artifact {digest} is not held here")))?;
    if request.offset > size {
        return Err(Status::out_of_range(format!(
            "offset {} is past the end of {digest} ({size} bytes)",
            request.offset
        )));
    }
    let data = artifacts
        .files()
        .read(&digest, request.offset)
        .await
        .map_err(|e| Status::unavailable(format!("cannot read {digest}: {e}")))?
        .map_err(|e| Status::data_loss(e.to_string()));
    Ok(match request.takes_zstd {
        true => data
            .and_then(async |data| Ok(pieces::compressed(data).await))
            .boxed(),
        false => data.map_ok(artifact::plain).boxed(),
    })
}

#[tonic::async_trait]
impl PeersRpc for PeersService {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        controller(&self.replica, &request)?;
        raft_reply(self.replica.handle_append(request.into_inner().body).await)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        controller(&self.replica, &request)?;
        raft_reply(self.replica.handle_vote(request.into_inner().body).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        controller(&self.replica, &request)?;
        raft_reply(
            self.replica
                .handle_transfer_leader(request.into_inner().body)
                .await,
        )
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        controller(&self.replica, &request)?;
        raft_reply(
            self.replica
                .handle_install_snapshot(request.into_inner())
                .await,
        )
    }

    async fn propose(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        controller(&self.replica, &request)?;
        raft_reply(self.replica.handle_propose(request.into_inner().body).await)
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        controller(&self.replica, &request)?;
        let index = self
            .replica
            .handle_read_index()
            .await
            .map_err(status::from_handle)?;
        Ok(Response::new(ReadIndexReply { index }))
    }

    async fn report_presence(
        &self,
        request: Request<PresenceReport>,
    ) -> Result<Response<PresenceReply>, Status> {
        let id = controller(&self.replica, &request)?;
        let mut report = request.into_inner();
        let facts = report.facts.take().unwrap_or_default();
        self.presence.introduced(id, facts);
        let sequence = self.presence.heard(id, report);
        Ok(Response::new(PresenceReply { sequence }))
    }

    async fn describe_controllers(
        &self,
        request: Request<DescribeControllersRequest>,
    ) -> Result<Response<DescribeControllersReply>, Status> {
        controller(&self.replica, &request)?;
        match self.controllers.seen_by_leader() {
            Some(seen) => Ok(Response::new(seen)),
            None => Err(Status::failed_precondition("this controller does not lead")),
        }
    }

    async fn remove_controller(
        &self,
        request: Request<RemoveControllerRequest>,
    ) -> Result<Response<RemoveControllerReply>, Status> {
        controller(&self.replica, &request)?;
        let mut record = Record::begin(&request, "/hive.v1.Peers/RemoveController", "delete");
        let RemoveControllerRequest {
            raft_id,
            force,
            pass_on,
        } = request.into_inner();
        record.about("controllers", &raft_id.to_string(), "");
        let removed = match pass_on {
            true => self.controllers.remove(raft_id, force).await,
            false => self.controllers.remove_here(raft_id, force).await,
        };
        let removed = removed.map_err(status::from_remove);
        // What a controller passes on for a person was recorded where the person asked.
        if pass_on {
            record.ended(&self.audit, &removed).await;
        }
        removed?;
        Ok(Response::new(RemoveControllerReply {}))
    }

    async fn node_usage(
        &self,
        request: Request<NodeUsageRequest>,
    ) -> Result<Response<NodeUsageReply>, Status> {
        controller(&self.replica, &request)?;
        Ok(Response::new(NodeUsageReply {
            nodes: self.nodes.own_usage(),
        }))
    }

    async fn function_use(
        &self,
        request: Request<FunctionUseRequest>,
    ) -> Result<Response<FunctionUseReply>, Status> {
        controller(&self.replica, &request)?;
        Ok(Response::new(FunctionUseReply {
            functions: self.nodes.own_function_use_of(request.get_ref()),
        }))
    }

    async fn tunnel_door(
        &self,
        request: Request<TunnelDoorRequest>,
    ) -> Result<Response<TunnelDoorReply>, Status> {
        controller(&self.replica, &request)?;
        Ok(Response::new(self.tunnels.door(request.get_ref())))
    }

    async fn put_artifact(
        &self,
        request: Request<Streaming<PutArtifactChunk>>,
    ) -> Result<Response<PutArtifactReply>, Status> {
        controller(&self.replica, &request)?;
        let mut chunks = request.into_inner();
        let header = chunks
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the first message names the artifact"))?;
        let digest = Digest::try_from(&header.sha256[..])
            .map_err(|e| Status::invalid_argument(format!("sha256: {e}")))?;
        let received = self
            .artifacts
            .files()
            .receive(
                &digest,
                MAX_COMPILED_BYTES,
                chunks.map(|chunk| Ok::<_, Box<dyn Error + Send + Sync>>(pieces::of_put(chunk?)?)),
            )
            .await
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(PutArtifactReply {
            held: !received.created,
        }))
    }

    type FetchArtifactStream = Chunks;

    async fn fetch_artifact(
        &self,
        request: Request<FetchArtifactRequest>,
    ) -> Result<Response<Chunks>, Status> {
        controller(&self.replica, &request)?;
        let chunks = artifact_chunks(&self.artifacts, request.into_inner(), false).await?;
        Ok(Response::new(chunks))
    }
}
