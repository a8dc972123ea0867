//! A controller that does what its test says, over real links.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hive_identity::{
    CertificateAuthority, Credentials, DeviceKey, JoinToken, LiveCredentials, Subject, tls,
};
use hive_proto::artifact;
use hive_proto::grpc::{self, GrpcStream, LinkInfo};
use hive_proto::link::{Link, LinkSettings, Listener, Purpose, Transports};
use hive_proto::v1::desired_entry::Kind;
use hive_proto::v1::enrol_request::Role;
use hive_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use hive_proto::v1::gateway_server::{Gateway, GatewayServer};
use hive_proto::v1::{self, agent_message, controller_message};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::support::eventually;

/// A CA and what it lets in; several controllers may share it.
#[derive(Clone)]
pub struct Swarm(Arc<SwarmState>);

struct SwarmState {
    ca: CertificateAuthority,
    token: JoinToken,
    lifetime: Mutex<Duration>,
}

impl Swarm {
    pub fn new() -> Self {
        let ca = CertificateAuthority::create("test").unwrap();
        Self(Arc::new(SwarmState {
            token: JoinToken::generate(ca.certificate().fingerprint()),
            ca,
            lifetime: Mutex::new(Duration::from_secs(3600)),
        }))
    }

    pub fn ca(&self) -> &CertificateAuthority {
        &self.0.ca
    }

    pub fn token(&self) -> &JoinToken {
        &self.0.token
    }

    /// How long certificates live that are issued from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        *self.0.lifetime.lock().unwrap() = lifetime;
    }

    fn issue(&self, csr: &[u8], subject: &Subject) -> Vec<u8> {
        let lifetime = *self.0.lifetime.lock().unwrap();
        let issued = self
            .ca()
            .issue(csr, subject, &[], SystemTime::now(), lifetime);
        issued.unwrap().der.to_vec()
    }
}

/// What the controller heard, and what it does.
#[derive(Default)]
pub struct State {
    pub hellos: Vec<v1::Hello>,
    pub reports: Vec<v1::Report>,
    pub usages: Vec<v1::Usage>,
    pub batches: Vec<v1::Metering>,
    pub holdings: Vec<Vec<u64>>,
    /// Secrets of enrolments, empty for those of a known key.
    pub enrolments: Vec<String>,
    pub renewals: usize,
    pub links: Vec<Link>,
    pub artifacts: BTreeMap<Vec<u8>, Bytes>,
    /// Offsets that were asked for.
    pub fetches: Vec<u64>,
    /// It sends artifacts plain, whatever is asked for.
    pub is_old: bool,
    /// What it sends in place of a compressed piece.
    pub lies: Option<fn(Bytes) -> v1::ArtifactChunk>,
    /// Bytes after which a download breaks off.
    pub cut_after: Option<usize>,
}

#[derive(Clone)]
pub struct Controller {
    swarm: Swarm,
    state: Arc<Mutex<State>>,
    messages: watch::Sender<Vec<v1::ControllerMessage>>,
    /// Whether sessions are answered; they are heard all the same.
    answers: watch::Sender<bool>,
    endpoint: Arc<str>,
    stop: CancellationToken,
}

impl Controller {
    pub async fn start(swarm: &Swarm) -> Self {
        Self::over(swarm, Transports::Both).await
    }

    /// Who must have one transport gets the other from no machine, however slow that is to shake hands.
    pub async fn over(swarm: &Swarm, transports: Transports) -> Self {
        let key = DeviceKey::generate();
        let subject = Subject::Controller { raft_id: 1 };
        let issued = swarm.ca().issue(
            &key.csr().unwrap(),
            &subject,
            &[],
            SystemTime::now(),
            Duration::from_secs(3600),
        );
        let ca = swarm.ca().certificate().clone();
        let credentials = Credentials::new(key, issued.unwrap().der, ca).unwrap();
        let live = LiveCredentials::new(credentials);
        let listener = Listener::bind(
            "127.0.0.1:0".parse().unwrap(),
            tls::link_server_config(&live),
            LinkSettings {
                transports,
                ..LinkSettings::default()
            },
        )
        .await
        .unwrap();
        let controller = Self {
            swarm: swarm.clone(),
            state: Arc::default(),
            messages: watch::Sender::new(Vec::new()),
            answers: watch::Sender::new(true),
            endpoint: listener.local_addr().to_string().into(),
            stop: CancellationToken::new(),
        };
        tokio::spawn(controller.clone().serve(listener));
        controller
    }

    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Closes everything, as a process that is killed would.
    pub async fn stop(&self) {
        self.stop.cancel();
        let links = std::mem::take(&mut self.state().links);
        for link in links {
            link.shutdown("stopped by the test").await;
        }
    }

    /// What sessions are told from now on, and those that are held now.
    pub fn say(&self, messages: Vec<v1::ControllerMessage>) {
        self.messages.send_replace(messages);
    }

    pub fn set_answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    pub fn desire(&self, generation: u64, assignments: &[v1::Assignment]) {
        self.say(vec![desired(generation, assignments)]);
    }

    pub fn link(&self) -> Link {
        let state = self.state();
        let mut alive = state
            .links
            .iter()
            .rev()
            .filter(|link| link.end().is_none() && link.peer().is_some());
        alive.next().expect("an agent is linked").clone()
    }

    /// The newest status of the assignment, once it is such.
    pub async fn reported(
        &self,
        assignment: &str,
        what: &str,
        is_such: impl Fn(&v1::AssignmentStatus) -> bool,
    ) -> v1::AssignmentStatus {
        eventually(&format!("{assignment} is reported {what}"), || {
            let state = self.state();
            let report = state.reports.last()?;
            let mut statuses = report.assignments.iter();
            statuses
                .find(|status| status.name == assignment && is_such(status))
                .cloned()
        })
        .await
    }

