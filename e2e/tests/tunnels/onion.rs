//! Onion services of a swarm, asked by C tor through a Tor network on this machine: two implementations meet, and nothing
//! leaves the machine.
//!
//! Not tested: the public network, bridges, and floods of clients.

#[path = "onion/network.rs"]
mod network;

use std::net::Ipv4Addr;
use std::time::Duration;

use hive_e2e::swarm::object;
use hive_e2e::wait::{holds, until};
use hive_e2e::{Steps, Swarm};
use regex::Regex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::declared::{declare, target};
use crate::service::{Habit, Service};
use crate::site::Site;
use crate::tcp::says;
use network::{Client, Network, PATIENCE};

/// For one connection to be made, or given up.
const ATTEMPT: Duration = Duration::from_secs(45);

/// What a client has to a service that is for it alone, and what the service has. They were made for this test.
const PRIVATE_KEY: &str = "SCCENO4BC2RBQAXIPCCP5B6N562YCLRBSSW5UV2TQXHJWSNOMB6Q";
const PUBLIC_KEY: &str = "GVPBFW6MEUEVAHB6ABYIG4CAPO2AAW6Y4JFIZ524XAZSUTAKIJ3Q";

const SSH: u16 = 2222;

#[tokio::test(flavor = "multi_thread")]
async fn onion_services_are_found_and_keep_their_address() {
    let Some(mut network) = Network::start("onion services").await else {
        return;
    };
    let stranger = network.client("stranger", None).await;
    let builder = Swarm::builder().agents(1);
    let mut swarm = builder
        .run_flag("--tor-config", &network.arti())
        .start()
        .await;
    let (site, echo) = (swarm.take_port(), swarm.take_port());
    let _site = Site::start("one", site).await;
    let _echo = Service::start(echo, Habit::Echo).await;
    let spec = json!({ "provider": "Tor", "targets": [target("node-1", site)] });
    declare(&swarm, "photos", spec).await;
    let tcp = json!({ "provider": "Tor", "protocol": "TCP", "port": SSH, "targets": [target("node-1", echo)] });
    declare(&swarm, "shell", tcp.clone()).await;
    let photos = address(&mut swarm, "photos").await;
    let shell = address(&mut swarm, "shell").await;
    let mut steps = Steps::new();

    steps
        .run("requests are answered", async {
            let headers = requested(&stranger, &photos, "/headers").await;
            assert!(headers.contains(&format!("x-forwarded-host: {photos}")));
            assert!(headers.contains("x-forwarded-for: 127.0.0.1"), "{headers}");
        })
        .await;
    steps
        .run("connections are carried", async {
            let mut stream = connected(&stranger, &shell, SSH).await;
            says(&mut stream, "through six relays").await.unwrap();
            let other = connect(&stranger, &shell, SSH + 1).await;
            assert!(other.is_err(), "nobody is at this port");
        })
        .await;
    steps
        .run("some are for one client only", async {
            let mut spec = tcp.clone();
            let key = format!("descriptor:x25519:{PUBLIC_KEY}");
            spec["tor"] = json!({ "authorizedClients": [key] });
            declare(&swarm, "private", spec).await;
            let private = address(&mut swarm, "private").await;
            let name = private.trim_end_matches(".onion");
            let friend = network.client("friend", Some((name, PRIVATE_KEY))).await;
            let mut stream = connected(&friend, &private, SSH).await;
            says(&mut stream, "it is me").await.unwrap();
            let refused = connect(&stranger, &private, SSH).await;
            assert!(refused.is_err(), "a stranger got through");
        })
        .await;
    steps
        .run("the address survives the leader", async {
            let leader = swarm.leader().await;
            swarm.controllers[leader].member.kill9().await;
            swarm.leader().await;
            let answer = requested(&stranger, &photos, "/").await;
            assert!(answer.ends_with("one"), "{answer}");
            assert_eq!(address(&mut swarm, "photos").await, photos);
            let mut stream = connected(&stranger, &shell, SSH).await;
            says(&mut stream, "as before").await.unwrap();
        })
        .await;
    steps.finish();
}

/// The address of a service, once it is ready.
async fn address(swarm: &mut Swarm, name: &str) -> String {
    let client = swarm.client().await;
    let path = format!("/apis/hive.dev/v1/namespaces/default/tunnels/{name}");
    let is_address = Regex::new(r"[a-z2-7]{56}\.onion").unwrap();
    until(&format!("{name} is ready"), PATIENCE, async || {
        let tunnel = object(&client, &path).await?;
        let status = &tunnel["status"];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
        let is_ready = ready.any(|condition| condition["status"] == "True");
        holds(is_ready, status)?;
        let said = status["addresses"].to_string();
        let found = is_address
            .find(&said)
            .map(|found| found.as_str().to_owned());
        found.ok_or_else(|| status.to_string())
    })
    .await
}

/// The answer to a request at an onion service, with its head.
async fn requested(client: &Client, host: &str, path: &str) -> String {
    until(&format!("{host} answers"), PATIENCE, async || {
        let mut stream = connect(client, host, 80).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(ATTEMPT, exchange).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        holds(answer.starts_with("HTTP/1.1 200 "), &answer)?;
        Ok::<_, String>(answer)
    })
    .await
}

async fn connected(client: &Client, host: &str, port: u16) -> TcpStream {
    until(&format!("a connection to {host}"), PATIENCE, async || {
        connect(client, host, port).await
    })
    .await
}

/// A connection by SOCKS: Tor finds the host.
async fn connect(client: &Client, host: &str, port: u16) -> Result<TcpStream, String> {
    match timeout(ATTEMPT, ask(client.socks, host, port)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not within {ATTEMPT:?}")),
    }
}

async fn ask(socks: u16, host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, socks)).await?;
    stream.write_all(&[5, 1, 0]).await?;
    stream.read_exact(&mut [0; 2]).await?;
    let length = u8::try_from(host.len()).unwrap();
    let mut request = vec![5, 1, 0, 3, length];
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    match answer[1] {
        0 => Ok(stream),
        why => Err(std::io::Error::other(format!("tor says {why}"))),
    }
}
