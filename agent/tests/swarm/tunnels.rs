//! Tunnels: what a controller reaches through a node.

use std::time::Duration;

use hive_agent::Agent;
use hive_proto::link::{Purpose, Stream, Transport, Transports};
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use hive_proto::{flow, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use crate::controller::{Controller, Swarm};
use crate::support::{config, eventually, within};

/// More than loopback takes for a datagram.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks the node for a connection to what listens there.
async fn open(controller: &Controller, listener: &TcpListener) -> (TunnelOpened, Stream) {
    let mut stream = controller.link().open(Purpose::Tunnel).await.unwrap();
    let open = TunnelOpen {
        namespace: "default".into(),
        tunnel: "photos".into(),
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port().into(),
        connect_ms: 30_000,
        flow: None,
    };
    frame::write(&mut stream, &open).await.unwrap();
    let opened = within(frame::read(&mut stream, frame::MAX_FRAME_BYTES)).await;
    (opened.unwrap().unwrap(), stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_reaches_what_listens_at_a_node_until_the_agent_has_stopped() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    eventually("the agent has a session", || {
        controller.state().hellos.first().map(|_| ())
    })
    .await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (opened, mut stream) = open(&controller, &listener).await;
    assert_eq!(opened, TunnelOpened::default());
    let (mut target, _) = within(listener.accept()).await.unwrap();
    // More than any buffer on the way has room for.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reading, mut writing) = target.split();
    let echo = async {
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
    };
    let talk = async {
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let mut received = vec![0; sent.len()];
        let (read, wrote) = tokio::join!(reading.read_exact(&mut received), async {
            writing.write_all(&sent).await?;
            writing.flush().await
        });
        read.unwrap();
        wrote.unwrap();
        received
    };
    let received = within(async {
        tokio::select! {
            () = echo => panic!("the target saw an end"),
            received = talk => received,
        }
    })
    .await;
    assert!(received == sent, "the same bytes");

    // What is open has its time when the agent stops; nothing new begins.
    let stopping = tokio::spawn(agent.stop());
    let refused = async {
        loop {
            let (opened, _stream) = open(&controller, &listener).await;
            if !opened.reason.is_empty() {
                return opened;
            }
            // Else the system would soon take no more, if the agent's turn to stop came late.
            within(listener.accept()).await.unwrap();
        }
    };
    assert_eq!(within(refused).await.reason, "Busy");
    stream.write_all(b"the last").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut last = Vec::new();
    within(target.read_to_end(&mut last)).await.unwrap();
    assert_eq!(last, b"the last");
    target.shutdown().await.unwrap();
    within(stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_exchanges_datagrams_with_what_listens_at_a_node() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::over(&swarm, Transports::QuicOnly).await;
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    eventually("the agent has a session", || {
        controller.state().hellos.first().map(|_| ())
    })
    .await;
    let link = controller.link();
    assert_eq!(link.transport(), Transport::Quic);
    // Both are of this release.
    assert!(link.most_streams() > 1000);

    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagrams = link.begin_flow();
    let mut stream = link.open(Purpose::TunnelUdp).await.unwrap();
    let open = TunnelOpen {
        namespace: "default".into(),
        tunnel: "dns".into(),
        host: "127.0.0.1".into(),
        port: service.local_addr().unwrap().port().into(),
        connect_ms: 30_000,
        flow: Some(datagrams.id()),
    };
    frame::write(&mut stream, &open).await.unwrap();
    let opened = within(frame::read(&mut stream, frame::MAX_FRAME_BYTES)).await;
    assert_eq!(opened.unwrap(), Some(TunnelOpened::default()));
    let (mut reader, mut writer) = flow::split(stream, Some(datagrams));
    let mut buffer = vec![0; flow::MAX_DATAGRAM];
    for size in [0, 1, 1200, 9000, flow::MAX_DATAGRAM] {
        let sent = vec![7; size];
        // Any may be lost on either way, and one that was thought lost may still come.
        let comes_back = async {
            loop {
                assert!(writer.send(&sent).await.unwrap());
                let asked = timeout(AGAIN, service.recv_from(&mut buffer)).await;
                let Ok(asked) = asked else { continue };
                let (length, from) = asked.unwrap();
                service.send_to(&buffer[..length], from).await.unwrap();
                let answered = timeout(AGAIN, reader.receive()).await;
                if answered.is_ok_and(|answer| answer.unwrap() == sent) {
                    return;
                }
            }
        };
        within(comes_back).await;
    }
    drop((reader, writer));
    within(agent.stop()).await;
}
