//! What a node's certificate opens: its own assignments, and nothing of other nodes or controllers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt;
use hive_controller::access::tokens::{self, TokenKind};
use hive_controller::artifacts::pieces::to_put;
use hive_controller::artifacts::{ArtifactFiles, Artifacts, Digest};
use hive_controller::controllers::Controllers;
use hive_controller::gateway::{Gateway, Invoker, Nodes, Presence};
use hive_controller::objects;
use hive_controller::state::{Command, Key, level};
use hive_controller::tunnels::{self, Tunnels};
use hive_identity::{
    CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey, ExpectedController,
    LiveCredentials, Subject, TokenSecret, tls,
};
use hive_manifests::Resource;
use hive_proto::artifact;
use hive_proto::grpc;
use hive_proto::link::{Link, LinkSettings, Listener, SharedSocket, Transports, dial};
use hive_proto::v1::enrolment_client::EnrolmentClient;
use hive_proto::v1::gateway_client::GatewayClient;
use hive_proto::v1::peers_client::PeersClient;
use hive_proto::v1::{
    AgentEvent, AgentMessage, ArtifactChunk, Assignment, AssignmentStatus, Desired, EnrolRequest,
    FetchArtifactRequest, Hello, NodeInfo, NodeRole, NodeUsageRequest, Phase, PutArtifactChunk,
    ReadIndexRequest, RenewRequest, Report, TunnelDoorReply, TunnelDoorRequest, agent_message,
    controller_message, desired_entry, enrol_request,
};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::alone::nobody;
use crate::harness::{DEADLINE, Server};

/// A controller with its gateway open.
pub struct Swarm {
    pub server: Server,
    pub nodes: Nodes,
    tunnels: Tunnels,
    pub invoker: Invoker,
    authority: Arc<CertificateAuthority>,
    address: SocketAddr,
    files: ArtifactFiles,
    _dir: TempDir,
}

fn credentials(authority: &CertificateAuthority, subject: &Subject) -> Credentials {
    let key = DeviceKey::generate();
    let csr = key.csr().unwrap();
    let issued = authority
        .issue(&csr, subject, &[], SystemTime::now(), DEFAULT_LIFETIME)
        .unwrap();
    Credentials::new(key, issued.der, authority.certificate().clone()).unwrap()
}

impl Swarm {
    pub async fn start() -> Self {
        let server = Server::start().await;
        let authority = Arc::new(CertificateAuthority::create("test").unwrap());
        let own = credentials(&authority, &Subject::Controller { raft_id: 1 });
        let live = LiveCredentials::new(own);
        let listener = Listener::bind(
            (Ipv4Addr::LOCALHOST, 0).into(),
            tls::link_server_config(&live),
            LinkSettings::default(),
        )
        .await
        .unwrap();
        let address = listener.local_addr();
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(&dir.path().join("artifacts")).unwrap();
        let (replica, peers) = (server.replica.clone(), nobody());
        let nodes = Nodes::new(replica.clone(), peers.clone());
        let invoker = Invoker::new(nodes.clone());
        let tunnels = Tunnels::new(nodes.links().clone());
        let gateway = Gateway {
            artifacts: Artifacts::new(files.clone(), replica.clone(), peers.clone()),
            invoker: invoker.clone(),
            controllers: Controllers::new(replica.clone(), peers, Presence::default()),
            presence: Presence::default(),
            tunnels: tunnels.clone(),
            authority: authority.clone(),
            audit: server.audit.clone(),
            certificate_lifetime: DEFAULT_LIFETIME,
            replica,
            nodes: nodes.clone(),
        };
        tokio::spawn(gateway.run(listener, server.stop.clone()));
        Self {
            server,
            nodes,
            tunnels,
            invoker,
            authority,
            address,
            files,
            _dir: dir,
        }
    }

    pub async fn create(&self, resource: Resource, namespace: &str, name: &str, content: Value) {
        let key = Key::new(resource, namespace, name);
        let body = objects::fresh(&key, json!({}), content).into();
        self.server.propose(Command::Create { key, body }).await;
    }

