//! UDP blocked: a link over TCP. UDP back: a link over QUIC, and nothing lost on the way.

use std::time::Duration;

use hive_proto::link::{
    Link, LinkError, LinkSettings, Listener, Maintained, Purpose, Transport, Transports, Trouble,
    dial,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::parties::{Swarm, settings, within};

/// Probes often. Where the listener has one transport and the test is not about that, so has who dials: a dial that
/// the other one's refusal ends may leave a link at the listener that nobody holds.
fn maintain(
    swarm: &Swarm,
    listener: &Listener,
    transports: Transports,
    cancel: &CancellationToken,
) -> Maintained {
    let probing_often = LinkSettings {
        probe_interval: Duration::from_millis(100),
        ..settings(transports)
    };
    Maintained::spawn(
        listener.local_addr().to_string(),
        swarm.client_config(),
        probing_often,
        cancel.clone(),
    )
}

async fn next_link(maintained: &Maintained, transport: Transport) -> Link {
    let mut links = maintained.links();
    let found = links
        .wait_for(|link| {
            link.as_ref()
                .is_some_and(|link| link.transport() == transport && link.end().is_none())
        })
        .await
        .unwrap();
    found.clone().unwrap()
}

#[tokio::test]
async fn quic_is_taken_where_both_answer() {
    let swarm = Swarm::new();
    let listener = swarm.listen(LinkSettings::default()).await;
    let endpoint = listener.local_addr().to_string();
    let settings = LinkSettings::default();
    // A machine that is busy for longer than QUIC's head start takes TCP; it is not always.
    within(async {
        loop {
            let dialled = dial(&endpoint, swarm.client_config(), &settings).await;
            if dialled.unwrap().transport() == Transport::Quic {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn falls_back_to_tcp_and_returns_to_quic_without_losing_a_stream() {
    let swarm = Swarm::new();
    let over_tcp = swarm.listen(settings(Transports::TcpOnly)).await;
    let cancel = CancellationToken::new();
    let maintained = maintain(&swarm, &over_tcp, Transports::Both, &cancel);
    within(async {
        let old = next_link(&maintained, Transport::Tcp).await;
        let old_there = over_tcp.accept().await.unwrap();
        let mut stream = old.open(Purpose::Invoke).await.unwrap();
        let (_, mut there) = old_there.accept().await.unwrap();
        stream.write_all(b"begun").await.unwrap();
        stream.flush().await.unwrap();

        let port = over_tcp.local_addr().port();
        let over_quic = swarm.listen_on(port, settings(Transports::QuicOnly)).await;
        let new = next_link(&maintained, Transport::Quic).await;
        let new_there = over_quic.accept().await.unwrap();
        assert_ne!(new.id(), old.id());
        let _stream = new.open(Purpose::Logs).await.unwrap();
        assert_eq!(new_there.accept().await.unwrap().0, Purpose::Logs);

        // The old link lives for its stream, and closes after it.
        assert!(old.end().is_none());
        stream.write_all(b" and done").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = String::new();
        there.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "begun and done");
        drop((stream, there));
        assert!(matches!(
            old_there.closed().await,
            LinkError::ClosedByPeer { .. }
        ));
        assert!(new.end().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_link_that_breaks_is_made_again() {
    let swarm = Swarm::new();
    let cancel = CancellationToken::new();
    // Of one transport: a second link to the first listener would be the wrong one to close.
    let quic = settings(Transports::QuicOnly);
    within(async {
        let first = swarm.listen(quic.clone()).await;
        let port = first.local_addr().port();
        let maintained = maintain(&swarm, &first, quic.transports, &cancel);
        let before = next_link(&maintained, Transport::Quic).await;
        assert!(maintained.trouble().is_none());

        let there = first.accept().await.unwrap();
        let mut troubles = maintained.troubles();
        there.close("restarting");
        // At once: the next that is told is that it cannot be dialled any more.
        let lost = async { troubles.wait_for(Option::is_some).await.unwrap().clone() };
        let (trouble, ()) = tokio::join!(lost, first.close());
        drop((first, there));
        assert!(
            matches!(&trouble, Some(Trouble::Lost(LinkError::ClosedByPeer { reason })) if &**reason == "restarting"),
            "{trouble:?}"
        );
        assert!(maintained.current().is_none());

        let _again = swarm.listen_on(port, quic).await;
        let after = next_link(&maintained, Transport::Quic).await;
        assert_ne!(before.id(), after.id());
        assert!(maintained.trouble().is_none());
    })
    .await;
}

#[tokio::test]
async fn cancelling_says_goodbye() {
    let swarm = Swarm::new();
    within(async {
        for (transports, transport) in [
            (Transports::QuicOnly, Transport::Quic),
            (Transports::TcpOnly, Transport::Tcp),
        ] {
            let listener = swarm.listen(settings(transports)).await;
            let cancel = CancellationToken::new();
            let maintained = maintain(&swarm, &listener, transports, &cancel);
            let there = listener.accept().await.unwrap();
            // The listener has its link first: a dial that is given up says nothing.
            drop(next_link(&maintained, transport).await);
            maintained.stop().await;
            let end = there.closed().await;
            assert!(matches!(end, LinkError::ClosedByPeer { .. }), "{end:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_listener_lets_its_links_be() {
    let swarm = Swarm::new();
    within(async {
        for transports in [Transports::QuicOnly, Transports::TcpOnly] {
            let settings = settings(transports);
            let listener = swarm.listen(settings.clone()).await;
            let endpoint = listener.local_addr().to_string();
            let node = dial(&endpoint, swarm.client_config(), &settings)
                .await
                .unwrap();
            let controller = listener.accept().await.unwrap();
            listener.close().await;
            assert!(listener.accept().await.is_none());
            let impatient = LinkSettings {
                handshake_timeout: Duration::from_millis(500),
                ..settings
            };
            dial(&endpoint, swarm.client_config(), &impatient)
                .await
                .unwrap_err();
            let _stream = node.open(Purpose::Grpc).await.unwrap();
            assert_eq!(controller.accept().await.unwrap().0, Purpose::Grpc);
        }
    })
    .await;
}
