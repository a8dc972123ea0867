//! What enrolled agents ask: fresh certificates, their session, artifacts.

use std::pin::Pin;

use futures::Stream;
use hive_identity::{KeyFingerprint, Subject};
use hive_proto::grpc::LinkInfo;
use hive_proto::v1::gateway_server::Gateway as GatewayRpc;
use hive_proto::v1::{
    AgentMessage, ControllerMessage, FetchArtifactRequest, RenewRequest, RenewResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::audited::Record;
use super::peers_service::{Chunks, artifact_chunks};
use super::session::{OUTBOX, Session};
use super::{EnrolmentService, Nodes, Notices, Wakes, enrol};
use crate::artifacts::{Artifacts, Digest};
use crate::store::Replica;
use crate::together::Together;

pub struct AgentsService {
    pub together: Together,
    pub replica: Replica,
    pub artifacts: Artifacts,
    pub nodes: Nodes,
    pub enrolment: EnrolmentService,
    pub wakes: Wakes,
    pub notices: Notices,
    pub cancel: CancellationToken,
}

impl AgentsService {
    /// The enrolled node at the other end.
    fn node<T>(&self, request: &Request<T>) -> Result<(String, KeyFingerprint), Status> {
        let info = request.extensions().get::<LinkInfo>();
        let Some(peer) = info.and_then(|info| info.peer.as_ref()) else {
            return Err(Status::unauthenticated(
                "enrol first: this link shows no certificate",
            ));
        };
        let Subject::Node { name } = &peer.subject else {
            return Err(Status::permission_denied("only nodes may ask this"));
        };
        if !enrol::is_enrolled(&self.replica.state(), name, &peer.key) {
            return Err(Status::permission_denied(format!(
                "node {name:?} was removed from the swarm"
            )));
        }
        Ok((name.clone(), peer.key))
    }

    /// Least privilege: a node reads the compiled components that its own assignments name.
    fn may_fetch(&self, node: &str, digest: &Digest) -> bool {
        let hex = digest.hex();
        self.replica.state().assignments_on(node).any(|object| {
            let spec = &object.to_value()["spec"];
            [spec, &spec["previous"]]
                .iter()
                .any(|place| place["nodeName"] == node && place["artifact"]["sha256"] == hex)
        })
    }
}

#[tonic::async_trait]
impl GatewayRpc for AgentsService {
    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let (node, key) = self.node(&request)?;
        let mut record = Record::begin(&request, "/hive.v1.Gateway/Renew", "update");
        record.about("nodes", &node, "certificate");
        let renewed = self.enrolment.renew(&request.get_ref().csr, &node, &key);
        record.ended(&self.enrolment.audit, &renewed).await;
        let issued = renewed?;
        tracing::info!(node, "certificate renewed");
        Ok(Response::new(RenewResponse {
            certificate: issued.der.to_vec(),
        }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (node, key) = self.node(&request)?;
        if !self.nodes.may_begin_session(&node) {
            return Err(Status::resource_exhausted(
                "this node begins too many sessions: try again in a while",
            ));
        }
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            together: self.together.clone(),
            replica: self.replica.clone(),
            nodes: self.nodes.clone(),
            wakes: self.wakes.clone(),
            notices: self.notices.clone(),
            node,
            device: key.to_string(),
            outbox,
            cancel: self.cancel.clone(),
        };
        // Ends with the stream, the node's removal, or the controller.
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    type FetchArtifactStream = Chunks;

    async fn fetch_artifact(
        &self,
        request: Request<FetchArtifactRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let (node, _) = self.node(&request)?;
        let digest = Digest::try_from(&request.get_ref().sha256[..])
            .map_err(|e| Status::invalid_argument(format!("sha256: {e}")))?;
        if !self.may_fetch(&node, &digest) {
            return Err(Status::permission_denied(format!(
                "no assignment of node {node:?} names artifact {digest}"
            )));
        }
        let chunks = artifact_chunks(&self.artifacts, request.into_inner(), true).await?;
        Ok(Response::new(chunks))
    }
}
