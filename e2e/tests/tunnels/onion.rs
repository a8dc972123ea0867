//! Onion services of a swarm, asked by C tor through a Tor network on this machine: two implementations meet, and nothing
//! leaves the machine.
//!
//! It is a long way until the first client is answered, so each stage of it has a deadline and says what it saw. Where
//! that is not enough, `HIVE_LOG=info,tor_dirmgr=debug,tor_circmgr=debug,tor_hsservice=debug` has Arti say more.
//!
//! Not tested: the public network, bridges, and floods of clients.

#[path = "onion/consensus.rs"]
mod consensus;
#[path = "onion/network.rs"]
mod network;
#[path = "onion/relay.rs"]
mod relay;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hive_e2e::swarm::object;
use hive_e2e::wait::{holds, until};
use hive_e2e::{Steps, Swarm};
use regex::Regex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::declared::{declare, target};
use crate::service::{Habit, Service};
use crate::site::Site;
use crate::tcp::says;
use network::{Client, Network};

/// From the network's first key to the last step.
const WHOLE: Duration = Duration::from_secs(240);

/// For the authorities to agree on everybody: the third vote is not needed if nobody was late for the second.
const AGREED: Duration = Duration::from_secs(80);

/// For a program to find its way into the network.
const ENTERED: Duration = Duration::from_secs(45);

/// For a service to be known to the directory, by three relays at which it is asked for.
const PUBLISHED: Duration = Duration::from_secs(60);

/// For a client to find a service and be answered.
const ANSWERED: Duration = Duration::from_secs(60);

/// For one connection to be made, or given up.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What a client has to a service that is for it alone, and what the service has. They were made for this test.
const PRIVATE_KEY: &str = "SCCENO4BC2RBQAXIPCCP5B6N562YCLRBSSW5UV2TQXHJWSNOMB6Q";
const PUBLIC_KEY: &str = "GVPBFW6MEUEVAHB6ABYIG4CAPO2AAW6Y4JFIZ524XAZSUTAKIJ3Q";

const SSH: u16 = 2222;

#[tokio::test(flavor = "multi_thread")]
async fn onion_services_are_found_and_keep_their_address() {
    let Some(mut network) = Network::find("onion services").await else {
        return;
    };
    let builder = Swarm::builder().agents(1);
    let arti = network.arti().display().to_string();
    // The swarm's turn is also the network's, and its ports are.
    let mut swarm = builder.run_flag("--tor-config", &arti).start().await;
    let test = are_found_and_keep_their_address(&mut network, &mut swarm);
    // Both are still there when it is given up, and tell what they logged.
    let ended = timeout(WHOLE, test).await;
    assert!(
        ended.is_ok(),
        "what comes after the last line above goes on: {WHOLE:?} are over"
    );
}

async fn are_found_and_keep_their_address(network: &mut Network, swarm: &mut Swarm) {
    network.start(|| swarm.take_port()).await;
    let network = &*network;
    stage("the authorities agree on all relays", AGREED, async || {
        network.agrees().await
    })
    .await;
    let stranger = network.client("stranger", swarm.take_port(), None);
    let (site, echo) = (swarm.take_port(), swarm.take_port());
    let _site = Site::start("one", site).await;
    let _echo = Service::start(echo, Habit::Echo).await;
    let spec = json!({ "provider": "Tor", "targets": [target("node-1", site)] });
    declare(swarm, "photos", spec).await;
    let tcp = json!({ "provider": "Tor", "protocol": "TCP", "port": SSH, "targets": [target("node-1", echo)] });
    declare(swarm, "shell", tcp.clone()).await;
    let mut for_one = tcp;
    let key = format!("descriptor:x25519:{PUBLIC_KEY}");
    for_one["tor"] = json!({ "authorizedClients": [key] });
    declare(swarm, "private", for_one).await;
    let api = swarm.client().await;
    stage("Arti found its way", ENTERED, async || {
        let said = Said::of(&api, "photos").await?;
        let is_in = ["TorPublishing", "TorUnpublished"].contains(&&*said.reason);
        holds(said.is_ready || is_in, said.status)
    })
    .await;
    let photos = address(swarm, "photos").await;
    let shell = address(swarm, "shell").await;
    let private = address(swarm, "private").await;
    entered(&stranger, "the stranger").await;
    let friend = {
        let name = private.trim_end_matches(".onion");
        network.client("friend", swarm.take_port(), Some((name, PRIVATE_KEY)))
    };
    stage("the stranger finds a service", ANSWERED, async || {
        connect(&stranger, &shell, SSH).await.map(drop)
    })
    .await;
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
            entered(&friend, "the friend").await;
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
            assert_eq!(address(swarm, "photos").await, photos);
            let mut stream = connected(&stranger, &shell, SSH).await;
            says(&mut stream, "as before").await.unwrap();
        })
        .await;
    steps.finish();
}

/// Waits for a stage of the way, and tells when it is reached. At its deadline it says what was seen instead.
async fn stage<T>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    let found = until(what, deadline, look).await;
    println!(
        "  reached {:6.2} s  {what}",
        started.elapsed().as_secs_f64()
    );
    found
}

async fn entered(client: &Client, who: &str) {
    let what = format!("{who} found its way");
    stage(&what, ENTERED, async || client.connected()).await;
}

/// What is said of a tunnel.
struct Said {
    is_ready: bool,
    /// Why it is not ready, in a word.
    reason: String,
    status: Value,
}

impl Said {
    /// # Panics
    ///
    /// If the program under test has no Tor.
    async fn of(api: &kube::Client, name: &str) -> Result<Self, String> {
        let path = format!("/apis/hive.dev/v1/namespaces/default/tunnels/{name}");
        let mut tunnel = object(api, &path).await?;
        let status = tunnel["status"].take();
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.find(|condition| condition["type"] == "Ready");
        let ready = ready.ok_or("nothing is said of it")?;
        let reason = ready["reason"].as_str().unwrap_or_default().to_owned();
        assert_ne!(
            reason, "TorNotBuilt",
            "the `hive` under test has no Tor: build it with `cargo build --features tor`, and test again"
        );
        Ok(Self {
            is_ready: ready["status"] == "True",
            reason,
            status,
        })
    }
}

/// The address of a service, once it is published.
async fn address(swarm: &mut Swarm, name: &str) -> String {
    let api = swarm.client().await;
    let is_address = Regex::new(r"[a-z2-7]{56}\.onion").unwrap();
    stage(&format!("{name} is published"), PUBLISHED, async || {
        let Said {
            is_ready, status, ..
        } = Said::of(&api, name).await?;
        holds(is_ready, &status)?;
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
    until(&format!("{host} answers"), ANSWERED, async || {
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
    until(&format!("a connection to {host}"), ANSWERED, async || {
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
