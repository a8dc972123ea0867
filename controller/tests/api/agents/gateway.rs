//! What a node's certificate opens: its own assignments, and nothing of other nodes; and how a node gets one.

use futures::TryStreamExt;
use hive_controller::access::tokens::{self, TokenKind};
use hive_controller::artifacts::Digest;
use hive_identity::TokenSecret;
use hive_proto::artifact;
use hive_proto::link::{SharedSocket, Transports};
use hive_proto::v1::gateway_client::GatewayClient;
use hive_proto::v1::{
    AgentEvent, AgentMessage, ArtifactChunk, Assignment, AssignmentStatus, Desired,
    FetchArtifactRequest, Hello, NodeInfo, Phase, RenewRequest, Report, agent_message,
    controller_message, desired_entry,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::*;

fn fetch(byte: u8) -> FetchArtifactRequest {
    FetchArtifactRequest {
        sha256: vec![byte; 32],
        ..FetchArtifactRequest::default()
    }
}

fn client(link: &Link) -> GatewayClient<Channel> {
    GatewayClient::new(grpc::channel(link.clone()))
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
        let inbox = client(link)
            .session(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        Self { outbox, inbox }
    }

    /// The names of the assignments in the next desired set.
    async fn desired(&mut self) -> Vec<String> {
        loop {
            let message = in_time(self.inbox.message()).await.unwrap().unwrap();
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

/// The link of node "pi", which has an assignment of its own; so has another node.
async fn of_two_nodes() -> (Swarm, Link) {
    let swarm = Swarm::start().await;
    let (pi, _phone) = (swarm.node("pi").await, swarm.node("phone").await);
    swarm.assign("own", "pi", 0x11).await;
    swarm.assign("other", "phone", 0x22).await;
    let link = swarm.link(pi).await;
    (swarm, link)
}

#[tokio::test]
async fn a_node_reads_what_its_own_assignments_name() {
    let (_swarm, link) = of_two_nodes().await;
    let mut client = client(&link);
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
    const COMPONENT: &[u8] =
        include_bytes!("../../../../functions/tests/fixtures/rust-hello-p2.wasm");
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
    let mut client = client(link);
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
async fn a_node_writes_the_status_of_its_own_assignments() {
    let (swarm, link) = of_two_nodes().await;
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
    in_time(written).await;
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
    let events: Vec<Value> = in_time(told).await;
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
async fn another_key_or_none_is_not_that_node() {
    let swarm = Swarm::start().await;
    swarm.node("pi").await;
    // Issued by the CA for that name, but to another machine's key: of a node that was replaced.
    let subject = Subject::Node { name: "pi".into() };
    let link = swarm.link(credentials(&swarm.authority, &subject)).await;
    in_time(link.closed()).await;

    let pin = swarm.authority.certificate().fingerprint();
    let address = swarm.address.to_string();
    let config = tls::enrol_client_config(pin);
    let link = dial(&address, config, &LinkSettings::default())
        .await
        .unwrap();
    let answer = client(&link).fetch_artifact(fetch(0x11)).await.unwrap_err();
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
    let mut client = client(&link);
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
