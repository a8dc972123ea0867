//! Who gets no link, on either transport, and what is said about it.

use std::time::{Duration, Instant, SystemTime};

use hive_identity::tls::link_client_config;
use hive_identity::{ExpectedController, Subject};
use hive_proto::link::{BindError, DialError, LinkSettings, Listener, Purpose, Transports, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::parties::{Swarm, link, settings, told, within};

const EACH: [Transports; 2] = [Transports::QuicOnly, Transports::TcpOnly];

#[tokio::test]
async fn a_newcomer_without_a_certificate_gets_a_link_without_a_peer() {
    let swarm = Swarm::new();
    for transports in EACH {
        let settings = settings(transports);
        let listener = swarm.listen(settings.clone()).await;
        let (newcomer, controller) = link(&listener, swarm.enrol_config(), &settings).await;
        assert!(controller.unwrap().peer().is_none());
        assert_eq!(
            newcomer.unwrap().peer().unwrap().subject,
            Subject::Controller { raft_id: 7 }
        );
    }
}

/// Yamux bounds memory by stream only.
#[tokio::test]
async fn a_newcomer_gets_few_streams_over_tcp_and_is_none_the_worse_for_asking() {
    let swarm = Swarm::new();
    let settings = settings(Transports::TcpOnly);
    let listener = swarm.listen(settings.clone()).await;
    let (newcomer, controller) = link(&listener, swarm.enrol_config(), &settings).await;
    let (newcomer, controller) = (newcomer.unwrap(), controller.unwrap());
    within(async {
        const ASKED: usize = 40;
        let mut streams = JoinSet::new();
        for _ in 0..ASKED {
            let mut stream = newcomer.open(Purpose::Grpc).await.unwrap();
            streams.spawn(async move { stream.read_u8().await });
        }
        // Whoever is still waiting after most were reset has got a place.
        for _ in 0..ASKED - 8 {
            streams.join_next().await.unwrap().unwrap().unwrap_err();
        }
        drop(streams);
        controller.accept().await.unwrap();
        assert!(newcomer.end().is_none() && controller.end().is_none());
    })
    .await;
}

/// The dial itself must fail: a link that dies a moment later would look like a bad network.
#[tokio::test]
async fn wrong_certificates_fail_the_dial_and_are_named() {
    let swarm = Swarm::new();
    let other = Swarm::new();
    let just_now = SystemTime::now() - Duration::from_secs(10);
    let node = Subject::Node { name: "pi".into() };
    let expired = swarm.issue(node, just_now, Duration::from_secs(1));
    let of_other_controller = ExpectedController::Id(8);
    let table = [
        ("a node of another swarm", other.client_config(), "Unknown"),
        ("a newcomer with another pin", other.enrol_config(), "pins"),
        (
            "an expired node",
            link_client_config(&expired, ExpectedController::Any),
            "xpired",
        ),
        (
            "a peer that wants another controller",
            link_client_config(&swarm.node(), of_other_controller),
            "expected controller 8",
        ),
    ];
    for transports in EACH {
        let settings = settings(transports);
        let listener = swarm.listen(settings.clone()).await;
        for (who, client, told_of) in &table {
            let (dialled, _) = link(&listener, client.clone(), &settings).await;
            let error = dialled.expect_err(who);
            assert!(matches!(error, DialError::Tls(_)), "{who}: {error:?}");
            assert!(!error.can_retry(), "{who}");
            let text = told(&error);
            assert!(text.contains(told_of), "{who} over {transports:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_client_that_may_not_come_in_makes_no_link_at_the_listener() {
    let swarm = Swarm::new();
    let other = Swarm::new();
    for transports in EACH {
        let settings = settings(transports);
        let listener = swarm.listen(settings.clone()).await;
        let trusting_the_server_alone = {
            // Shows a certificate of another CA, yet accepts this server: only the server can object.
            let strange = other.node();
            let pin = swarm.enrol_config();
            let mut config = (*pin).clone();
            config.client_auth_cert_resolver = std::sync::Arc::new(strange);
            std::sync::Arc::new(config)
        };
        let (dialled, _) = link(&listener, trusting_the_server_alone, &settings).await;
        let error = dialled.unwrap_err();
        assert!(matches!(error, DialError::Tls(_)), "{error:?}");
        let (welcome, accepted) = link(&listener, swarm.client_config(), &settings).await;
        welcome.unwrap();
        assert!(
            accepted.unwrap().peer().is_some(),
            "the refused one is not in the queue"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_said_soon() {
    let swarm = Swarm::new();
    // Held, so that nobody else gets it, and not listened at.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = held.local_addr().unwrap().to_string();
    let settings = LinkSettings {
        // Beyond the test's deadline: who asked QUIC in vain for so long would not be back in time.
        handshake_timeout: Duration::from_secs(3600),
        ..LinkSettings::default()
    };
    let error = within(dial(&endpoint, swarm.client_config(), &settings))
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert!(error.can_retry());
}

#[tokio::test]
async fn where_udp_cannot_be_sent_tcp_is_not_kept_waiting() {
    let swarm = Swarm::new();
    let settings = LinkSettings::default();
    let mut fastest = Duration::MAX;
    // Any of these may meet a busy moment of the machine.
    for _ in 0..5 {
        let begin = Instant::now();
        // The kernel refuses to send there, over UDP and TCP alike.
        let dialled = dial("255.255.255.255:9", swarm.client_config(), &settings);
        let error = within(dialled).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
        fastest = fastest.min(begin.elapsed());
    }
    assert!(
        fastest < Duration::from_millis(1400),
        "before QUIC's head start was over: {fastest:?}"
    );
}

#[tokio::test]
async fn a_server_of_something_else_is_told_from_a_closed_port() {
    let swarm = Swarm::new();
    let ssh = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = ssh.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = ssh.accept().await.unwrap();
        socket.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
        socket
    });
    let settings = settings(Transports::TcpOnly);
    let error = within(dial(&endpoint, swarm.client_config(), &settings))
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Tls(_)), "{error:?}");
    serving.await.unwrap();
}

#[tokio::test]
async fn malformed_endpoints_are_not_looked_up() {
    let swarm = Swarm::new();
    for endpoint in ["", "host", "host:", ":7", "host:port", "host:70000"] {
        let error = dial(endpoint, swarm.client_config(), &LinkSettings::default())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Endpoint(_)),
            "{endpoint}: {error:?}"
        );
        assert!(!error.can_retry());
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let swarm = Swarm::new();
    let first = swarm.listen(LinkSettings::default()).await;
    let second = Listener::bind(
        first.local_addr(),
        swarm.server_config(),
        LinkSettings::default(),
    );
    let error = second.await.err().unwrap();
    assert!(matches!(error, BindError::Tcp { .. }), "{error:?}");
    let port = first.local_addr().port().to_string();
    assert!(error.to_string().contains(&port));
}
