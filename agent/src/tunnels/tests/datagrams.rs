//! Flows of datagrams, as a controller has them of a node.

use hive_proto::flow::{self, FlowEnd, FlowReader, FlowWriter, MAX_DATAGRAM};
use tokio::net::UdpSocket;

use super::*;

async fn service() -> (UdpSocket, TunnelOpen) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, to("127.0.0.1", port))
}

impl Node {
    async fn ask_for_flow(&self, open: &TunnelOpen) -> (TunnelOpened, Stream) {
        let mut stream = self.link.open(Purpose::TunnelUdp).await.unwrap();
        frame::write(&mut stream, open).await.unwrap();
        (opened(&mut stream).await, stream)
    }

    /// With datagrams of the link, or without.
    async fn flow(&self, open: &TunnelOpen, has_datagrams: bool) -> (FlowReader, FlowWriter) {
        let datagrams = has_datagrams.then(|| self.link.begin_flow());
        let open = TunnelOpen {
            flow: datagrams.as_ref().map(|datagrams| datagrams.id()),
            ..open.clone()
        };
        let (opened, stream) = self.ask_for_flow(&open).await;
        assert_eq!(opened, TunnelOpened::default());
        flow::split(stream, datagrams)
    }

    /// Why a flow does not begin; nothing follows that.
    async fn no_flow(&self, open: &TunnelOpen) -> TunnelOpened {
        let (opened, mut stream) = self.ask_for_flow(open).await;
        assert_eq!(rest(&mut stream).await.unwrap(), b"");
        opened
    }
}

#[tokio::test]
async fn datagrams_reach_the_target_and_its_answers_come_back() {
    for has_datagrams in [true, false] {
        let (node, (service, open)) = (Node::at_home(), service().await);
        let (mut reader, mut writer) = node.flow(&open, has_datagrams).await;
        let mut buffer = vec![0; MAX_DATAGRAM];
        for size in [0, 4, 1200, MAX_DATAGRAM] {
            let question = vec![b'?'; size];
            assert!(writer.send(&question).await.unwrap());
            let (length, from) = within(service.recv_from(&mut buffer)).await.unwrap();
            assert!(buffer[..length] == question, "{size} bytes");
            let answer = vec![b'!'; size];
            service.send_to(&answer, from).await.unwrap();
            assert!(within(reader.receive()).await.unwrap() == answer);
        }
    }
}

#[tokio::test]
async fn flows_are_kept_apart() {
    let (node, (service, open)) = (Node::at_home(), service().await);
    let mut flows = [node.flow(&open, true).await, node.flow(&open, true).await];
    let mut buffer = [0; 16];
    for (number, (_, writer)) in flows.iter_mut().enumerate() {
        writer.send(&[number as u8]).await.unwrap();
        let (length, from) = within(service.recv_from(&mut buffer)).await.unwrap();
        service.send_to(&buffer[..length], from).await.unwrap();
    }
    for (number, (reader, _)) in flows.iter_mut().enumerate() {
        assert_eq!(within(reader.receive()).await.unwrap(), [number as u8][..]);
    }
}

#[tokio::test]
async fn a_target_where_nobody_listens_is_told() {
    let (held, open) = service().await;
    // Held, so that nobody else gets it; and it hears none but itself.
    held.connect(held.local_addr().unwrap()).await.unwrap();
    let node = Node::at_home();
    let (mut reader, mut writer) = node.flow(&open, true).await;
    writer.send(b"is anybody there").await.unwrap();
    let end = within(reader.receive()).await.unwrap_err();
    let FlowEnd::Refused(why) = end else {
        panic!("{end:?}");
    };
    assert_eq!(why.reason, tunnel::REFUSED);
    let target = format!("127.0.0.1:{}", open.port);
    assert!(why.message.contains(&target), "{}", why.message);
}

#[tokio::test]
async fn a_flow_ends_with_its_stream_and_gives_its_place_back() {
    let (node, (_service, open)) = (Node::new("127.0.0.1", 1), service().await);
    let (reader, mut writer) = node.flow(&open, true).await;
    assert_eq!(node.no_flow(&open).await.reason, tunnel::BUSY);
    writer.end().await.unwrap();
    drop((reader, writer));
    let again = async {
        loop {
            let (opened, _stream) = node.ask_for_flow(&open).await;
            if opened.reason.is_empty() {
                return;
            }
            assert_eq!(opened.reason, tunnel::BUSY);
        }
    };
    within(again).await;
}

#[tokio::test]
async fn only_targets_that_are_allowed_and_make_sense_have_flows() {
    let node = Node::at_home();
    for (host, reason) in [
        ("1.1.1.1", tunnel::NOT_ALLOWED),
        ("evil.test", tunnel::NOT_ALLOWED),
        ("unknown.test", tunnel::RESOLVE),
        ("http://nas.test", tunnel::BAD_REQUEST),
    ] {
        assert_eq!(node.no_flow(&to(host, 53)).await.reason, reason, "{host}");
    }
    let (_service, open) = service().await;
    let first = TunnelOpen {
        flow: Some(7),
        ..open
    };
    let (opened, _stream) = node.ask_for_flow(&first).await;
    assert_eq!(opened, TunnelOpened::default());
    let twice = node.no_flow(&first).await;
    assert_eq!(twice.reason, tunnel::BAD_REQUEST);
    assert!(twice.message.starts_with("flow"), "{}", twice.message);
    node.stop.cancel();
    let stopping = node.no_flow(&open_without_flow(&first)).await;
    assert_eq!(stopping.reason, tunnel::BUSY);
}

fn open_without_flow(open: &TunnelOpen) -> TunnelOpen {
    TunnelOpen {
        flow: None,
        ..open.clone()
    }
}
