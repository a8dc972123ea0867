//! What becomes of datagrams at a port, and of the targets that they are for.

use std::net::SocketAddr;

use hive_manifests::tunnel::TunnelTarget;
use hive_proto::flow::MAX_DATAGRAM;
use hive_proto::v1::TunnelDoorRequest;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::tunnels::health::TargetHealth;
use crate::tunnels::listen::Doors;
use crate::tunnels::udp::{Port, Socket};

/// More than loopback loses datagrams for.
const AGAIN: Duration = Duration::from_millis(500);

/// A port of a tunnel, until it is dropped.
struct Open {
    address: SocketAddr,
    owner: watch::Sender<Arc<Live>>,
    _stop: DropGuard,
}

impl World {
    fn declare_udp(&mut self, name: &str, targets: Value, more: Value) -> Arc<Live> {
        let mut spec = json!({ "protocol": "UDP", "port": 5353, "idleTimeout": "1m" });
        let fields = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        self.declare(name, targets, spec)
    }

    fn open_at(&self, at: &str, live: &Arc<Live>) -> Open {
        let socket = Socket::bind(at.parse().unwrap()).unwrap();
        let address = socket.address();
        let (owner, owners) = watch::channel(live.clone());
        let places = Arc::new(Semaphore::new(100));
        let stop = CancellationToken::new();
        let port = Port::new(socket, self.tunnels.clone(), owners, places, stop.clone());
        self.tunnels.spawn(port.serve());
        Open {
            address,
            owner,
            _stop: stop.drop_guard(),
        }
    }

    fn open(&self, live: &Arc<Live>) -> Open {
        self.open_at("127.0.0.1:0", live)
    }

    /// What is known of the only target of a tunnel.
    fn one(&self, name: &str) -> TargetHealth {
        self.tunnels.health.snapshot(&key(name)).remove(0)
    }
}

async fn client_at(ip: &str, of: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    socket.connect(of).await.unwrap();
    socket
}

async fn client(of: &Open) -> UdpSocket {
    client_at("127.0.0.1", of.address).await
}

/// Answers what it is told, and its name before it.
async fn answering(name: &'static str) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(answer(socket, name));
    port
}

