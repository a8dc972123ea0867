//! A request goes where an entry of `allowedHosts` lets it, whatever the guest makes of it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use hive_functions::{FunctionOptions, InvokeError, LogStream, Resolve, Runtime, RuntimeOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{PROBE, answer, both_with, loaded};
use crate::{
    guests::{Loaded, eventually, get_of, load_compiled_on},
    scratch::SERVICES_0_3,
};

/// Answers every request with `answer`, and keeps what it saw.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<String>>,
    /// Connections that there are, and the most that there were.
    open: AtomicU32,
    most: AtomicU32,
}

impl Server {
    async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, seen) = (Arc::new(answer), Arc::new(Seen::default()));
        tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (answer, seen) = (answer.clone(), seen.clone());
                    let open = seen.open.fetch_add(1, Ordering::Relaxed) + 1;
                    seen.most.fetch_max(open, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let _ = converse(stream, &seen, &*answer).await;
                        seen.open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Self { address, seen }
    }

    async fn start() -> Self {
        Self::answering(|_| ok("reached")).await
    }

    fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    fn entry(&self) -> String {
        self.address.to_string()
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An empty answer: none.
async fn converse(
    mut stream: TcpStream,
    seen: &Seen,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        // What the probe asks with has no body.
        let end = b"\r\n\r\n";
        while !read.ends_with(end) {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&read[..read.len() - end.len()]).into_owned();
        read.clear();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        seen.heads.lock().unwrap().push(head);
        stream.write_all(answer(&path).as_bytes()).await?;
    }
}

fn allowing(entries: &[&str]) -> [Loaded; 2] {
    both_with(allowed(entries))
}

fn allowed(entries: &[&str]) -> impl Fn(&mut FunctionOptions) {
    let entries: Vec<_> = entries.iter().map(|&entry| entry.to_owned()).collect();
    move |options| options.allowed_hosts = entries.clone()
}

/// A target of the probe with these parameters.
fn target(path: &str, parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02x}")).collect() };
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    format!("{path}?{}", parameters.join("&"))
}

#[tokio::test]
async fn the_host_header_is_what_was_judged() {
    let server = Server::start().await;
    let url = format!("http://{}/path", server.address);
    let probes = allowing(&[&server.entry()]);
    for header in [
        "host: other.example",
        "Host: other.example",
        "connection: close",
        "keep-alive: 1",
        "transfer-encoding: chunked",
        "proxy-authorization: secret",
        "proxy-connection: close",
        "upgrade: h2c",
        "http2-settings: AAMAAABkAARAAAAAAAIAAAAA",
        ":authority: other.example",
        "x: two\r\nhost: other.example",
        "x\r\nhost: other.example",
    ] {
        let target = target("/egress", &[("url", &url), ("header", header)]);
        for probe in &probes {
            let answer = answer(probe, &target).await;
            assert!(answer.starts_with("error the header"), "{header}: {answer}");
        }
    }
    assert!(server.heads().is_empty());

    let target = target("/egress", &[("url", &url), ("header", "x-own: 1")]);
    for probe in &probes {
        assert_eq!(answer(probe, &target).await, "status 200\nreached");
    }
    let host = format!("host: {}", server.address);
    let heads = server.heads();
    assert_eq!(heads.len(), probes.len());
    for head in heads {
        let (first, headers) = head.split_once("\r\n").unwrap();
        let mut headers: Vec<_> = headers.split("\r\n").collect();
        headers.sort_unstable();
        assert_eq!(
            (first, headers),
            ("GET /path HTTP/1.1", vec![&*host, "x-own: 1"])
        );
    }
}