    pub async fn delete(&self, key: Key) {
        let (expect, uid) = (None, None);
        self.server
            .propose(Command::Delete { key, expect, uid })
            .await;
    }

    /// Credentials of a node that has enrolled.
    pub async fn node(&self, name: &str) -> Credentials {
        let subject = Subject::Node { name: name.into() };
        let credentials = credentials(&self.authority, &subject);
        let fingerprint = credentials.key().fingerprint().to_string();
        let spec = json!({ "spec": { "key": fingerprint } });
        self.create(Resource::Node, "", name, spec).await;
        credentials
    }

    /// An assignment whose artifact's digest is `byte` 32 times.
    pub async fn assign(&self, name: &str, node: &str, byte: u8) {
        let digest = format!("{byte:02x}").repeat(32);
        self.assign_artifact(name, node, &digest).await;
    }

    async fn assign_artifact(&self, name: &str, node: &str, digest: &str) {
        let content = json!({ "spec": {
            "functionName": name, "functionUid": "u", "functionGeneration": 1,
            "nodeName": node, "slot": "0",
            "function": { "artifact": { "sha256": digest } },
            "artifact": {
                "target": "t", "sourceSha256": digest, "sha256": digest, "size": 1, "wasmtimeVersion": "48",
                "description": BASE64.encode("d"), "signature": BASE64.encode("s"),
            },
        } });
        self.create(Resource::Assignment, "default", name, content)
            .await;
    }

    pub async fn link(&self, credentials: Credentials) -> Link {
        self.link_with(credentials, &LinkSettings::default()).await
    }

    async fn link_with(&self, credentials: Credentials, settings: &LinkSettings) -> Link {
        let live = LiveCredentials::new(credentials);
        let config = tls::link_client_config(&live, ExpectedController::Any);
        let address = self.address.to_string();
        dial(&address, config, settings).await.unwrap()
    }

    /// Asks to be let in as `name`; `None` where it is refused.
    async fn enrol(&self, name: &str, secret: &str, key: &DeviceKey) -> Option<Credentials> {
        let pin = self.authority.certificate().fingerprint();
        let config = tls::enrol_client_config(pin);
        let address = self.address.to_string();
        let link = dial(&address, config, &LinkSettings::default())
            .await
            .unwrap();
        let request = EnrolRequest {
            secret: secret.to_owned(),
            csr: key.csr().unwrap(),
            role: Some(enrol_request::Role::Node(NodeRole {
                name: name.to_owned(),
                info: None,
            })),
        };
        let enrolled = EnrolmentClient::new(grpc::channel(link))
            .enrol(request)
            .await;
        let certificate = enrolled.ok()?.into_inner().certificate.into();
        let ca = self.authority.certificate().clone();
        Some(Credentials::new(key.clone(), certificate, ca).unwrap())
    }

    /// As if its node had said so.
    pub async fn is_ready(&self, name: &str) {
        let mut body = self.stored(name);
        body["status"] = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        let key = Key::new(Resource::Assignment, "default", name);
        let (body, expect) = (body.into(), None);
        self.server
            .propose(Command::Replace { key, body, expect })
            .await;
    }

    fn stored(&self, name: &str) -> Value {
        self.server
            .stored(Resource::Assignment, "default", name)
            .unwrap()
    }
}

fn fetch(byte: u8) -> FetchArtifactRequest {
    FetchArtifactRequest {
        sha256: vec![byte; 32],
        ..FetchArtifactRequest::default()
    }
}

/// A session as an agent holds it.
struct Session {
    outbox: mpsc::Sender<AgentMessage>,
    inbox: Streaming<hive_proto::v1::ControllerMessage>,
}

