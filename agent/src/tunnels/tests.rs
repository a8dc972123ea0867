//! What a controller gets of the node behind a link.

#![allow(clippy::unwrap_used)]

mod datagrams;

use std::io;
use std::net::IpAddr;

use futures::future::BoxFuture;
use hive_proto::link::{Link, Purpose, memory};
use hive_proto::tunnel;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(180);

/// Knows the names that a test knows.
struct Names(&'static [(&'static str, &'static [&'static str])]);

impl Resolve for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        if name == "silent.test" {
            return Box::pin(std::future::pending());
        }
        let found = self.0.iter().find(|(known, _)| *known == name);
        let addresses = found.map(|(_, addresses)| {
            let addresses = addresses.iter();
            addresses.map(|text| text.parse().unwrap()).collect()
        });
        Box::pin(async move { addresses.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

const NAMES: Names = Names(&[
    ("nas.test", &["169.254.169.254", "1.1.1.1", "127.0.0.1"]),
    ("evil.test", &["169.254.169.254"]),
    ("empty.test", &[]),
]);

/// A node, from its controller's end of the link.
struct Node {
    link: Link,
    stop: CancellationToken,
}

impl Node {
    fn new(rule: &str, connections: usize) -> Self {
        let (link, there) = memory::pair(None, None);
        let stop = CancellationToken::new();
        let tunnels = Tunnels::with(rule.parse().unwrap(), Box::new(NAMES), connections);
        let stopping = stop.clone();
        tokio::spawn(async move {
            while let Ok((purpose, stream)) = there.accept().await {
                let (tunnels, stopping) = (tunnels.clone(), stopping.clone());
                match purpose {
                    Purpose::TunnelUdp => {
                        tokio::spawn(tunnels.serve_datagrams(stream, stopping));
                    }
                    purpose => {
                        assert_eq!(purpose, Purpose::Tunnel);
                        tokio::spawn(tunnels.serve(stream, stopping));
                    }
                }
            }
        });
        Self { link, stop }
    }

    /// With the rule that nodes have by default.
    fn at_home() -> Self {
        Self::new(TunnelTargets::DEFAULT, 8)
    }

    /// Sends what is to go behind the request in one piece with it.
    async fn send(&self, open: &TunnelOpen, behind: &[u8]) -> Stream {
        let mut stream = self.link.open(Purpose::Tunnel).await.unwrap();
        let bytes = [&open.encode_length_delimited_to_vec(), behind].concat();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn open(&self, open: &TunnelOpen) -> (TunnelOpened, Stream) {
        let mut stream = self.send(open, b"").await;
        (opened(&mut stream).await, stream)
    }

    /// Opens what must open.
    async fn connected(&self, open: &TunnelOpen) -> Stream {
        let (opened, stream) = self.open(open).await;
        assert_eq!(opened, TunnelOpened::default());
        stream
    }

    /// Why it does not open; nothing follows that.
    async fn refused(&self, open: &TunnelOpen) -> TunnelOpened {
        let (opened, mut stream) = self.open(open).await;
        assert_eq!(rest(&mut stream).await.unwrap(), b"");
        opened
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("done in time")
}

async fn opened(stream: &mut Stream) -> TunnelOpened {
    let answer = within(frame::read(stream, MAX_FRAME_BYTES)).await;
    answer.unwrap().expect("an answer")
}

async fn rest(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    within(from.read_to_end(&mut bytes)).await.map(|_| bytes)
}

fn to(host: &str, port: u16) -> TunnelOpen {
    TunnelOpen {
        namespace: "default".into(),
        tunnel: "photos".into(),
        host: host.into(),
        port: port.into(),
        connect_ms: 30_000,
        flow: None,
    }
}

async fn listener() -> (TcpListener, TunnelOpen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, to("127.0.0.1", port))
}

#[tokio::test]
async fn a_controller_talks_with_a_target() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    // What it sends need not wait for the answer.
    let mut stream = node.send(&open, b"hello").await;
    stream.shutdown().await.unwrap();
    let (mut target, _) = within(listener.accept()).await.unwrap();
    assert_eq!(rest(&mut target).await.unwrap(), b"hello");

    // The target answers after the client said all, and ends by itself.
    target.write_all(b"good day").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(opened(&mut stream).await, TunnelOpened::default());
    assert_eq!(rest(&mut stream).await.unwrap(), b"good day");
}

#[tokio::test]
async fn a_target_may_end_first() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    let mut stream = node.connected(&open).await;
    let (mut target, _) = within(listener.accept()).await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut target).await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_target_that_breaks_off_is_no_end() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    let mut stream = node.connected(&open).await;
    let (mut target, _) = within(listener.accept()).await.unwrap();
    target.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    within(stream.read_exact(&mut half)).await.unwrap();
    abort(target);
    rest(&mut stream).await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_breaks_off_is_no_end() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    let mut stream = node.connected(&open).await;
    let (mut target, _) = within(listener.accept()).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    within(target.read_exact(&mut half)).await.unwrap();
    drop(stream);
    let error = rest(&mut target).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_end_of_a_link_is_no_end() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    let _stream = node.connected(&open).await;
    let (mut target, _) = within(listener.accept()).await.unwrap();
    node.link.close("the controller is stopping");
    let error = rest(&mut target).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn only_addresses_that_are_allowed_are_reached() {
    let (listener, open) = listener().await;
    let port = open.port as u16;
    let node = Node::at_home();
    let _stream = node.connected(&to("nas.test", port)).await;
    within(listener.accept()).await.unwrap();

    for host in ["169.254.169.254", "1.1.1.1", "evil.test", "::ffff:1.1.1.1"] {
        let refused = node.refused(&to(host, port)).await;
        assert_eq!(refused.reason, tunnel::NOT_ALLOWED, "{host}");
        assert!(
            refused.message.contains("--tunnel-targets"),
            "{}",
            refused.message
        );
    }
    let closed = Node::new("none", 8).refused(&open).await;
    assert_eq!(closed.reason, tunnel::NOT_ALLOWED);
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_told() {
    // Held, so that nobody else gets it, and not listened at.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = held.local_addr().unwrap();
    let node = Node::at_home();
    let refused = node.refused(&to("127.0.0.1", at.port())).await;
    assert_eq!(refused.reason, tunnel::REFUSED);
    let target = at.to_string();
    assert!(refused.message.contains(&target), "{}", refused.message);

    for host in ["unknown.test", "empty.test"] {
        let refused = node.refused(&to(host, 80)).await;
        assert_eq!(refused.reason, tunnel::RESOLVE, "{host}");
        assert!(refused.message.contains(host), "{}", refused.message);
    }
    let hasty = TunnelOpen {
        connect_ms: 1,
        ..to("silent.test", 80)
    };
    assert_eq!(node.refused(&hasty).await.reason, tunnel::RESOLVE);
}

#[tokio::test]
async fn what_makes_no_sense_is_told() {
    let node = Node::at_home();
    for (open, field) in [
        (to("127.0.0.1", 0), "port"),
        (
            TunnelOpen {
                port: 65_536,
                ..to("127.0.0.1", 0)
            },
            "port",
        ),
        (to("", 80), "host"),
        (to("127.0.0.1:80", 80), "host"),
        (to("http://nas.test", 80), "host"),
        (to(&"a".repeat(254), 80), "host"),
    ] {
        let refused = node.refused(&open).await;
        assert_eq!(refused.reason, tunnel::BAD_REQUEST, "{open:?}");
        assert!(refused.message.starts_with(field), "{}", refused.message);
    }
    // Over what a frame may have, and no message.
    for bytes in [&[0xff, 0xff, 0x7f][..], &[2, 0xff, 0xff]] {
        let mut stream = node.link.open(Purpose::Tunnel).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(opened(&mut stream).await.reason, tunnel::BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_node_carries_no_more_than_it_can() {
    let (node, (listener, open)) = (Node::new("127.0.0.1", 1), listener().await);
    let mut first = node.connected(&open).await;
    assert_eq!(node.refused(&open).await.reason, tunnel::BUSY);

    let (mut target, _) = within(listener.accept()).await.unwrap();
    first.shutdown().await.unwrap();
    target.shutdown().await.unwrap();
    rest(&mut first).await.unwrap();
    // The place is free when the node is done too.
    let again = async {
        loop {
            let (opened, stream) = node.open(&open).await;
            if opened.reason.is_empty() {
                return stream;
            }
            assert_eq!(opened.reason, tunnel::BUSY);
        }
    };
    within(again).await;
}

#[tokio::test]
async fn a_node_that_stops_takes_no_more_and_goes_on_with_what_it_has() {
    let (node, (listener, open)) = (Node::at_home(), listener().await);
    let mut stream = node.connected(&open).await;
    let (mut target, _) = within(listener.accept()).await.unwrap();
    node.stop.cancel();
    let refused = node.refused(&open).await;
    assert_eq!(refused.reason, tunnel::BUSY);
    assert!(refused.message.contains("stopping"), "{}", refused.message);

    stream.write_all(b"the last").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut target).await.unwrap(), b"the last");
}
