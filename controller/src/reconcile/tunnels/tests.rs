//! A controller that leads itself, with its ingress, its ports, and a node whose agent and services are this process.

#![allow(clippy::unwrap_used)]

mod tls;

use std::time::Duration;

use hive_manifests::Resource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Doors, Proofs, concerns};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::fixture::{Alone, free_ports};
use crate::gateway::{Invoker, Nodes};
use crate::ingress::{self, Forwarder, Ingress};
use crate::objects;
use crate::reconcile::Looks;
use crate::state::{Command, Key, Member};
use crate::store::Replica;
use crate::traffic::Loads;
use crate::tunnels::{self, Tunnels, fake_agent};

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(180);

/// Connections that the ingress takes at once: more than the tries of a few tunnels.
const PLACES: usize = 16;

struct World {
    replica: Replica,
    /// Of the ingress.
    port: u16,
    /// Of that for TLS.
    tls_port: u16,
    _stop: DropGuard,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let listener = listen().await;
        let port = listener.local_addr().unwrap().port();
        let member = Member {
            ingress: format!("127.0.0.1:{port}"),
            ..Member::default()
        };
        let Alone {
            replica,
            peers,
            dir,
        } = Alone::start(member).await;
        let tls_listener = listen().await;
        let tls_port = tls_listener.local_addr().unwrap().port();
        let member = Member {
            ingress: format!("127.0.0.1:{port}"),
            ingress_tls: Some(format!("127.0.0.1:{tls_port}")),
            ..Member::default()
        };
        let moved = Command::MoveController { id: 1, member };
        replica.propose(moved).await.unwrap();

        let stop = CancellationToken::new();
        let nodes = Nodes::new(replica.clone(), peers.clone());
        fake_agent::join(nodes.links(), "pi");
        let tunnels = Tunnels::new(nodes.links().clone());
        let routes = ingress::follow_routes(&replica, stop.clone());
        let invoker = Invoker::new(nodes);
        let forwarder = Forwarder::new(routes, invoker, tunnels.clone(), Loads::default(), None);
        let public = Ingress::new(forwarder).with_places(PLACES);
        let for_tls = public.clone();
        tokio::spawn(for_tls.serve_tls(tls_listener, tunnels.clone(), stop.clone()));
        tokio::spawn(public.serve(listener, stop.clone()));
        let at = [127, 0, 0, 1].into();
        let serving = tunnels::serve(tunnels.clone(), replica.clone(), at, stop.clone());
        tokio::spawn(serving);
        let looks = Looks::new(&replica, Duration::from_secs(5), &stop)
            .only_for(concerns)
            .woken_by(tunnels.health.wakes());
        let doors = Doors::new(1, tunnels.clone(), peers);
        let mut proofs = Proofs::new(1, tunnels, doors, &replica.state());
        tokio::spawn(looks.run(async move |replica, state| proofs.pass(replica, state).await));