    pub async fn ready(&self, assignment: &str) -> v1::AssignmentStatus {
        self.reported(assignment, "ready", |status| {
            status.phase() == v1::Phase::Ready
        })
        .await
    }

    async fn serve(self, listener: Listener) {
        let (streams, incoming) = mpsc::channel(16);
        let routes = Routes::new(EnrolmentServer::new(self.clone()))
            .add_service(GatewayServer::new(self.clone()));
        tokio::spawn(grpc::serve(routes, incoming, self.stop.clone()));
        while let Some(Some(link)) = self.stop.run_until_cancelled(listener.accept()).await {
            self.state().links.push(link.clone());
            let streams = streams.clone();
            tokio::spawn(async move {
                while let Ok((purpose, stream)) = link.accept().await {
                    assert_eq!(purpose, Purpose::Grpc);
                    if streams.send(GrpcStream::new(stream)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

pub fn desired(generation: u64, assignments: &[v1::Assignment]) -> v1::ControllerMessage {
    let encoded: Vec<_> = assignments
        .iter()
        .map(|assignment| hive_proto::EncodedAssignment::new(assignment.clone()))
        .collect();
    let entries = encoded.iter().map(|assignment| v1::DesiredEntry {
        kind: Some(Kind::Assignment(assignment.encoded().clone())),
    });
    v1::ControllerMessage {
        kind: Some(controller_message::Kind::Desired(v1::Desired {
            epoch: 0,
            generation,
            hash: hive_proto::desired_hash(&encoded).to_vec(),
            entries: entries.collect(),
        })),
    }
}

fn node_of<T>(request: &Request<T>) -> Result<String, Status> {
    let info = request.extensions().get::<LinkInfo>().unwrap();
    match info.peer.as_ref().map(|peer| &peer.subject) {
        Some(Subject::Node { name }) => Ok(name.clone()),
        _ => Err(Status::unauthenticated("no node")),
    }
}

#[tonic::async_trait]
impl Enrolment for Controller {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = request.into_inner();
        self.state().enrolments.push(request.secret.clone());
        let right = self.swarm.token().secret.to_string();
        if !request.secret.is_empty() && request.secret != right {
            return Err(Status::unauthenticated("no such token"));
        }
        let Some(Role::Node(node)) = request.role else {
            return Err(Status::invalid_argument("not a node"));
        };
        let subject = Subject::Node { name: node.name };
        Ok(Response::new(v1::EnrolResponse {
            certificate: self.swarm.issue(&request.csr, &subject),
            ca: self.swarm.ca().certificate().der().to_vec(),
            cluster: "test".into(),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl Gateway for Controller {
    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let subject = Subject::Node {
            name: node_of(&request)?,
        };
        self.state().renewals += 1;
        Ok(Response::new(v1::RenewResponse {
            certificate: self.swarm.issue(&request.into_inner().csr, &subject),
        }))
    }

    type SessionStream = BoxStream<'static, Result<v1::ControllerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        node_of(&request)?;
        tokio::spawn(self.clone().listen(request.into_inner()));
        let mut answers = self.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        let said = WatchStream::new(self.messages.subscribe())
            .flat_map(|messages| futures::stream::iter(messages.into_iter().map(Ok)));
        let stop = self.stop.clone();
        Ok(Response::new(
            said.take_until(stop.cancelled_owned()).boxed(),
        ))
    }

    type FetchArtifactStream = BoxStream<'static, Result<v1::ArtifactChunk, Status>>;

    async fn fetch_artifact(
        &self,
        request: Request<v1::FetchArtifactRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        node_of(&request)?;
        let request = request.into_inner();
        let mut state = self.state();
        state.fetches.push(request.offset);
        let bytes = state
            .artifacts
            .get(&request.sha256)
            .ok_or_else(|| Status::not_found("no such artifact"))?;
        let rest = bytes.slice(request.offset as usize..);
        let cut_after = state.cut_after;
        let piece = match request.takes_zstd && !state.is_old {
            true => state.lies.unwrap_or(artifact::compressed),
            false => artifact::plain,
        };
        Ok(Response::new(chunks(rest, cut_after, piece).boxed()))
    }
}

impl Controller {
    async fn listen(self, mut inbound: Streaming<v1::AgentMessage>) {
        while let Ok(Some(message)) = inbound.message().await {
            let mut state = self.state();
            match message.kind.unwrap() {
                agent_message::Kind::Hello(hello) => state.hellos.push(hello),
                agent_message::Kind::Report(report) => state.reports.push(report),
                agent_message::Kind::Usage(usage) => state.usages.push(usage),
                agent_message::Kind::Metering(batch) => state.batches.push(batch),
                agent_message::Kind::Holdings(told) => state.holdings.push(told.artifacts),
            }
        }
    }
}

fn chunks(
    bytes: Bytes,
    cut_after: Option<usize>,
    piece: fn(Bytes) -> v1::ArtifactChunk,
) -> impl Stream<Item = Result<v1::ArtifactChunk, Status>> + Send {
    const CHUNK: usize = 16 * 1024;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let sent = cut_after.unwrap_or(bytes.len()).min(bytes.len());
        for start in (0..sent).step_by(CHUNK) {
            let data = bytes.slice(start..sent.min(start + CHUNK));
            if sender.send(Ok(piece(data))).await.is_err() {
                return;
            }
        }
        if sent < bytes.len() {
            let _ = sender
                .send(Err(Status::unavailable("cut by the test")))
                .await;
        }
    });
    ReceiverStream::new(receiver)
}
