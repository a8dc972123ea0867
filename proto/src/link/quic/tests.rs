//! What this side holds until it is acknowledged.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use hive_identity::tls::{link_client_config, link_server_config};
use hive_identity::{
    CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey, ExpectedController,
    LiveCredentials, Subject,
};
use tokio::io::AsyncWrite;

use super::super::settings::{OWN_WINDOW, STREAM_WINDOW};
use super::super::{Connection, Link, LinkSettings, Listener, Purpose, Stream, Transports, dial};

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Together they take more than [`OWN_WINDOW`].
const STREAMS: usize = 40;

fn credentials(ca: &CertificateAuthority, subject: &Subject) -> LiveCredentials {
    let key = DeviceKey::generate();
    let csr = key.csr().unwrap();
    let issued = ca.issue(&csr, subject, &[], SystemTime::now(), DEFAULT_LIFETIME);
    let own = Credentials::new(key, issued.unwrap().der, ca.certificate().clone());
    LiveCredentials::new(own.unwrap())
}

/// A node, and the controller that it has linked to.
async fn linked() -> (Link, Link) {
    let ca = CertificateAuthority::create("home").unwrap();
    let controller = credentials(&ca, &Subject::Controller { raft_id: 7 });
    let node = credentials(&ca, &Subject::Node { name: "pi".into() });
    let settings = LinkSettings {
        transports: Transports::QuicOnly,
        ..LinkSettings::default()
    };
    let at = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(at, link_server_config(&controller), settings.clone());
    let listener = listener.await.unwrap();
    let at = listener.local_addr().to_string();
    let client = link_client_config(&node, ExpectedController::Any);
    let node = dial(&at, client, &settings).await.unwrap();
    (node, listener.accept().await.unwrap())
}

/// Writes as much as is taken at once: nobody else runs meanwhile, so nothing is acknowledged.
fn fill(stream: &mut Stream) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut filled = 0;
    let bytes = [0; 16 * 1024];
    while let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(&mut cx, &bytes) {
        filled += written.unwrap() as u64;
    }
    filled
}

#[tokio::test]
async fn little_is_held_for_a_peer_that_does_not_tell_what_it_reads() {
    let linked = tokio::time::timeout(DEADLINE, linked());
    let (_node, controller) = linked.await.unwrap();
    let Connection::Quic(connection) = &controller.0.connection else {
        panic!("it is a link by QUIC");
    };
    // Those of the link itself, of which nobody tells.
    let mut streams = Vec::new();
    for _ in 0..=2 * STREAMS {
        let opened = tokio::time::timeout(DEADLINE, controller.open(Purpose::Grpc));
        streams.push(opened.await.unwrap().unwrap());
    }
    let (some, others) = streams.split_at_mut(STREAMS);
    let (others, last) = others.split_at_mut(STREAMS);

    let held: u64 = some.iter_mut().map(fill).sum();
    let most = u64::from(OWN_WINDOW);
    let full = u64::from(STREAM_WINDOW);
    assert!(most - full < held && held <= most, "{held}");

    let (tells, told) = tokio::io::duplex(64);
    let mut hearing = Box::pin(connection.reads.hear(told));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(hearing.as_mut().poll(&mut cx).is_pending());
    let held: u64 = others.iter_mut().map(fill).sum();
    // But for the byte that says what each is for.
    assert_eq!(held, STREAMS as u64 * (full - 1));

    drop(tells);
    assert!(hearing.as_mut().poll(&mut cx).is_ready());
    assert_eq!(fill(&mut last[0]), 0);
}
