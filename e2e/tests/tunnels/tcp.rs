//! TCP through every controller: both directions, to their ends, and within limits.

use std::net::{Ipv4Addr, SocketAddr};

use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::declared::{declare, not_ready, proven, target};
use crate::noise::{MUCH, Noise, Sum, sum};
use crate::requests::within;
use crate::service::{GREETING, Habit, Service};
use crate::weight::{no_more_files, open_files};

/// What one node carries at once, through one controller.
const THOUSAND: usize = 1000;

/// Each of the test's connections is a file of its own, and another one of the service's.
const OPEN_FILES: u64 = 8192;

/// Of connections one after another, as many at once.
const AT_ONCE: usize = 25;
const CONNECTIONS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn tcp_tunnels_carry_what_is_said_on_both_sides() {
    // The swarm's processes inherit it.
    raise_open_files();
    let mut swarm = Swarm::builder().agents(2).apart().start().await;
    let echo = Service::start(swarm.take_port(), Habit::Echo).await;
    let mut ports = [0; 2];
    ports.fill_with(|| swarm.take_port());
    let (port, service) = (swarm.take_port(), swarm.take_port());
    let spec =
        json!({ "protocol": "TCP", "port": port, "targets": [target("node-1", echo.port())] });
    declare(&swarm, "echo", spec).await;
    let addresses = addresses(&swarm, port);
    let mut steps = Steps::new();

    steps
        .run("a service answers through every controller", async {
            proven(&swarm, "echo").await;
            for address in &addresses {
                reaches(address).await;
            }
            let listed = swarm.ctl(&["get", "tunnels"]).await;
            let described = swarm.ctl(&["describe", "tunnel", "echo"]).await;
            assert!(listed.ok().contains(&addresses[0]), "{listed}");
            for address in &addresses {
                assert!(described.ok().contains(address), "{described}");
            }
        })
        .await;
    steps
        .run(
            "each side may end first, and hear the other out",
            ends(&mut swarm, ports, service),
        )
        .await;
    steps
        .run("64 MiB come back as they went", much(&addresses[1]))
        .await;
    steps
        .run(
            "the service is told who connects",
            told_who(&mut swarm, &echo),
        )
        .await;
    steps
        .run(
            "each controller takes as many connections as it may",
            limited(&mut swarm, &echo),
        )
        .await;
    steps
        .run(
            "of two tunnels with one port the older has it",
            conflict(&mut swarm, &echo),
        )
        .await;
    steps
        .run(
            "five hundred connections leave nothing behind",
            leaves_nothing(&swarm, &addresses, &echo),
        )
        .await;
    steps
        .run(
            "one node carries a thousand connections",
            thousand(&mut swarm, &echo),
        )
        .await;
    steps
        .run("what is deleted is closed, and what was open ends", async {
            let mut open = connect(&addresses[0]).await;
            says(&mut open, "still there").await.unwrap();
            swarm.ctl(&["delete", "tunnel", "echo"]).await.ok();
            is_ended(&mut open).await;
            for address in &addresses {
                is_closed(address).await;
            }
        })
        .await;
    steps.finish();
}

fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        limit.current = Some(
            limit
                .maximum
                .map_or(OPEN_FILES, |most| most.min(OPEN_FILES)),
        );
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}

/// Where each controller carries it.
pub fn addresses(swarm: &Swarm, port: u16) -> Vec<String> {
    let controllers = swarm.controllers.iter();
    controllers.map(|it| it.address(port)).collect()
}

/// A connection, once somebody listens there.
pub async fn connect(address: &str) -> TcpStream {
    let stream = until(&format!("{address} is open"), PATIENCE, async || {
        TcpStream::connect(address).await
    })
    .await;
    stream.set_nodelay(true).unwrap();
    stream
}

/// An echo answers: the way is there and back.
pub async fn says(stream: &mut TcpStream, text: &str) -> Result<(), String> {
    let exchange = async {
        stream.write_all(text.as_bytes()).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        Ok::<_, std::io::Error>(heard)
    };
    let heard = within("an echo", exchange).await;
    let heard = heard.map_err(|error| error.to_string())?;
    holds(heard == text.as_bytes(), String::from_utf8_lossy(&heard))
}