#[tokio::test]
async fn no_spelling_of_an_address_hides_it() {
    let server = Server::start().await;
    let port = server.address.port();
    // Every public host, and names that sound like it.
    let probes = allowing(&["*", "*:*", "example.com:*", "*.localhost:*"]);
    for authority in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "example.com@127.0.0.1",
        "example.com:80@127.0.0.1",
        "example.com%00.127.0.0.1",
        "%31%32%37.0.0.1",
        "[::1%25lo]",
        "",
    ] {
        let authority = format!("{authority}:{port}");
        let parameters = [("url", "http://example.com/"), ("authority", &authority)];
        for probe in &probes {
            let answer = answer(probe, &target("/egress", &parameters)).await;
            assert!(answer.starts_with("error "), "{authority}: {answer}");
        }
    }
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn an_authority_is_a_host_and_a_port() {
    let server = Server::start().await;
    let probes = allowing(&["*", "127.0.0.1:*"]);
    let address = server.address;
    for authority in [
        format!("user@{address}"),
        format!("user:secret@{address}"),
        format!("{address}@other.example"),
        format!("{address}:80"),
        format!("{address}\r\nx: y"),
        format!("{address}/path"),
        format!("{address}#"),
        "127.0.0.1:0".to_owned(),
        "127.0.0.1:65536".to_owned(),
        "127.0.0.1:http".to_owned(),
    ] {
        let parameters = [("url", "http://127.0.0.1/"), ("authority", &authority)];
        for probe in &probes {
            let answer = answer(probe, &target("/egress", &parameters)).await;
            assert!(answer.starts_with("error "), "{authority}: {answer}");
        }
    }
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_path_is_a_path() {
    let allowed = Server::start().await;
    let denied = Server::start().await;
    let probes = allowing(&[&allowed.entry()]);
    let url = format!("http://{}/", allowed.address);
    for path in [
        &format!("http://{}/", denied.address),
        &format!("//{}/", denied.address),
        &format!("@{}/", denied.address),
        &format!(".{}/", denied.address),
        "/ HTTP/1.1\r\nhost: other.example\r\n\r\n",
        "/\r\nx: y",
    ] {
        for probe in &probes {
            let answer = answer(probe, &target("/egress", &[("url", &url), ("path", path)])).await;
            assert!(
                answer.starts_with("error ") || answer == "status 200\nreached",
                "{path}: {answer}"
            );
        }
    }
    for head in allowed.heads() {
        assert_eq!(head.matches("\r\nhost: ").count(), 1, "{head}");
        assert!(head.contains(&format!("\r\nhost: {}", allowed.address)));
    }
    assert!(denied.heads().is_empty());
}

#[tokio::test]
async fn there_is_no_other_way_than_http() {
    let server = Server::start().await;
    let probes = allowing(&[&server.entry()]);
    let url = format!("http://{}/", server.address);
    for odd in [
        ("scheme", "unix"),
        ("scheme", "file"),
        ("scheme", "ftp"),
        ("scheme", "h2c"),
        ("method", "CONNECT"),
        ("method", "TRACE"),
        ("method", "GET / HTTP/1.1\r\n\r\n"),
    ] {
        for probe in &probes {
            let answer = answer(probe, &target("/egress", &[("url", &url), odd])).await;
            assert!(answer.starts_with("error "), "{odd:?}: {answer}");
        }
    }
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn redirects_are_the_guests_own_to_follow_and_judged_anew() {
    let denied = Server::start().await;
    let elsewhere = denied.address;
    let allowed = Server::answering(move |path| {
        let code = path.trim_start_matches('/');
        format!(
            "HTTP/1.1 {code} Moved\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n"
        )
    })
    .await;
    let probes = allowing(&[&allowed.entry(), "*"]);
    for code in ["301", "302", "303", "307", "308"] {
        let url = format!("http://{}/{code}", allowed.address);
        for probe in &probes {
            assert_eq!(
                answer(probe, &target("/egress", &[("url", &url)])).await,
                format!("status {code}\n")
            );
            assert_eq!(
                answer(probe, &target("/follow", &[("url", &url)])).await,
                format!(
                    "status {code} to http://{elsewhere}/\nerror ErrorCode::DestinationIpProhibited"
                )
            );
        }
    }
    assert!(denied.heads().is_empty());
}

/// Every name stands for these, one after the other, then for the last.
struct Turns(Mutex<Vec<IpAddr>>);

impl Resolve for Turns {
    fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut turns = self.0.lock().unwrap();
        let address = if turns.len() > 1 {
            turns.remove(0)
        } else {
            turns[0]
        };
        Box::pin(async move { Ok(vec![address]) })
    }
}

fn resolving(addresses: &[&str], entries: &[&str]) -> [Loaded; 2] {
    [&PROBE, &SERVICES_0_3].map(|code| {
        let turns = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let options = RuntimeOptions {
            max_instances: 4,
            ..RuntimeOptions::default()
        };
        let resolver = Arc::new(Turns(Mutex::new(turns)));
        let runtime = Runtime::start_resolving(options, resolver).unwrap();
        load_compiled_on(&runtime, code, allowed(entries))
    })
}

#[tokio::test]
async fn a_name_opens_no_private_address() {
    let addresses = [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.10",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ];
    for probe in resolving(&addresses, &["*", "allowed.test"]) {
        for address in addresses {
            let answer = answer(&probe, "/egress?url=http://allowed.test/").await;
            assert_eq!(
                answer, "error ErrorCode::DestinationIpProhibited\n",
                "{address}"
            );
            let address: IpAddr = address.parse().unwrap();
            let entry = match address.to_canonical() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let lines = probe.logs.of(LogStream::Hive);
            let said = lines.last().unwrap();
            assert!(
                said.contains(&format!("add \"{entry}\" to spec.allowedHosts")),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_is_judged_each_time() {
    let server = Server::answering(|_| {
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
    })
    .await;
    let port = server.address.port();
    let other = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let named = format!("127.0.0.1:{port}");
    let name = format!("rebound.test:{port}");
    let probes = resolving(&["127.0.0.1", "127.0.0.2"], &[&name, &named]);
    let url = format!("http://{name}/");
    let target = target("/egress", &[("url", &url)]);
    for probe in &probes {
        assert_eq!(answer(probe, &target).await, "status 200\n");
        assert_eq!(
            answer(probe, &target).await,
            "error ErrorCode::DestinationIpProhibited\n"
        );
    }
    // Had the guest connected, it would be accepted before us.
    let us = TcpStream::connect(other.local_addr().unwrap())
        .await
        .unwrap();
    let (_, first) = other.accept().await.unwrap();
    assert_eq!(first, us.local_addr().unwrap());
}

#[tokio::test]
async fn connections_are_no_more_than_allowed() {
    for code in [&PROBE, &SERVICES_0_3] {
        let server = Server::start().await;
        let entry = server.entry();
        let probe = loaded(code, |options| {
            options.allowed_hosts = vec![entry];
            options.egress.max_connections = 2;
            options.egress.connect = Duration::from_secs(20);
        });
        let url = format!("http://{}/", server.address);
        let many = target("/many", &[("url", &url), ("count", "20")]);
        assert_eq!(answer(&probe, &many).await, "status 200\n".repeat(20));
        assert_eq!(server.seen.most.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_guest_that_is_stopped_leaves_no_connection() {
    let server = Server::answering(|_| String::new()).await;
    let entry = server.entry();
    let probes = both_with(|options| {
        options.allowed_hosts = vec![entry.clone()];
        options.limits.timeout = Duration::from_millis(500);
    });
    let url = format!("http://{}/", server.address);
    let target = target("/egress", &[("url", &url)]);
    for probe in probes {
        let error = probe.function.handle(get_of(&target)).await.unwrap_err();
        assert!(matches!(error, InvokeError::Timeout(_)), "{error}");
        eventually("the connection is closed", || {
            server.seen.open.load(Ordering::Relaxed) == 0
        })
        .await;
    }
}
