//! The door for agents and for other controllers: links come in, and what travels in their
//! streams is served according to who is at the other end.
//!
//! Who shows no certificate may enrol and nothing else.

mod agents_service;
mod audited;
pub mod bounds;
mod calls;
pub mod desired;
mod enrol;
mod function_usage;
mod invoke;
mod links;
mod local_routes;
mod nodes;
mod notices;
mod peers_service;
mod presence;
pub mod report;
mod session;
mod status;
mod wakes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hive_identity::{CertificateAuthority, Subject};
use hive_manifests::Resource;
use hive_proto::grpc::{self, GrpcStream};
use hive_proto::link::{Link, Listener, Purpose};
use hive_proto::v1::Endpoint;
use hive_proto::v1::enrolment_server::EnrolmentServer;
use hive_proto::v1::gateway_server::GatewayServer;
use hive_proto::v1::peers_server::PeersServer;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::artifacts::Artifacts;
use crate::audit::Audit;
use crate::controllers::Controllers;
use crate::objects;
use crate::state::{Member, State};
use crate::store::Replica;
use crate::together::Together;
use crate::tunnels::Tunnels;

pub use calls::serve as serve_calls;
pub use enrol::{EnrolmentService, api_names};
#[cfg(test)]
pub use function_usage::Counters;
pub use function_usage::{FunctionName, FunctionUse, SwarmUse, WINDOW};
pub use invoke::{Body, BoxError, Failed, Invoker, SendError};
pub use links::Links;
pub use nodes::{NodeUnreachable, Nodes};
pub use presence::{Presence, report};

use agents_service::AgentsService;
use notices::Notices;
use peers_service::PeersService;
use wakes::Wakes;

/// A newcomer enrols at once; what stays longer without a certificate has other plans.
const NEWCOMER_TIMEOUT: Duration = Duration::from_secs(60);

/// Links without a certificate at once. Each may make this controller hold some MB; more are
/// closed, and try again.
const MAX_NEWCOMERS: usize = 64;

/// gRPC streams that wait to be taken over by the server; it takes them at once.
const STREAM_QUEUE: usize = 64;

#[derive(Clone)]
pub struct Gateway {
    pub replica: Replica,
    pub artifacts: Artifacts,
    pub nodes: Nodes,
    pub presence: Presence,
    pub controllers: Controllers,
    /// As this controller carries them.
    pub tunnels: Tunnels,
    pub invoker: Invoker,
    pub authority: Arc<CertificateAuthority>,
    /// Is told who comes in, and who goes.
    pub audit: Audit,
    /// How long certificates live that are issued here.
    pub certificate_lifetime: Duration,
}

/// Where the controllers listen, as the protocol says it.
pub fn endpoints(state: &State) -> Vec<Endpoint> {
    state
        .controllers()
        .map(|(raft_id, member)| endpoint(raft_id, member))
        .collect()
}

pub fn endpoint(raft_id: u64, member: &Member) -> Endpoint {
    Endpoint {
        raft_id,
        link: member.link.clone(),
        api: member.api.clone(),
        ingress: member.ingress.clone(),
        ingress_tls: member.ingress_tls.clone().unwrap_or_default(),
    }
}

