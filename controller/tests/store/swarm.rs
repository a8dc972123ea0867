//! Replicas in one process, joined by links in memory that a test can cut.

mod fabric;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::Stream;
use hive_controller::peers::Peers;
use hive_controller::state::{Command, Key, Member, Outcome, StateImage};
use hive_controller::store::seal::keys::Keys;
use hive_controller::store::{Bounds, Replica, ReplicaOptions, Timing};
use hive_identity::Subject;
use hive_manifests::Resource;
use hive_proto::grpc::{self, LinkInfo};
use hive_proto::v1::peers_server::{Peers as PeersRpc, PeersServer};
use hive_proto::v1::*;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use self::fabric::{Door, Fabric};

/// Quick, so that tests are; slow enough that a busy machine of one core elects nobody whom no test asks for.
pub const TIMING: Timing = Timing {
    heartbeat_ms: 300,
    election_min_ms: 1500,
    election_max_ms: 2700,
};

/// For anything a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub fn member(id: u64) -> Member {
    Member {
        link: format!("controller-{id}:7000"),
        api: format!("controller-{id}:6443"),
        ingress: format!("controller-{id}:8080"),
        ingress_tls: None,
    }
}

pub fn create(name: &str) -> Command {
    Command::Create {
        key: key(name),
        body: json!({ "metadata": { "name": name }, "data": { "text": "t".repeat(100) } }).into(),
    }
}

/// On a busy machine a link may be given up with a write on it, whose outcome nobody knows then, or its leader be lost.
pub async fn write(replica: &Replica, name: &str) {
    let written = async {
        while !holds(replica, name) {
            if let Err(error) = replica.propose(create(name)).await {
                println!("{name}: {error}");
            }
        }
    };
    soon("a write through this controller", written).await;
}

pub fn key(name: &str) -> Key {
    Key::new(Resource::ConfigMap, "default", name)
}

pub fn holds(replica: &Replica, name: &str) -> bool {
    replica.state().get(&key(name)).is_some()
}

pub fn image(replica: &Replica) -> StateImage {
    replica.state().image()
}

/// Between two looks at what wakes nobody.
const POLL: Duration = Duration::from_millis(10);

/// Looks until it is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// A controller that knows no streams of calls, so that the others ask it by gRPC.
const OLDER: u64 = 2;

/// Replicas by id, their directories, and the links between them.
pub struct Swarm {
    dirs: BTreeMap<u64, TempDir>,
    replicas: BTreeMap<u64, (Replica, CancellationToken)>,
    fabric: Fabric,
    timing: Timing,
    bounds: Bounds,
    slow: Option<(u64, Arc<Semaphore>)>,
    installed: Arc<AtomicU64>,
}

impl Swarm {
    /// One controller that began a swarm.
    pub async fn first() -> Self {
        Self::timed(TIMING).await
    }

    /// The same with a log kept within other bounds.
    pub async fn within(bounds: Bounds) -> Self {
        Self::new(TIMING, bounds).await
    }

    /// The same with other times.
    pub async fn timed(timing: Timing) -> Self {
        Self::new(timing, Bounds::default()).await
    }

    async fn new(timing: Timing, bounds: Bounds) -> Self {
        let mut swarm = Self {
            dirs: BTreeMap::new(),
            replicas: BTreeMap::new(),
            fabric: Fabric::default(),
            timing,
            bounds,
            slow: None,
            installed: Arc::default(),
        };
        swarm.start(1).await;
        swarm.replica(1).bootstrap(member(1)).await.unwrap();
        swarm
    }

    /// Three controllers that all vote.
    pub async fn of_three() -> Self {
        let mut swarm = Self::first().await;
        for id in [2, 3] {
            swarm.join(id).await;
        }
        swarm
    }

    pub async fn start(&mut self, id: u64) {
        let dir = self
            .dirs
            .entry(id)
            .or_insert_with(|| tempfile::tempdir().unwrap());
        let options = ReplicaOptions {
            keys: Keys::default(),
            dir: dir.path().join("raft"),
            id,
            timing: Some(self.timing),
        };
        let peers = Peers::connecting(self.fabric.connect(id), id);
        let replica = Replica::start_within(self.bounds, options, peers);
        let replica = replica.await.unwrap();
        let (streams, incoming) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let slow = self.slow.iter().find(|(slow, _)| *slow == id);
        let service = Service {
            replica: replica.clone(),
            turns: slow.map(|(_, turns)| turns.clone()),
            installed: self.installed.clone(),
        };
        let routes = Routes::new(PeersServer::new(service));
        tokio::spawn(grpc::serve(routes, incoming, cancel.clone()));
        let door = Door {
            grpc: streams,
            calls: (id != OLDER).then(|| replica.clone()),
            cancel: cancel.clone(),
        };
        self.fabric.serve(id, door);
        self.replicas.insert(id, (replica, cancel));
    }

    /// Admits a new controller and makes it vote.
    pub async fn join(&mut self, id: u64) {
        self.start(id).await;
        let leader = self.leader().await;
        let admitted = leader
            .propose(Command::AdmitController { member: member(id) })
            .await
            .unwrap();
        assert_eq!(admitted, Outcome::Controller(id));
        leader.add_member(id, &member(id)).await.unwrap();
    }

    pub fn replica(&self, id: u64) -> Replica {
        self.replicas[&id].0.clone()
    }

    pub fn replicas(&self) -> Vec<Replica> {
        self.replicas.values().map(|(r, _)| r.clone()).collect()
    }