impl Session {
    async fn begin(link: &Link) -> Self {
        let (outbox, messages) = mpsc::channel(4);
        let hello = Hello {
            info: Some(NodeInfo::default()),
            ..Hello::default()
        };
        send(&outbox, agent_message::Kind::Hello(hello)).await;
        let inbox = GatewayClient::new(grpc::channel(link.clone()))
            .session(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        Self { outbox, inbox }
    }

    /// The names of the assignments in the next desired set.
    async fn desired(&mut self) -> Vec<String> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.inbox.message())
                .await
                .expect("a message in time")
                .unwrap()
                .unwrap();
            if let Some(controller_message::Kind::Desired(desired)) = message.kind {
                return names(desired);
            }
        }
    }
}

async fn send(outbox: &mpsc::Sender<AgentMessage>, kind: agent_message::Kind) {
    let kind = Some(kind);
    outbox.send(AgentMessage { kind }).await.unwrap();
}

fn names(desired: Desired) -> Vec<String> {
    desired
        .entries
        .into_iter()
        .map(|entry| match entry.kind {
            Some(desired_entry::Kind::Assignment(bytes)) => {
                Assignment::decode(&*bytes).unwrap().name
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn a_node_reads_what_its_own_assignments_name() {
    let swarm = Swarm::start().await;
    let (pi, _phone) = (swarm.node("pi").await, swarm.node("phone").await);
    swarm.assign("own", "pi", 0x11).await;
    swarm.assign("other", "phone", 0x22).await;
    let link = swarm.link(pi).await;
    let mut client = GatewayClient::new(grpc::channel(link.clone()));
    let other = client.fetch_artifact(fetch(0x22)).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied, "{other}");
    let unknown = client.fetch_artifact(fetch(0x33)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied, "{unknown}");
    // Its own may be asked for; that nobody holds it is another matter.
    let own = client.fetch_artifact(fetch(0x11)).await.unwrap_err();
    assert_ne!(own.code(), Code::PermissionDenied, "{own}");
    assert_eq!(Session::begin(&link).await.desired().await, ["own"]);
}

/// Compiled code that node "pi" may fetch.
async fn code_for_pi(swarm: &Swarm) -> (Vec<u8>, Credentials) {
    const COMPONENT: &[u8] = include_bytes!("../../../functions/tests/fixtures/rust-hello-p2.wasm");
    let compiler = hive_functions::Compiler::new("x86_64-unknown-linux-gnu").unwrap();
    let code = compiler.compile(COMPONENT).unwrap();
    let digest = Digest::of(&code);
    let body = futures::stream::iter([Ok::<_, std::io::Error>(code.clone().into())]);
    let limit = code.len() as u64;
    swarm.files.receive(&digest, limit, body).await.unwrap();
    let pi = swarm.node("pi").await;
    swarm.assign_artifact("own", "pi", &digest.hex()).await;
    (code, pi)
}

/// The pieces of `code` from `offset` on.
async fn pieces(link: &Link, code: &[u8], offset: usize, takes_zstd: bool) -> Vec<ArtifactChunk> {
    let request = FetchArtifactRequest {
        sha256: Digest::of(code).as_bytes().to_vec(),
        offset: offset as u64,
        takes_zstd,
    };
    let mut client = GatewayClient::new(grpc::channel(link.clone()));
    let pieces = client.fetch_artifact(request).await.unwrap().into_inner();
    pieces.try_collect().await.unwrap()
}

fn joined(pieces: Vec<ArtifactChunk>) -> Vec<u8> {
    let pieces = pieces
        .into_iter()
        .map(|piece| artifact::bytes(piece).unwrap());
    pieces.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn artifacts_travel_compressed_to_those_who_take_it() {
    let swarm = Swarm::start().await;
    let (code, pi) = code_for_pi(&swarm).await;
    let socket = SharedSocket::toward(swarm.address).unwrap();
    let settings = LinkSettings {
        transports: Transports::QuicOnly,
        socket: Some(socket.clone()),
        ..LinkSettings::default()
    };
    let link = swarm.link_with(pi, &settings).await;
    // What makes the link is not counted.
    pieces(&link, &code, code.len(), false).await;

    let [plain, compressed] = [false, true].map(|takes_zstd| {
        let (link, code, socket) = (&link, &code, &socket);
        async move {
            let before = socket.traffic();
            let pieces = pieces(link, code, 0, takes_zstd).await;
            let travelled = (socket.traffic() - before).bytes;
            assert_eq!(
                pieces.iter().any(|piece| !piece.zstd.is_empty()),
                takes_zstd
            );
            assert!(joined(pieces) == *code);
            travelled
        }
    });
    let (plain, compressed) = (plain.await, compressed.await);
    let percent = compressed * 100 / plain;
    println!("{compressed} of {plain} bytes on the link, {percent} %");
    assert!(plain >= code.len() as u64);
    assert!(percent < 60, "{compressed} of {plain} bytes");
}

#[tokio::test]
async fn an_artifact_goes_on_wherever_it_was_cut() {
    const PIECE: usize = 64 << 10;
    let swarm = Swarm::start().await;
    let (code, pi) = code_for_pi(&swarm).await;
    let link = swarm.link(pi).await;
    for cut in [0, 1, PIECE - 1, PIECE, PIECE + 1, 100_001, code.len() - 1] {
        for (first, then) in [(true, true), (true, false), (false, true)] {
            let mut came = joined(pieces(&link, &code, 0, first).await);
            came.truncate(cut);
            came.extend(joined(pieces(&link, &code, cut, then).await));
            let digest = Digest::of(&came);
            assert_eq!(digest, Digest::of(&code), "{cut} {first} {then}");
        }
    }
}

#[tokio::test]
async fn controllers_put_artifacts_on_those_of_either_release() {
    const NEWEST: u32 = level::COMPRESSED_PUTS;
    let swarm = Swarm::start().await;
    let own = credentials(&swarm.authority, &Subject::Controller { raft_id: 1 });
    let link = swarm.link(own).await;
    let put = async |code: &[u8], pieces: Vec<PutArtifactChunk>| {
        let header = PutArtifactChunk {
            sha256: Digest::of(code).as_bytes().to_vec(),
            size: code.len() as u64,
            ..PutArtifactChunk::default()
        };
        let mut client = PeersClient::new(grpc::channel(link.clone()));
        let stream = futures::stream::iter([vec![header], pieces].concat());
        client.put_artifact(stream).await
    };
    for (level, fill) in [(NEWEST - 1, b'a'), (NEWEST, b'b')] {
        let code = vec![fill; 200_000];
        let data: Vec<_> = code.chunks(64 << 10).map(<[u8]>::to_vec).collect();
        let pieces = data.into_iter().map(|data| to_put(data.into(), level));
        let pieces = futures::future::join_all(pieces).await;
        // Who knows nothing of pieces reads all there is.
        let plain = pieces.iter().map(|piece| piece.data.len()).sum::<usize>();
        let expected = if level < NEWEST { code.len() } else { 0 };
        assert_eq!(plain, expected);
        let travels = pieces.iter().map(Message::encoded_len).sum::<usize>();
        assert_eq!(travels < code.len() / 2, level == NEWEST);
        put(&code, pieces).await.unwrap();
        assert_eq!(swarm.files.size(&Digest::of(&code)), Some(200_000));
    }
    // One that lies about its size is not taken, nor unfolded.
    let code = vec![b'c'; 1000];
    for said in [999, 1001, 2 << 20] {
        let mut lie = to_put(code.clone().into(), NEWEST).await;
        lie.piece.as_mut().unwrap().plain_size = said;
        let refused = put(&code, vec![lie]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(swarm.files.size(&Digest::of(&code)), None);
    }
}

#[tokio::test]
async fn a_node_writes_the_status_of_its_own_assignments() {
    let swarm = Swarm::start().await;
    let (pi, _phone) = (swarm.node("pi").await, swarm.node("phone").await);
    swarm.assign("own", "pi", 0x11).await;
    swarm.assign("other", "phone", 0x22).await;
    let link = swarm.link(pi).await;
    let mut session = Session::begin(&link).await;
    session.desired().await;
    let ready = |name: &str| AssignmentStatus {
        namespace: "default".into(),
        name: name.into(),
        uid: swarm.stored(name)["metadata"]["uid"]
            .as_str()
            .unwrap()
            .into(),
        phase: Phase::Ready.into(),
        ..AssignmentStatus::default()
    };
    let event = |name: &str| AgentEvent {
        namespace: "default".into(),
        function: name.into(),
        assignment: name.into(),
        reason: "Said".into(),
        message: name.into(),
        r#type: "Normal".into(),
        request_id: "r-1".into(),
        trace_id: "t-1".into(),
        generation: 3,
        ..AgentEvent::default()
    };
    // What is another's comes first: when its own is written, that was judged.
    let report = Report {
        epoch: 0,
        generation: 1,
        assignments: vec![ready("other"), ready("own")],
        events: vec![event("other"), event("own")],
    };
    send(&session.outbox, agent_message::Kind::Report(report)).await;
    let mut revisions = swarm.server.replica.revisions();
    let written = async {
        while swarm.stored("own")["status"]["phase"] != "Ready" {
            revisions.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, written)
        .await
        .expect("the report is written in time");
    assert_eq!(swarm.stored("other")["status"], Value::Null);
    let path = "/api/v1/namespaces/default/events";
    let told = async {
        loop {
            let list = swarm.server.get(path).await.ok();
            let events = list["items"].as_array().unwrap();
            if !events.is_empty() {
                return events.clone();
            }
            revisions.changed().await.unwrap();
        }
    };
    let events: Vec<Value> = tokio::time::timeout(DEADLINE, told)
        .await
        .expect("the event is written in time");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["involvedObject"]["name"], "own");
    assert_eq!(
        events[0]["metadata"]["annotations"],
        json!({
            "hive.dev/request-id": "r-1",
            "hive.dev/trace-id": "t-1",
            "hive.dev/generation": "3",
        })
    );
}

#[tokio::test]
async fn a_nodes_certificate_opens_nothing_of_the_controllers() {
    let swarm = Swarm::start().await;
    let link = swarm.link(swarm.node("pi").await).await;
    let mut peers = PeersClient::new(grpc::channel(link));
    let index = peers.read_index(ReadIndexRequest::default()).await;
    assert_eq!(index.unwrap_err().code(), Code::PermissionDenied);
    let usage = peers.node_usage(NodeUsageRequest::default()).await;
    assert_eq!(usage.unwrap_err().code(), Code::PermissionDenied);
    let door = peers.tunnel_door(TunnelDoorRequest::default()).await;
    assert_eq!(door.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_controller_tells_another_how_the_port_of_a_tunnel_is() {
    let swarm = Swarm::start().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let targets = json!([{ "node": "pi", "port": 22 }]);
    let spec = json!({ "protocol": "TCP", "port": port, "targets": targets });
    let content = json!({ "spec": spec });
    swarm
        .create(Resource::Tunnel, "default", "ssh", content)
        .await;
    let key = Key::new(Resource::Tunnel, "default", "ssh");
    let uid = {
        let state = swarm.server.replica.state();
        let tunnel = state.get(&key).unwrap().body();
        tunnel["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let other = Subject::Controller { raft_id: 2 };
    let link = swarm.link(credentials(&swarm.authority, &other)).await;
    let mut peers = PeersClient::new(grpc::channel(link));
    let mut asked = async |uid: &str| {
        let request = TunnelDoorRequest {
            namespace: "default".into(),
            name: "ssh".into(),
            uid: uid.to_owned(),
        };
        peers.tunnel_door(request).await.unwrap().into_inner()
    };
    assert_eq!(asked(&uid).await, TunnelDoorReply::default());

    let (served, replica) = (swarm.tunnels.clone(), swarm.server.replica.clone());
    let (at, stop) = (Ipv4Addr::LOCALHOST.into(), swarm.server.stop.clone());
    tokio::spawn(tunnels::serve(served, replica, at, stop));
    let told = async {
        loop {
            let reply = asked(&uid).await;
            if !reply.problem.is_empty() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(DEADLINE, told).await.unwrap();
    let problem = &told.problem;
    assert!(problem.contains(&port.to_string()), "{problem}");
    assert_eq!((told.open, told.came_ms), (false, None));
    // Nothing is known here of one that has its name only.
    assert_eq!(asked("another").await, TunnelDoorReply::default());
}

#[tokio::test]
async fn another_key_or_none_is_not_that_node() {
    let swarm = Swarm::start().await;
    swarm.node("pi").await;
    // Issued by the CA for that name, but to another machine's key: of a node that was replaced.
    let subject = Subject::Node { name: "pi".into() };
    let link = swarm.link(credentials(&swarm.authority, &subject)).await;
    tokio::time::timeout(DEADLINE, link.closed())
        .await
        .expect("closed in time");

    let pin = swarm.authority.certificate().fingerprint();
    let address = swarm.address.to_string();
    let config = tls::enrol_client_config(pin);
    let link = dial(&address, config, &LinkSettings::default())
        .await
        .unwrap();
    let mut client = GatewayClient::new(grpc::channel(link));
    let answer = client.fetch_artifact(fetch(0x11)).await.unwrap_err();
    assert_eq!(answer.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn who_comes_in_is_recorded_with_what_let_them_in() {
    let swarm = Swarm::start().await;
    let secret = TokenSecret::generate();
    let (key, body) = tokens::token_object(&secret, TokenKind::Join, None, None, Some(1));
    let token = key.name.clone();
    objects::ensure(&swarm.server.replica, key, body)
        .await
        .unwrap();
    let of_node = |verb: &'static str, code: u64| {
        move |event: &Value| {
            event["objectRef"]["resource"] == "nodes"
                && event["verb"] == verb
                && event["responseStatus"]["code"] == code
        }
    };

    let device = DeviceKey::generate();
    let wrong = TokenSecret::generate().to_string();
    assert!(swarm.enrol("pi", &wrong, &device).await.is_none());
    let refused = swarm.server.recorded(of_node("create", 401)).await;
    let [event] = refused.as_slice() else {
        panic!("{refused:?}");
    };
    assert_eq!(event["user"]["username"], "system:anonymous");
    assert_eq!(event["objectRef"]["name"], "pi");
    assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
    let annotations = &event["annotations"];
    assert_eq!(annotations["authorization.k8s.io/decision"], "forbid");
    let fingerprint = device.fingerprint().to_string();
    assert_eq!(annotations["hive.dev/device-key"], fingerprint.as_str());
    assert!(!event.to_string().contains(&wrong));

    let enrolled = swarm.enrol("pi", &secret.to_string(), &device).await;
    let joined = swarm.server.recorded(of_node("create", 200)).await;
    assert_eq!(joined[0]["user"]["username"], format!("hive:{token}"));
    assert_eq!(joined[0]["requestURI"], "/hive.v1.Enrolment/Enrol");

    // A certificate is renewed by whom it is for; another key gets none.
    let link = swarm.link(enrolled.unwrap()).await;
    let mut client = GatewayClient::new(grpc::channel(link));
    let csr = |key: &DeviceKey| RenewRequest {
        csr: key.csr().unwrap(),
    };
    client.renew(csr(&device)).await.unwrap();
    client.renew(csr(&DeviceKey::generate())).await.unwrap_err();
    for code in [200, 403] {
        let renewals = swarm.server.recorded(of_node("update", code)).await;
        let [event] = renewals.as_slice() else {
            panic!("{renewals:?}");
        };
        assert_eq!(event["user"]["username"], "system:node:pi");
        assert_eq!(event["objectRef"]["subresource"], "certificate");
    }
}
