//! A peer that vanishes without a goodbye is noticed within the idle timeout, by both sides, and a
//! quiet one isn't taken for vanished.

use std::time::Duration;

use hive_proto::link::{LinkError, LinkSettings, Purpose, ResetSecret, Transports, dial};
use tokio::io::AsyncWriteExt;

use crate::parties::{Swarm, within};
use crate::relay::Relay;

async fn vanish(transports: Transports) {
    let settings = LinkSettings {
        keep_alive: Duration::from_millis(500),
        // A machine that stalls for so long takes a quiet peer for vanished.
        idle_timeout: Duration::from_secs(8),
        transports,
        ..LinkSettings::default()
    };
    let swarm = Swarm::new();
    let listener = swarm.listen(settings.clone()).await;
    let relay = match transports {
        Transports::TcpOnly => Relay::tcp(listener.local_addr()).await,
        _ => Relay::udp(listener.local_addr()).await,
    };
    let endpoint = relay.address.to_string();
    let node = dial(&endpoint, swarm.client_config(), &settings)
        .await
        .unwrap();
    let controller = listener.accept().await.unwrap();

    // Quiet for longer than the idle timeout: keep-alives hold it.
    let quiet = tokio::time::timeout(settings.idle_timeout * 2, node.closed()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let mut stream = node.open(Purpose::Logs).await.unwrap();
    controller.accept().await.unwrap();

    relay.go_dark();
    // Not even a sender that fills the socket may delay it.
    let writing = tokio::spawn(async move {
        let chunk = [0; 16 * 1024];
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let (at_node, at_controller) = tokio::join!(node.closed(), controller.closed());
    assert!(matches!(at_node, LinkError::TimedOut), "{at_node:?}");
    assert!(
        matches!(at_controller, LinkError::TimedOut),
        "{at_controller:?}"
    );
    writing.await.unwrap();
}

#[tokio::test]
async fn over_quic() {
    within(vanish(Transports::QuicOnly)).await;
}

#[tokio::test]
async fn over_tcp() {
    within(vanish(Transports::TcpOnly)).await;
}

/// A listener that is gone without a goodbye and comes back at its address with the same secret: its
/// peers are told as soon as they say something.
#[tokio::test]
async fn a_listener_that_was_killed_and_is_back_says_so() {
    let settings = LinkSettings {
        keep_alive: Duration::from_millis(200),
        // Beyond the test's deadline: the reset must come first.
        idle_timeout: Duration::from_secs(3600),
        transports: Transports::QuicOnly,
        resets: Some(ResetSecret([7; 32])),
        ..LinkSettings::default()
    };
    let swarm = Swarm::new();
    let first = swarm.listen(settings.clone()).await;
    let second = swarm.listen(settings.clone()).await;
    // Packets for the first go to the second from then on, as after a restart.
    let relay = Relay::udp(first.local_addr()).await;
    let endpoint = relay.address.to_string();
    let node = dial(&endpoint, swarm.client_config(), &settings)
        .await
        .unwrap();
    let _controller = first.accept().await.unwrap();
    relay.turn_to(second.local_addr()).await;
    let end = within(node.closed()).await;
    assert!(matches!(end, LinkError::Lost), "{end:?}");
}