    pub async fn leader(&self) -> Replica {
        self.leader_among(&self.replicas()).await
    }

    pub async fn leader_among(&self, replicas: &[Replica]) -> Replica {
        let mut watches: Vec<_> = replicas.iter().map(Replica::leadership).collect();
        soon("a leader", async {
            loop {
                let leads = watches.iter_mut().map(|w| w.borrow_and_update().is_leader);
                if let Some(at) = leads.collect::<Vec<_>>().iter().position(|leads| *leads) {
                    return replicas[at].clone();
                }
                let changes = watches.iter_mut().map(|w| Box::pin(w.changed()));
                let _ = futures::future::select_all(changes).await;
            }
        })
        .await
    }

    /// Some replica that follows.
    pub async fn follower(&self) -> Replica {
        let leader = self.leader().await.id();
        let mut others = self.replicas().into_iter();
        others.find(|r| r.id() != leader).unwrap()
    }

    /// Cuts all links from and to a replica.
    pub fn isolate(&self, id: u64) {
        self.fabric.isolate(id);
    }

    pub fn heal(&self, id: u64) {
        self.fabric.heal(id);
    }

    /// Stops a replica; its directory stays.
    pub async fn stop(&mut self, id: u64) {
        let (replica, cancel) = self.replicas.remove(&id).unwrap();
        soon("shutdown", replica.shutdown()).await;
        cancel.cancel();
        self.fabric.stop_serving(id);
    }

    /// Waits until all replicas have applied what the leader has.
    pub async fn converge(&self) {
        let target = self.leader().await.state().revision();
        for replica in self.replicas() {
            let mut revisions = replica.revisions();
            let reached = revisions.wait_for(|revision| *revision >= target);
            soon("replicas to converge", reached).await.unwrap();
        }
    }

    /// Once started again, a replica takes one message with entries for each permit.
    pub fn slow_down(&mut self, id: u64) -> Arc<Semaphore> {
        let turns = Arc::new(Semaphore::new(0));
        self.slow = Some((id, turns.clone()));
        turns
    }

    /// Snapshots that any replica took in from another.
    pub fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    pub fn dir(&self, id: u64) -> &std::path::Path {
        self.dirs[&id].path()
    }
}

/// The Raft part of what controllers ask of each other.
pub struct Service {
    replica: Replica,
    turns: Option<Arc<Semaphore>>,
    installed: Arc<AtomicU64>,
}

impl From<Replica> for Service {
    fn from(replica: Replica) -> Self {
        Self {
            replica,
            turns: None,
            installed: Arc::default(),
        }
    }
}

/// Of an append that is a heartbeat: no entries.
const HEARTBEAT_BYTES: usize = 1024;

type Reply<T> = Result<Response<T>, Status>;

fn reply(body: bytes::Bytes) -> Response<RaftMessage> {
    Response::new(RaftMessage { body })
}

#[tonic::async_trait]
impl PeersRpc for Service {
    async fn append(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        if let Some(turns) = &self.turns
            && body.len() > HEARTBEAT_BYTES
        {
            turns.acquire().await.unwrap().forget();
        }
        Ok(reply(self.replica.handle_append(body).await?))
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let link = request.extensions().get::<LinkInfo>();
        let peer = link.and_then(|link| link.peer.as_ref());
        if let Some(Subject::Controller { raft_id }) = peer.map(|peer| &peer.subject)
            && self.replica.has_removed(*raft_id)
        {
            return Err(Status::permission_denied("removed"));
        }
        Ok(reply(
            self.replica.handle_vote(request.into_inner().body).await?,
        ))
    }

    async fn transfer_leader(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        let body = request.into_inner().body;
        Ok(reply(self.replica.handle_transfer_leader(body).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Reply<RaftMessage> {
        let chunks = request.into_inner();
        self.installed.fetch_add(1, Ordering::Relaxed);
        Ok(reply(self.replica.handle_install_snapshot(chunks).await?))
    }

    async fn propose(&self, request: Request<RaftMessage>) -> Reply<RaftMessage> {
        Ok(reply(
            self.replica
                .handle_propose(request.into_inner().body)
                .await?,
        ))
    }

    async fn read_index(&self, _: Request<ReadIndexRequest>) -> Reply<ReadIndexReply> {
        let index = self.replica.handle_read_index().await?;
        Ok(Response::new(ReadIndexReply { index }))
    }

    async fn report_presence(&self, _: Request<PresenceReport>) -> Reply<PresenceReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn describe_controllers(
        &self,
        _: Request<DescribeControllersRequest>,
    ) -> Reply<DescribeControllersReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn remove_controller(
        &self,
        _: Request<RemoveControllerRequest>,
    ) -> Reply<RemoveControllerReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn function_use(&self, _: Request<FunctionUseRequest>) -> Reply<FunctionUseReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn tunnel_door(&self, _: Request<TunnelDoorRequest>) -> Reply<TunnelDoorReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn node_usage(&self, _: Request<NodeUsageRequest>) -> Reply<NodeUsageReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    async fn put_artifact(
        &self,
        _: Request<Streaming<PutArtifactChunk>>,
    ) -> Reply<PutArtifactReply> {
        Err(Status::unimplemented("not Raft's"))
    }

    type FetchArtifactStream = Pin<Box<dyn Stream<Item = Result<ArtifactChunk, Status>> + Send>>;

    async fn fetch_artifact(
        &self,
        _: Request<FetchArtifactRequest>,
    ) -> Reply<Self::FetchArtifactStream> {
        Err(Status::unimplemented("not Raft's"))
    }
}