impl Gateway {
    /// Serves links until cancelled, then closes them.
    pub async fn run(self, listener: Listener, cancel: CancellationToken) {
        let (streams, incoming) = mpsc::channel(STREAM_QUEUE);
        let tasks = TaskTracker::new();
        let wakes = Wakes::default();
        tasks.spawn(wakes.clone().run(self.replica.clone(), cancel.clone()));
        let (together, written) = Together::new(self.replica.clone(), cancel.clone());
        tasks.spawn(written);
        let (notices, written) = Notices::new(self.replica.clone(), cancel.clone());
        tasks.spawn(written);
        let routes = self.routes(together, wakes, notices, &cancel);
        let served = grpc::serve(routes, incoming, cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the gRPC server failed");
            }
        });
        tasks.spawn(self.clone().close_removed(cancel.clone()));
        let newcomers = Arc::new(Semaphore::new(MAX_NEWCOMERS));
        loop {
            let link = tokio::select! {
                () = cancel.cancelled() => break,
                link = listener.accept() => link,
            };
            let Some(link) = link else {
                break;
            };
            if link.peer().is_none() {
                let Ok(slot) = newcomers.clone().try_acquire_owned() else {
                    link.close("too many newcomers at once: try again soon");
                    continue;
                };
                let newcomer = link.clone();
                tasks.spawn(async move {
                    if tokio::time::timeout(NEWCOMER_TIMEOUT, newcomer.closed())
                        .await
                        .is_err()
                    {
                        newcomer.close("enrolled too slowly: try again");
                    }
                    drop(slot);
                });
            }
            let served = self.clone();
            tasks.spawn(served.serve(link, streams.clone(), tasks.clone(), cancel.clone()));
        }
        drop(streams);
        listener.close().await;
        tasks.close();
        tasks.wait().await;
    }

    fn routes(
        &self,
        together: Together,
        wakes: Wakes,
        notices: Notices,
        cancel: &CancellationToken,
    ) -> tonic::service::Routes {
        let enrolment = EnrolmentService::new(
            together.clone(),
            self.authority.clone(),
            self.certificate_lifetime,
            self.audit.clone(),
        );
        let agents = AgentsService {
            together,
            replica: self.replica.clone(),
            artifacts: self.artifacts.clone(),
            nodes: self.nodes.clone(),
            enrolment: enrolment.clone(),
            wakes,
            notices,
            cancel: cancel.clone(),
        };
        let peers = PeersService {
            replica: self.replica.clone(),
            artifacts: self.artifacts.clone(),
            nodes: self.nodes.clone(),
            presence: self.presence.clone(),
            controllers: self.controllers.clone(),
            tunnels: self.tunnels.clone(),
            audit: self.audit.clone(),
        };
        tonic::service::Routes::new(EnrolmentServer::new(enrolment))
            .add_service(GatewayServer::new(agents))
            .add_service(PeersServer::new(peers))
    }

    /// Takes the streams of one link until it closes.
    async fn serve(
        self,
        link: Link,
        streams: mpsc::Sender<GrpcStream>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) {
        let node = match link.peer().map(|peer| (&peer.subject, &peer.key)) {
            Some((Subject::Node { name }, key)) => {
                if !enrol::is_enrolled(&self.replica.state(), name, key)
                    && !self.enrolled_meanwhile(name, key).await
                {
                    tracing::info!(node = name, "refusing a node that was removed");
                    link.close(
                        "this node is not part of the swarm: it was removed, or never joined",
                    );
                    return;
                }
                Some(name.clone())
            }
            Some((Subject::Controller { .. }, _)) | None => None,
        };
        if let Some(name) = &node {
            self.nodes.links().add(name, link.clone());
            tracing::info!(node = name, link = link.id(), transport = ?link.transport(), "node linked");
            // Whoever removed it before it was among the links did not close this one.
            if let Some(peer) = link.peer()
                && !enrol::is_enrolled(&self.replica.state(), name, &peer.key)
            {
                link.close("this node was removed from the swarm");
            }
        }
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => {
                    link.close("this controller is stopping");
                    break;
                }
                accepted = link.accept() => accepted,
            };
            match accepted {
                Ok((Purpose::Grpc, stream)) => {
                    if streams.send(GrpcStream::new(stream)).await.is_err() {
                        break;
                    }
                }
                Ok((Purpose::Calls, stream)) => {
                    tasks.spawn(calls::serve(self.replica.clone(), stream, cancel.clone()));
                }
                // Only controllers open the other kinds.
                Ok((purpose, _)) => {
                    tracing::debug!(?purpose, link = link.id(), "refusing a stream");
                }
                Err(error) => {
                    tracing::debug!(link = link.id(), %error, "link closed");
                    break;
                }
            }
        }
        if let Some(name) = &node {
            self.nodes.links().remove(name, link.id());
            self.invoker.forget(link.id());
            tracing::info!(node = name, link = link.id(), "node unlinked");
        }
    }

    /// A node that enrolled with another controller a moment ago may be news to this one.
    async fn enrolled_meanwhile(&self, name: &str, key: &hive_identity::KeyFingerprint) -> bool {
        self.replica.read_barrier().await.is_ok()
            && enrol::is_enrolled(&self.replica.state(), name, key)
    }

    /// Closes the links of nodes as soon as they are removed, from this call on: to be made before there are any.
    fn close_removed(self, cancel: CancellationToken) -> impl Future<Output = ()> + Send {
        let mut touched = self
            .replica
            .touched(|change| change.key.resource == Resource::Node);
        let mut seen = self.replica.state().revision();
        async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = touched.changed() => if changed.is_err() { return },
                }
                let state = self.replica.state();
                // Of all only where it is not known who changed: each node does when it joins.
                let changed =
                    changed_nodes(&state, seen).unwrap_or_else(|| self.nodes.remembered());
                seen = state.revision();
                for node in changed {
                    if state.get(&objects::node_key(&node)).is_none() {
                        self.nodes.forget(&node);
                    }
                    self.nodes.links().close_unless(&node, |link| {
                        link.peer()
                            .is_some_and(|peer| enrol::is_enrolled(&state, &node, &peer.key))
                    });
                }
            }
        }
    }
}

/// Nodes that changed after revision `seen`, where that is still known.
fn changed_nodes(state: &State, seen: u64) -> Option<BTreeSet<String>> {
    let changes = state.changes_since(seen).ok()?;
    let nodes = changes.filter(|change| change.key.resource == Resource::Node);
    Some(nodes.map(|change| change.key.name.clone()).collect())
}