        let world = Self {
            replica,
            port,
            tls_port,
            _stop: stop.drop_guard(),
            _dir: dir,
        };
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let pi = json!({ "spec": {}, "status": { "conditions": ready } });
        for (key, extra) in [
            (Key::new(Resource::Namespace, "", "default"), json!({})),
            (objects::node_key("pi"), pi),
        ] {
            world.create(key, extra).await;
        }
        world
    }

    async fn create(&self, key: Key, extra: Value) {
        let body = objects::fresh(&key, json!({}), extra);
        objects::ensure(&self.replica, key, body).await.unwrap();
    }

    async fn declare(&self, name: &str, spec: Value) {
        let key = Key::new(Resource::Tunnel, "default", name);
        self.create(key, json!({ "spec": spec })).await;
    }

    fn status(&self, name: &str) -> Value {
        let key = Key::new(Resource::Tunnel, "default", name);
        let state = self.replica.state();
        state.get(&key).unwrap().to_value()["status"].clone()
    }

    /// Waits until the condition of a tunnel begins with that.
    async fn says(&self, name: &str, expected: &str) -> Value {
        let mut touched = self.replica.touched(|_| true);
        let mut last = String::new();
        let waiting = async {
            loop {
                touched.borrow_and_update();
                let status = self.status(name);
                let ready = &status["conditions"][0];
                last = ["status", "reason", "message"]
                    .map(|field| ready[field].as_str().unwrap_or_default())
                    .join(" ");
                if last.starts_with(expected) {
                    return status;
                }
                touched.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{name} says {last:?} instead of {expected:?}"))
    }

    /// Waits until these are told of a tunnel, among what else a slow machine meets.
    async fn tells(&self, name: &str, expected: &[&str]) {
        let mut touched = self.replica.touched(|_| true);
        let waiting = async {
            loop {
                touched.borrow_and_update();
                let told = self.events(name);
                if expected.iter().all(|one| told.iter().any(|it| it == one)) {
                    return;
                }
                touched.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, waiting).await;
        waited
            .unwrap_or_else(|_| panic!("{name}: {:?} instead of {expected:?}", self.events(name)));
    }

    fn events(&self, name: &str) -> Vec<String> {
        let state = self.replica.state();
        let events = state.list(Resource::Event, Some("default"));
        let events = events.map(|event| event.to_value().into_owned());
        let of_it = events.filter(|event| event["involvedObject"]["name"] == name);
        let told = of_it.map(|event| {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            format!("{} {}", text("type"), text("reason"))
        });
        told.collect()
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Answers one request of each connection.
async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // A check sends none.
            if stream.read_u8().await.is_ok() {
                let answer =
                    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
    }
}

#[tokio::test]
async fn a_tunnel_is_ready_once_a_request_came_through() {
    let world = World::new().await;
    let [service] = free_ports();
    let targets = json!([{ "node": "pi", "port": service }]);
    let check = json!({ "interval": "1s" });
    world
        .declare(
            "photos",
            json!({ "targets": targets, "healthCheck": check }),
        )
        .await;
    let address = format!("127.0.0.1:{service}");
    let expected = format!("False TargetDown nothing listens at {address} as node pi sees it");
    let status = world.says("photos", &expected).await;
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["probe"]["lastSuccess"], Value::Null);
    let url = format!("http://photos.default.localhost:{}/", world.port);
    assert_eq!(status["addresses"], json!([url]));

    tokio::spawn(serve(service));
    let expected = "True Proven a request to photos.default.localhost came through";
    let status = world.says("photos", expected).await;
    let pi = json!([{ "node": "pi", "address": address, "healthy": true }]);
    assert_eq!(status["targets"], pi);
    assert!(status["probe"]["latencyMs"].as_u64().unwrap() >= 1);
    assert_eq!(status["probe"]["lastFailure"]["reason"], "TargetDown");
    let events = ["Normal Proven", "Warning TargetDown"];
    world.tells("photos", &events).await;
}

#[tokio::test]
async fn each_tunnel_is_proven_in_its_own_way() {
    let world = World::new().await;
    let [service, port] = free_ports();
    tokio::spawn(serve(service));
    let targets = json!([{ "node": "pi", "port": service }]);
    let tcp = json!({ "protocol": "TCP", "port": port, "targets": targets });
    world.declare("ssh", tcp.clone()).await;
    world.declare("tcp", tcp).await;
    world
        .declare("greets", json!({ "function": "hello" }))
        .await;
    world
        .declare(
            "elsewhere",
            json!({ "targets": [{ "node": "attic", "port": 1 }] }),
        )
        .await;
    let status = world
        .says("ssh", "True Proven a connection opens and stays")
        .await;
    assert_eq!(status["addresses"], json!([format!("127.0.0.1:{port}")]));
    world.says("tcp", "False PortConflict").await;
    world.says("greets", "False FunctionNotFound").await;
    world
        .says(
            "elsewhere",
            "False NodeNotFound node attic is not part of the swarm",
        )
        .await;

    // Nothing of a function runs for a proof: here no node could.
    let wakes = json!({ "minReplicas": 0, "maxReplicas": 1 });
    let spec = json!({ "artifact": { "sha256": "00" }, "autoscaling": wakes });
    let hello = Key::new(Resource::Function, "default", "hello");
    world.create(hello, json!({ "spec": spec })).await;
    world
        .says(
            "greets",
            "True Proven a request to greets.default.localhost came through",
        )
        .await;
}

#[tokio::test]
async fn another_program_at_the_port_is_not_taken_for_the_tunnel() {
    let world = World::new().await;
    let [service, port] = free_ports();
    tokio::spawn(serve(service));
    // It takes connections, and never ends them.
    let foreign = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let targets = json!([{ "node": "pi", "port": service }]);
    let spec = json!({ "protocol": "TCP", "port": port, "targets": targets });
    world.declare("ssh", spec).await;
    let expected = format!(
        "False NotListening controller 1 at 127.0.0.1:{port} does not listen (cannot listen on"
    );
    world.says("ssh", &expected).await;
    drop(foreign);
    world
        .says("ssh", "True Proven a connection opens and stays")
        .await;
}

/// A router may lead the port to another machine.
#[tokio::test]
async fn another_program_at_the_address_is_not_taken_for_the_tunnel() {
    let world = World::new().await;
    let [service, port] = free_ports();
    tokio::spawn(serve(service));
    let _foreign = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let member = Member {
        ingress: "127.0.0.2:1".into(),
        ..Member::default()
    };
    let moved = Command::MoveController { id: 1, member };
    world.replica.propose(moved).await.unwrap();
    let targets = json!([{ "node": "pi", "port": service }]);
    let spec = json!({ "protocol": "TCP", "port": port, "targets": targets });
    world.declare("ssh", spec).await;
    let expected = format!("False Misdirected at 127.0.0.2:{port} somebody else answers");
    world.says("ssh", &expected).await;
}

#[tokio::test]
async fn a_guarded_tunnel_is_ready_when_its_rules_are_complete_and_its_targets_answer() {
    let world = World::new().await;
    let system = Key::new(Resource::Namespace, "", SYSTEM_NAMESPACE);
    world.create(system, json!({})).await;
    let [service, port] = free_ports();
    let spec = |mut spec: Value, access: Value| {
        spec["targets"] = json!([{ "node": "pi", "port": service }]);
        spec["healthCheck"] = json!({ "interval": "1s" });
        spec["access"] = access;
        spec
    };
    let basic = json!({ "basicAuth": { "secretName": "users" } });
    world.declare("photos", spec(json!({}), basic)).await;
    let issuer = json!({ "issuerUrl": "https://login.example", "clientId": "photos", "sessionDuration": "1h" });
    world
        .declare("login", spec(json!({}), json!({ "oidc": issuer })))
        .await;
    // The leader itself may not come in.
    let elsewhere = json!({ "allowedClients": ["203.0.113.0/24"] });
    let tcp = json!({ "protocol": "TCP", "port": port });
    world.declare("ssh", spec(tcp, elsewhere)).await;

    let expected = "False SecretNotFound spec.access.basicAuth.secretName: Secret users is not in namespace default";
    world.says("photos", expected).await;
    let users = Key::new(Resource::Secret, "default", "users");
    // "ann:" and a hash of bcrypt.
    let line =
        "YW5uOiQyeSQxMCQuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi51dXV1dQ==";
    world
        .create(users, json!({ "data": { "auth": line } }))
        .await;
    world.says("photos", "False TargetDown").await;
    world.says("ssh", "False TargetDown").await;

    tokio::spawn(serve(service));
    let let_in = "which let in whom spec.access names";
    let expected =
        format!("True Proven photos.default.localhost leads to the controllers, {let_in}");
    world.says("photos", &expected).await;
    let expected =
        format!("True Proven login.default.localhost leads to the controllers, {let_in}");
    world.says("login", &expected).await;
    world
        .says(
            "ssh",
            "True Proven the controllers listen, and let in whom spec.access names",
        )
        .await;
    let secret = Key::new(Resource::Secret, SYSTEM_NAMESPACE, "tunnel-sessions");
    assert!(world.replica.state().get(&secret).is_some());
}
