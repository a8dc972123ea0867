//! What the tests share: agents, requests, a component, and waiting for conditions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_agent::{Agent, Config, Listen, Metered, TunnelTargets};
use hive_functions::{Compiler, engine_version, host_target};
use hive_proto::v1;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::controller::{Controller, Swarm};

/// Far more than anything here takes, on a machine that does a lot besides.
const DEADLINE: Duration = Duration::from_secs(180);

/// Looks again and again until there is something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same for what can be awaited.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("not done in time")
}

/// A component, compiled for this machine once for all tests.
pub struct Compiled {
    pub bytes: Bytes,
    pub sha256: Vec<u8>,
}

impl Compiled {
    fn new(component: &[u8]) -> Self {
        let compiled = Compiler::new(host_target())
            .unwrap()
            .compile(component)
            .unwrap();
        Self {
            sha256: Sha256::digest(&compiled).to_vec(),
            bytes: compiled.into(),
        }
    }
}

/// Answers every request.
pub static HELLO: LazyLock<Compiled> = LazyLock::new(|| {
    Compiled::new(include_bytes!(
        "../../../functions/tests/fixtures/rust-hello-p2.wasm"
    ))
});

/// Fails at every request: its script asks for something that QuickJS does not have.
pub static BROKEN: LazyLock<Compiled> = LazyLock::new(|| {
    Compiled::new(include_bytes!(
        "../../../functions/tests/fixtures/js-hello-p3.wasm"
    ))
});

/// An assignment of `compiled` to the slot `<function>.0`, with the route `<function>.test`.
pub fn assignment(
    swarm: &Swarm,
    function: &str,
    generation: u64,
    compiled: &Compiled,
) -> v1::Assignment {
    let description = v1::ArtifactDescription {
        source_sha256: vec![0; 32],
        sha256: compiled.sha256.clone(),
        size: compiled.bytes.len() as u64,
        target: host_target().into(),
        wasmtime_version: engine_version(),
    }
    .encode_to_vec();
    v1::Assignment {
        namespace: "default".into(),
        name: format!("{function}.0"),
        uid: format!("uid of {function}"),
        function: function.into(),
        function_generation: generation,
        artifact: Some(v1::CompiledArtifact {
            signature: swarm.ca().sign(hive_proto::ARTIFACT_CONTEXT, &description),
            description,
        }),
        limits: Some(v1::Limits {
            memory_bytes: 64 << 20,
            timeout_ms: 30_000,
            concurrency: 10,
            ..v1::Limits::default()
        }),
        env: BTreeMap::new(),
        allowed_hosts: vec![],
        egress: None,
        routes: vec![v1::Route {
            host: format!("{function}.test"),
            path: "/".into(),
            ..Default::default()
        }],
        ..v1::Assignment::default()
    }
}

/// Makes the controller hold the artifact.
pub fn put(controller: &Controller, compiled: &Compiled) {
    let mut state = controller.state();
    state
        .artifacts
        .insert(compiled.sha256.clone(), compiled.bytes.clone());
}

pub fn config(dir: &Path, swarm: &Swarm, controllers: &[&Controller]) -> Config {
    Config {
        data_dir: dir.into(),
        controllers: controllers.iter().map(|one| one.endpoint()).collect(),
        token: Some(swarm.token().clone()),
        name: "pi".into(),
        labels: BTreeMap::from([("disk".into(), "ssd".into())]),
        listen: Listen::On("127.0.0.1:0".parse().unwrap()),
        tunnel_targets: TunnelTargets::default(),
        memory: None,
        cpu_millis: None,
        metered: Metered::Auto,
        idle_after: Duration::from_secs(300),
        meter_interval: Duration::from_secs(60),
    }
}

/// The function `hello` made of `compiled`, ready.
pub async fn running(swarm: &Swarm, dir: &Path, compiled: &Compiled) -> (Controller, Agent) {
    let controller = Controller::start(swarm).await;
    put(&controller, compiled);
    controller.desire(1, &[assignment(swarm, "hello", 1, compiled)]);
    let agent = Agent::start(config(dir, swarm, &[&controller]))
        .await
        .unwrap();
    controller.ready("hello.0").await;
    (controller, agent)
}

/// As after a restart: what was needed once is not given any more.
pub fn restarted(dir: &Path, swarm: &Swarm) -> Config {
    Config {
        token: None,
        ..config(dir, swarm, &[])
    }
}

pub fn address(agent: &Agent) -> SocketAddr {
    agent.local_address().unwrap()
}

/// A request to the agent's local address.
pub async fn get(agent: &Agent, host: &str, path: &str) -> Response<String> {
    let stream = tokio::net::TcpStream::connect(address(agent))
        .await
        .unwrap();
    let request = Request::get(path)
        .header("host", host)
        .body(Full::default())
        .unwrap();
    send(stream, request).await
}

/// One request over a fresh connection or stream.
pub async fn send(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Response<String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = within(sender.send_request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    drop(sender);
    connection.abort();
    Response::from_parts(head, String::from_utf8_lossy(&body).into_owned())
}
