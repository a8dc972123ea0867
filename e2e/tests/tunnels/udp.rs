//! UDP through every controller, and what becomes of it where the network lets no UDP through between controllers and
//! nodes.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hive_e2e::faults::{sandbox, tool};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, Turn};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::declared::{declare, not_ready, proven, target};
use crate::tcp::addresses;

/// An echo on loopback is there in less; a datagram that is not was lost.
const LOST: Duration = Duration::from_millis(300);

/// Longer than a packet of QUIC, and not a multiple of anything.
const LONG: usize = 9001;

/// Sends back what comes, from the same socket. Ends when it is dropped.
struct Echo(JoinHandle<()>);

impl Echo {
    async fn start(port: u16) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await;
        let socket = socket.expect("nobody took its port");
        Self(tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    let _ = socket.send_to(&buffer[..length], from).await;
                }
            }
        }))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spec(port: u16, node: &str, service: u16) -> Value {
    json!({
        "protocol": "UDP",
        "port": port,
        "targets": [target(node, service)],
        "healthCheck": { "payload": STANDARD.encode("is anybody there") },
    })
}

async fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}

/// Waits until what is said comes back.
async fn echoes(client: &UdpSocket, said: &[u8]) {
    let mut heard = vec![0; 64 << 10];
    until("an echo", PATIENCE, async || {
        client.send(said).await.map_err(|error| error.to_string())?;
        let heard = tokio::time::timeout(LOST, client.recv(&mut heard)).await;
        match heard {
            Ok(Ok(length)) => holds(length == said.len(), format!("{length} bytes")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("nothing came back".to_owned()),
        }
    })
    .await;
}

async fn echo_everywhere(addresses: &[String]) {
    for address in addresses {
        let client = client(address).await;
        for size in [4, 1200, LONG] {
            echoes(&client, &vec![size as u8; size]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_tunnels_carry_datagrams() {
    let mut swarm = Swarm::builder().agents(2).apart().start().await;
    let (port, service) = (swarm.take_port(), swarm.take_port());
    let mut echo = Some(Echo::start(service).await);
    declare(&swarm, "echo", spec(port, "node-1", service)).await;
    let addresses = addresses(&swarm, port);
    let mut steps = Steps::new();
    steps
        .run(
            "datagrams of every size come back from every controller",
            async {
                proven(&swarm, "echo").await;
                echo_everywhere(&addresses).await;
                let listed = swarm.ctl(&["get", "tunnels"]).await;
                assert!(listed.ok().contains(&addresses[0]), "{listed}");
            },
        )
        .await;
    steps
        .run(
            "a service that is gone is told, and found when it is back",
            async {
                drop(echo.take());
                let why = not_ready(&mut swarm, "echo", "TargetDown").await;
                assert!(why.contains("nothing listens"), "{why}");
                let _ = echo.insert(Echo::start(service).await);
                proven(&swarm, "echo").await;
                echo_everywhere(&addresses).await;
            },
        )
        .await;
    steps
        .run("one number is a port of TCP and of UDP", async {
            let tcp =
                json!({ "protocol": "TCP", "port": port, "targets": [target("node-2", service)] });
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, service)).await;
            let listener = listener.expect("nobody took its port");
            declare(&swarm, "other", tcp).await;
            proven(&swarm, "other").await;
            echo_everywhere(&addresses).await;
            drop(listener);
            swarm.ctl(&["delete", "tunnel", "other"]).await.ok();
        })
        .await;
    steps
        .run("what is deleted is closed", async {
            swarm.ctl(&["delete", "tunnel", "echo"]).await.ok();
            for address in &addresses {
                until("the port is free", PATIENCE, async || {
                    UdpSocket::bind(address).await.map(drop)
                })
                .await;
            }
        })
        .await;
    steps.finish();
}

#[tokio::test]
async fn udp_tunnels_go_on_where_udp_is_blocked() {
    if !sandbox::is_permitted("tunnels without UDP between controllers and nodes") {
        return;
    }
    let _turn = Turn::take().await;
    sandbox::run("udp::blocked_in_a_sandbox", &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started in its sandbox by the test above"]
async fn blocked_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let mut swarm = Swarm::builder().agents(1).apart().start().await;
    let (port, service) = (swarm.take_port(), swarm.take_port());
    let _echo = Echo::start(service).await;
    declare(&swarm, "echo", spec(port, "node-1", service)).await;
    proven(&swarm, "echo").await;
    let addresses = addresses(&swarm, port);
    let clients = [
        client(&addresses[0]).await,
        client(&addresses[1]).await,
        client(&addresses[2]).await,
    ];
    for client in &clients {
        echoes(client, b"by datagrams of QUIC").await;
    }

    // Of UDP only the links' ports are blocked: the tunnel's, and the service's, are on the same machine.
    let links: Vec<String> = swarm
        .controllers
        .iter()
        .map(|it| it.link.to_string())
        .collect();
    let links = links.join(", ");
    let rules = format!(
        "table inet blocked {{\n chain input {{\n  type filter hook input priority 0;\n  \
         udp dport {{ {links} }} counter drop\n  udp sport {{ {links} }} counter drop\n }}\n}}\n"
    );
    tool::feed("nft", &["-f", "-"], &rules).unwrap();
    for client in &clients {
        // The same clients go on, by other links: there is no other way than TCP.
        for size in [4, 1200, LONG] {
            echoes(client, &vec![size as u8; size]).await;
        }
    }
    let dropped = tool::must("nft", &["list", "table", "inet", "blocked"]);
    let counts = dropped.split("packets ").skip(1);
    let counts = counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(counts.sum::<u64>() > 0, "nothing was dropped: {dropped}");
    proven(&swarm, "echo").await;
}