/// Waits until an echo answers on a new connection.
pub async fn reaches(address: &str) -> TcpStream {
    until(&format!("an echo at {address}"), PATIENCE, async || {
        let mut stream = connect(address).await;
        says(&mut stream, "is anybody there").await?;
        Ok::<_, String>(stream)
    })
    .await
}

/// Waits until nobody listens there.
async fn is_closed(address: &str) {
    until(
        &format!("{address} is closed"),
        PATIENCE,
        async || match TcpStream::connect(address).await {
            Ok(_) => Err("it takes connections".to_owned()),
            Err(error) => holds(error.kind() == std::io::ErrorKind::ConnectionRefused, error),
        },
    )
    .await;
}

/// Waits until the other side ends or breaks off a connection on which it has nothing to say.
pub async fn is_ended(stream: &mut TcpStream) {
    let read = within("the connection ends", stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "it said something");
}

async fn ends(swarm: &mut Swarm, ports: [u16; 2], service: u16) {
    let [first, second] = ports;
    let spec = |port: u16, to: u16| json!({ "protocol": "TCP", "port": port, "targets": [target("node-2", to)] });
    // The client first: the answer is made of all that it said.
    let digest = Service::start(service, Habit::Digest).await;
    declare(swarm, "digest", spec(first, service)).await;
    proven(swarm, "digest").await;
    let mut stream = connect(&swarm.controllers[2].address(first)).await;
    stream.write_all(b"all that there is to say").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let reading = within("the answer", stream.read_to_string(&mut answer));
    reading.await.unwrap();
    let mut expected = Sum::default();
    expected.add(b"all that there is to say");
    assert_eq!(answer, expected.text());
    drop(digest);

    // The service first: what is said after it arrives.
    let service = swarm.take_port();
    let greet = Service::start(service, Habit::Greet).await;
    declare(swarm, "greet", spec(second, service)).await;
    proven(swarm, "greet").await;
    let mut stream = connect(&swarm.controllers[0].address(second)).await;
    let mut greeting = String::new();
    let reading = within("the greeting", stream.read_to_string(&mut greeting));
    reading.await.unwrap();
    assert_eq!(greeting, GREETING);
    stream.write_all(b"good bye").await.unwrap();
    stream.shutdown().await.unwrap();
    until("the service heard it", PATIENCE, async || {
        let heard = greet.heard();
        holds(heard == ["good bye"], format!("{heard:?}"))
    })
    .await;
    swarm
        .ctl(&["delete", "tunnel", "digest", "greet"])
        .await
        .ok();
}

async fn much(address: &str) {
    let mut stream = connect(address).await;
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        for piece in Noise::new(MUCH) {
            writing.write_all(&piece).await.unwrap();
        }
        writing.shutdown().await.unwrap();
    };
    let receiving = async {
        let (mut heard, mut buffer) = (Sum::default(), vec![0; 64 << 10]);
        loop {
            match reading.read(&mut buffer).await.unwrap() {
                0 => return heard.text(),
                read => heard.add(&buffer[..read]),
            }
        }
    };
    let both = async { tokio::join!(sending, receiving).1 };
    assert_eq!(within("64 MiB there and back", both).await, sum(MUCH));
}

/// The PROXY protocol's signature, version 2 with the command PROXY, TCP over IPv4, 12 bytes of addresses.
const PROXIED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";

async fn told_who(swarm: &mut Swarm, echo: &Service) {
    let port = swarm.take_port();
    let spec = json!({
        "protocol": "TCP", "port": port, "proxyProtocol": "V2", "targets": [target("node-1", echo.port())],
    });
    declare(swarm, "proxied", spec).await;
    for address in addresses(swarm, port) {
        let mut stream = connect(&address).await;
        stream.write_all(b"after it").await.unwrap();
        // What the service hears it sends back.
        let mut heard = vec![0; PROXIED.len() + 12 + 8];
        within("the header", stream.read_exact(&mut heard))
            .await
            .unwrap();
        let (header, rest) = heard.split_at(PROXIED.len());
        assert_eq!(header, PROXIED);
        assert_eq!(&rest[12..], b"after it");
        let ip = |at: usize| <[u8; 4]>::try_from(&rest[at..at + 4]).unwrap();
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let client = SocketAddr::from((Ipv4Addr::from(ip(0)), port(8)));
        let controller = SocketAddr::from((Ipv4Addr::from(ip(4)), port(10)));
        assert_eq!(client, stream.local_addr().unwrap());
        assert_eq!(controller, stream.peer_addr().unwrap());
    }
    swarm.ctl(&["delete", "tunnel", "proxied"]).await.ok();
}