async fn answer(socket: UdpSocket, name: &'static str) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // What is told of an answer that nobody heard is no matter.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// Asks until an answer comes; the last one, where several are on their way.
async fn asks(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let asking = async {
        loop {
            let _ = client.send(question).await;
            let answer = tokio::time::timeout(AGAIN, client.recv(&mut buffer));
            if let Ok(Ok(length)) = answer.await {
                return length;
            }
        }
    };
    let length = soon("an answer", asking).await;
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn datagrams_go_to_the_target_and_answers_come_back() {
    let mut world = World::new();
    let service = answering("dns ").await;
    let live = world.declare_udp("dns", json!([target(service)]), json!({}));
    let open = world.open(&live);
    assert_eq!(live.since_client(), None);
    // Longer than a packet of any link.
    let long = vec![b'x'; MAX_DATAGRAM - 4];
    // Each asks one question: who had to ask twice may be answered twice.
    let mut clients = Vec::new();
    for question in [&b"one"[..], b"other", b"", &long[..]] {
        let client = client(&open).await;
        let answer = asks(&client, question).await;
        let expected = [&b"dns "[..], question].concat();
        assert!(answer == expected, "{} bytes", answer.len());
        clients.push(client);
    }
    let metered = live.metered();
    assert_eq!(metered.connections, clients.len());
    assert!(live.since_client().is_some());
    assert!(metered.in_bytes >= 8 && metered.out_bytes >= 16);
    assert_eq!(world.one("dns").healthy, Some(true));
    drop(open);
    until("the flows to end", || live.metered().connections == 0).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    let mut world = World::new();
    let service = answering("").await;
    let live = world.declare_udp("dns", json!([target(service)]), json!({}));
    let open = world.open_at("0.0.0.0:0", &live);
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        // One that is connected hears nobody else.
        let of = SocketAddr::new(ip.parse().unwrap(), open.address.port());
        let client = client_at("127.0.0.1", of).await;
        assert_eq!(asks(&client, ip.as_bytes()).await, ip.as_bytes());
    }
}

#[tokio::test]
async fn a_target_where_nobody_listens_is_passed_over() {
    let mut world = World::new();
    let service = answering("second ").await;
    let [nobody] = free_ports();
    let targets = json!([target(nobody), target(service)]);
    let live = world.declare_udp("dns", targets, json!({}));
    let open = world.open(&live);
    for _ in 0..4 {
        let client = client(&open).await;
        assert_eq!(asks(&client, b"hello").await, b"second hello");
    }
    let known = world.tunnels.health.snapshot(&key("dns"));
    let of = |port: u16| known.iter().find(|it| it.target.port == port).unwrap();
    assert_eq!(of(service).healthy, Some(true));
    // It was tried at most once: from then on it is known.
    let refused = live.metered().failures.get("Refused").copied();
    assert!(refused <= Some(1), "{refused:?}");
    let told = of(nobody);
    assert_eq!(told.reason, if refused.is_some() { "Refused" } else { "" });
}

#[tokio::test]
async fn flows_are_bounded_and_end_when_nothing_is_said() {
    let mut world = World::new();
    let service = answering("").await;
    let more = json!({ "maxConnections": 1, "idleTimeout": "4s" });
    let live = world.declare_udp("dns", json!([target(service)]), more);
    let open = world.open(&live);
    let (first, second) = (client(&open).await, client(&open).await);
    assert_eq!(asks(&first, b"first").await, b"first");
    second.send(b"second").await.unwrap();
    let refused = || live.metered().failures.get("TooManyConnections").copied();
    until("a refusal", || refused() == Some(1)).await;
    until("the first to be idle", || live.metered().connections == 0).await;
    // Until the first flow is forgotten, the second client is asked to wait.
    assert_eq!(asks(&second, b"second").await, b"second");
}

#[tokio::test]
async fn one_number_may_be_a_port_of_both() {
    let mut world = World::new();
    let [port] = free_ports();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let (connections, datagrams) = (echoing("tcp").await, answering("udp ").await);
    let more = json!({ "port": port });
    world.declare("a", json!([target(connections)]), more.clone());
    world.declare_udp("b", json!([target(datagrams)]), more);
    let mut doors = Doors::new(world.tunnels.clone(), at.ip());
    assert!(doors.follow(&world.table()).await);
    hears(&mut TcpStream::connect(at).await.unwrap(), "tcp").await;
    let client = client_at("127.0.0.1", at).await;
    assert_eq!(asks(&client, b"hello").await, b"udp hello");
    assert!(std::net::UdpSocket::bind(at).is_err());

    world.delete("b");
    assert!(doors.follow(&world.table()).await);
    until("the port to close", || {
        std::net::UdpSocket::bind(at).is_ok()
    })
    .await;
    hears(&mut TcpStream::connect(at).await.unwrap(), "tcp").await;
}

#[tokio::test]
async fn flows_end_with_their_tunnel_and_with_its_port() {
    let mut world = World::new();
    let (one, two) = (answering("one ").await, answering("two ").await);
    let live = world.declare_udp("one", json!([target(one)]), json!({}));
    let next = world.declare_udp("two", json!([target(two)]), json!({}));
    let open = world.open(&live);
    let client = client(&open).await;
    assert_eq!(asks(&client, b"hello").await, b"one hello");
    // The port is the other's now, and so is what the same client says.
    open.owner.send_replace(next.clone());
    let passed_on = async { while asks(&client, b"hello").await != b"two hello" {} };
    soon("the other tunnel", passed_on).await;
    until("the first flow to end", || live.metered().connections == 0).await;
    world.delete("two");
    until("the second flow to end", || next.metered().connections == 0).await;
}

#[tokio::test]
async fn a_target_is_well_that_answers_or_does_not_refuse() {
    let mut world = World::new();
    let service = answering("").await;
    let [port] = free_ports();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let silent = UdpSocket::bind(at).await.unwrap();
    let mut watch = |name: &str, port: u16, payload: Option<&str>| {
        let check = json!({ "interval": "20ms", "timeout": "300ms", "payload": payload });
        let more = json!({ "healthCheck": check });
        let live = world.declare_udp(name, json!([target(port)]), more);
        world.tunnels.watch(live);
    };
    watch("answers", service, Some("cGluZw=="));
    watch("mute", at.port(), Some("cGluZw=="));
    watch("unknown", at.port(), None);
    let is = async |name: &str, healthy: bool, reason: &str| {
        let what = format!("{name} to be {healthy} {reason}");
        let holds = || {
            let one = world.one(name);
            one.healthy == Some(healthy) && one.reason == reason
        };
        until(&what, holds).await;
    };
    is("answers", true, "").await;
    is("mute", false, "Timeout").await;
    is("unknown", true, "").await;

    // Nobody asks it anything of itself: it is a client whom its system tells.
    drop(silent);
    is("mute", false, "Refused").await;
    // That is so for the other controllers, too.
    let door = world.tunnels.door(&TunnelDoorRequest {
        namespace: "default".into(),
        name: "mute".into(),
        uid: world.live("mute").tunnel().uid.clone(),
    });
    let [refusal] = &door.refusals[..] else {
        panic!("{:?}", door.refusals);
    };
    assert_eq!((&*refusal.node, &*refusal.reason), ("pi", "Refused"));
    assert_eq!(refusal.address, at.to_string());
    let live = world.live("unknown");
    let open = world.open(&live);
    let client = client(&open).await;
    let asking = async {
        for _ in 0.. {
            let _ = client.send(b"is anybody there").await;
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = is("unknown", false, "Refused") => {}
        () = asking => {}
    }
    let back = UdpSocket::bind(at).await.unwrap();
    is("unknown", true, "").await;
    is("mute", false, "Timeout").await;
    tokio::spawn(answer(back, ""));
    is("mute", true, "").await;
}

#[tokio::test]
async fn an_agent_that_does_not_know_udp_is_told_apart() {
    let world = World::new();
    let links = world.tunnels.opener.links();
    let agent = fake_agent::join_by_hand(links, "old");
    let before = async {
        // It drops a stream of which it does not know the purpose.
        drop(agent.accept().await.unwrap());
    };
    let target: TunnelTarget = serde_json::from_value(on("old", 53)).unwrap();
    let within = DEADLINE;
    let tunnel = key("dns");
    let opening = world.tunnels.opener.open_flow(&tunnel, &target, within);
    let (opened, ()) = tokio::join!(opening, before);
    assert_eq!(opened.err().unwrap().reason(), "AgentTooOld");
}

#[tokio::test]
async fn who_may_not_come_begins_no_flow() {
    let mut world = World::new();
    let service = answering("").await;
    let access = |client: &str| json!({ "access": { "allowedClients": [client] } });
    let targets = json!([target(service)]);
    let live = world.declare_udp("dns", targets.clone(), access("203.0.113.0/24"));
    let open = world.open(&live);
    let client = client(&open).await;
    client.send(b"hello").await.unwrap();
    let refused = || live.metered().failures.get("ClientNotAllowed").copied();
    until("a refusal", || refused() == Some(1)).await;
    assert_eq!(live.metered().connections, 0);
    assert_eq!(world.one("dns").healthy, None);

    world.declare_udp("dns", targets, access("127.0.0.0/8"));
    assert_eq!(asks(&client, b"hello").await, b"hello");
}
