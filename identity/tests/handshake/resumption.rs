//! What the next handshake shows: who is there now, and never whom an old one saw.

use std::time::Duration;

use rustls::HandshakeKind;
use rustls::server::ServerSessionMemoryCache;

use super::*;

#[test]
fn renewed_credentials_show_in_the_next_handshake() {
    let ca = ca();
    let (controller, node) = (controller(&ca, 1), node(&ca, "pi"));
    let (client, server) = (link(&node), link_server_config(&controller));
    let before = handshake(client.clone(), server.clone()).connected();

    for (live, subject) in [
        (&controller, Subject::Controller { raft_id: 1 }),
        (&node, Subject::Node { name: "pi".into() }),
    ] {
        let current = live.current();
        let later = SystemTime::now() + Duration::from_secs(60);
        let renewed = issue(&ca, current.key().clone(), subject, later);
        assert!(renewed.not_after() > current.not_after());
        live.replace(renewed).unwrap();
    }
    let after = handshake(client, server).connected();
    assert_eq!(after.server_peer(), *controller.current().own());
    assert_eq!(after.client_peer().unwrap(), *node.current().own());
    assert_ne!(after.server_peer(), before.server_peer());
    assert_ne!(after.client_peer(), before.client_peer());
}

#[test]
fn links_never_resume_an_old_identity() {
    let ca = ca();
    let (client, server) = (
        link(&node(&ca, "pi")),
        link_server_config(&controller(&ca, 1)),
    );
    for _ in 0..3 {
        let outcome = handshake(client.clone(), server.clone()).connected();
        assert_eq!(outcome.server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// The server's half by itself: a client that would resume gets nothing to resume with.
#[test]
fn a_client_that_keeps_tickets_gets_none() {
    let ca = ca();
    let client = stranger(&ca, node(&ca, "pi"));
    let server = link_server_config(&controller(&ca, 1));
    for _ in 0..2 {
        let outcome = handshake(client.clone(), server.clone()).connected();
        assert_eq!(outcome.server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// The client's half by itself: what a server would resume it begins anew.
#[test]
fn a_server_that_gives_tickets_is_shown_certificates_each_time() {
    let ca = ca();
    let mut server = Arc::unwrap_or_clone(link_server_config(&controller(&ca, 1)));
    server.session_storage = ServerSessionMemoryCache::new(8);
    server.send_tls13_tickets = 2;
    let server = Arc::new(server);
    for (client, second) in [
        (stranger(&ca, node(&ca, "pi")), HandshakeKind::Resumed),
        (link(&node(&ca, "pi")), HandshakeKind::Full),
    ] {
        for expected in [HandshakeKind::Full, second] {
            let outcome = handshake(client.clone(), server.clone()).connected();
            assert_eq!(outcome.server.handshake_kind(), Some(expected));
        }
    }
}