async fn limited(swarm: &mut Swarm, echo: &Service) {
    let port = swarm.take_port();
    let spec = json!({
        "protocol": "TCP", "port": port, "maxConnections": 2, "targets": [target("node-1", echo.port())],
    });
    declare(swarm, "limited", spec).await;
    proven(swarm, "limited").await;
    let addresses = addresses(swarm, port);
    // Those of the swarm's own trials end by themselves.
    let mut first = reaches(&addresses[0]).await;
    let second = reaches(&addresses[0]).await;
    is_ended(&mut connect(&addresses[0]).await).await;
    says(&mut first, "the first is still there").await.unwrap();
    reaches(&addresses[1]).await;
    drop(second);
    reaches(&addresses[0]).await;
    swarm.ctl(&["delete", "tunnel", "limited"]).await.ok();
}

async fn conflict(swarm: &mut Swarm, echo: &Service) {
    let port = swarm.take_port();
    let spec =
        json!({ "protocol": "TCP", "port": port, "targets": [target("node-1", echo.port())] });
    // Also where both are made within the same second.
    declare(swarm, "a-first", spec.clone()).await;
    declare(swarm, "b-second", spec).await;
    let why = not_ready(swarm, "b-second", "PortConflict").await;
    assert!(why.contains("a-first"), "{why}");
    proven(swarm, "a-first").await;
    swarm.ctl(&["delete", "tunnel", "a-first"]).await.ok();
    proven(swarm, "b-second").await;
    for address in addresses(swarm, port) {
        reaches(&address).await;
    }
    swarm.ctl(&["delete", "tunnel", "b-second"]).await.ok();
}

async fn leaves_nothing(swarm: &Swarm, addresses: &[String], echo: &Service) {
    let many = async |count: usize| {
        let mut under_way = JoinSet::new();
        for number in 0..count {
            if under_way.len() == AT_ONCE {
                under_way.join_next().await.unwrap().unwrap();
            }
            let address = addresses[number % addresses.len()].clone();
            under_way.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                says(&mut stream, "one of many").await.unwrap();
            });
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
    };
    // What is opened once and kept is there before it is counted.
    many(2 * AT_ONCE).await;
    quiet(echo).await;
    let before = open_files(swarm);
    many(CONNECTIONS).await;
    quiet(echo).await;
    no_more_files(swarm, &before).await;
}

/// All are open at once, and each is heard.
async fn thousand(swarm: &mut Swarm, echo: &Service) {
    let port = swarm.take_port();
    let spec = json!({
        "protocol": "TCP", "port": port, "maxConnections": 2 * THOUSAND, "targets": [target("node-1", echo.port())],
    });
    declare(swarm, "thousand", spec).await;
    proven(swarm, "thousand").await;
    let address = addresses(swarm, port)[0].clone();
    reaches(&address).await;
    let mut open = Vec::new();
    while open.len() < THOUSAND {
        let mut under_way = JoinSet::new();
        for _ in 0..AT_ONCE {
            let address = address.clone();
            under_way.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                says(&mut stream, "one of a thousand").await.unwrap();
                stream
            });
        }
        open.extend(under_way.join_all().await);
    }
    assert!(echo.open() >= THOUSAND, "{} are open", echo.open());
    for stream in &mut open {
        says(stream, "and still there").await.unwrap();
    }
    drop(open);
    swarm.ctl(&["delete", "tunnel", "thousand"]).await.ok();
    quiet(echo).await;
}

/// Waits until the service has no connection.
pub async fn quiet(service: &Service) {
    until("all connections of the service end", PATIENCE, async || {
        let open = service.open();
        holds(open == 0, format!("{open} are open"))
    })
    .await;
}
