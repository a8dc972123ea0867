//! What may be sent: over which connections, for how long, and how it fails.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use rustls::{RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::TlsAcceptor;
use wasmtime_wasi_http::{Error, RequestOptions};

use super::{FOR_EVER, Function, Names, Server, get, limits, outbound};
use crate::{
    EgressLimits,
    egress::{Outbound, connect::Connector},
};

#[tokio::test]
async fn a_request_goes_out_as_the_guest_made_it() {
    let mut server = Server::start().await;
    let function = Function::allowing(&["127.0.0.1:*"]);
    assert_eq!(function.text(&server.uri("/path?query")).await, "1");
    let head = server.heads.recv().await.unwrap();
    assert_eq!(
        head,
        format!(
            "GET /path?query HTTP/1.1\r\nhost: {}\r\n\r\n",
            server.address
        )
    );
    assert!(function.lines().is_empty());
}

#[tokio::test]
async fn connections_are_used_again_by_the_same_function_only() {
    let server = Server::start().await;
    let outbound = outbound(Names::of([]));
    let allowed = ["127.0.0.1:*"];
    let function = Function::of(&outbound, &allowed, EgressLimits::default());
    let neighbour = Function::of(&outbound, &allowed, EgressLimits::default());
    for _ in 0..3 {
        assert_eq!(function.text(&server.uri("/")).await, "1");
    }
    assert_eq!(neighbour.text(&server.uri("/")).await, "2");
    assert_eq!(function.text(&server.uri("/")).await, "1");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_made_anew() {
    let mut server = Server::start().await;
    let function = Function::allowing(&["127.0.0.1:*"]);
    for number in 1..20 {
        assert_eq!(
            function.text(&server.uri("/close")).await,
            number.to_string()
        );
        if number % 2 == 0 {
            // Else the close and the next request meet under way.
            server.ended.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let mut server = Server::start().await;
    let outbound = Outbound::with(Connector::new(Names::of([])), 10, Duration::from_millis(10));
    let function = Function::of(&outbound, &["127.0.0.1:*"], EgressLimits::default());
    assert_eq!(function.text(&server.uri("/")).await, "1");
    assert_eq!(server.ended.recv().await, Some(1));
    assert_eq!(function.text(&server.uri("/")).await, "2");
}

#[tokio::test]
async fn who_goes_away_closes_the_connection() {
    let mut server = Server::start().await;
    let function = Function::allowing(&["127.0.0.1:*"]);
    // Before the head of the answer,
    let uri = server.uri("/silent");
    let mut asking = Box::pin(function.get(&uri));
    tokio::select! {
        answer = &mut asking => panic!("{:?}", answer.map(|answer| answer.status())),
        _ = server.heads.recv() => {}
    }
    drop(asking);
    assert_eq!(server.ended.recv().await, Some(1));
    // and within its body.
    drop(function.get(&server.uri("/stuck")).await.unwrap());
    assert_eq!(server.ended.recv().await, Some(2));
    // With the function go its idle connections.
    assert_eq!(function.text(&server.uri("/")).await, "3");
    drop(function);
    assert_eq!(server.ended.recv().await, Some(3));
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_open() {
    let server = Server::start().await;
    let outbound = outbound(Names::of([]));
    let function = Function::of(&outbound, &["127.0.0.1:*"], limits(2));
    let uri = server.uri("/");
    let all = futures::future::join_all((0..50).map(|_| function.text(&uri))).await;
    for number in all {
        assert!(number == "1" || number == "2", "{number}");
    }
    // Idle ones make room for those to elsewhere.
    let other = Server::start().await;
    assert_eq!(function.text(&other.uri("/")).await, "1");
    assert!(function.lines().is_empty());
}

#[tokio::test]
async fn who_waits_for_a_connection_in_vain_is_told() {
    let server = Server::start().await;
    let outbound = outbound(Names::of([]));
    let function = Function::of(&outbound, &["127.0.0.1:*"], limits(1));
    let held = function.get(&server.uri("/stuck")).await.unwrap();
    // This one alone: the others get what they ask for, when the machine comes to it.
    let hasty = RequestOptions {
        connect_timeout: Some(Duration::from_millis(50)),
        ..RequestOptions::default()
    };
    let error = function.send_with(get(&server.uri("/")), hasty).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::ConnectionLimitReached), "{error}");
    assert!(function.lines()[0].contains("the function has 1 connections open"));
    drop(held);
    assert_eq!(function.text(&server.uri("/")).await, "2");
}

#[tokio::test]
async fn a_node_has_a_bound_of_its_own_and_idle_connections_of_others_yield() {
    let server = Server::start().await;
    let outbound = Outbound::with(Connector::new(Names::of([])), 2, FOR_EVER);
    let function = || Function::of(&outbound, &["127.0.0.1:*"], limits(10));
    let (first, second, third) = (function(), function(), function());
    first.text(&server.uri("/")).await;
    second.text(&server.uri("/")).await;
    assert_eq!(third.text(&server.uri("/")).await, "3");
    // Both have given up theirs, or one of them has.
    assert_eq!(third.text(&server.uri("/")).await, "3");
}

#[tokio::test]
async fn who_waits_for_the_node_is_not_forgotten() {
    let server = Server::start().await;
    let outbound = Outbound::with(Connector::new(Names::of([])), 1, FOR_EVER);
    let first = Function::of(&outbound, &["127.0.0.1:*"], limits(1));
    let second = Function::of(&outbound, &["127.0.0.1:*"], limits(1));
    let uri = server.uri("/");
    for path in ["/", "/stuck"] {
        // The node's only connection is in use,
        let held = first.get(&server.uri(path)).await.unwrap();
        let release = async {
            // and becomes idle, or ends, when all others wait.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            if path == "/" {
                held.into_body().collect().await.unwrap();
            }
        };
        tokio::join!(
            first.text(&uri),
            second.text(&uri),
            first.text(&uri),
            release
        );
    }
    assert!(first.lines().is_empty());
    assert!(second.lines().is_empty());
}

#[tokio::test]
async fn guests_may_be_less_patient_but_not_more() {
    let server = Server::start().await;
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(600));
    let strict = |first_byte, idle| {
        let limits = EgressLimits {
            first_byte: Some(first_byte),
            idle: Some(idle),
            ..limits(8)
        };
        Function::of(&outbound(Names::of([])), &["127.0.0.1:*"], limits)
    };
    let options = |first_byte, between_bytes| RequestOptions {
        first_byte_timeout: Some(first_byte),
        between_bytes_timeout: Some(between_bytes),
        ..RequestOptions::default()
    };
    let free = Function::allowing(&["127.0.0.1:*"]);
    for (function, options) in [
        (&strict(short, long), options(long, long)),
        (&free, options(short, long)),
    ] {
        let silent = function
            .send_with(get(&server.uri("/silent")), options)
            .await;
        assert!(matches!(silent.unwrap_err(), Error::ConnectionReadTimeout));
    }
    // Here the head comes, however late, and nothing after that.
    for (function, options) in [
        (&strict(long, short), options(long, long)),
        (&free, options(long, short)),
    ] {
        let stuck = function.send_with(get(&server.uri("/stuck")), options);
        let body = stuck.await.unwrap().into_body().collect().await;
        assert!(matches!(body.unwrap_err(), Error::ConnectionReadTimeout));
    }
}

#[tokio::test]
async fn failures_have_their_names() {
    // Held, so that nobody else gets it, and not listened at.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    // Plain HTTP, said before it is asked.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = format!("https://{}/", plain.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let function = Function::allowing(&["127.0.0.1:*", "nowhere.test"]);
    let error = function.get(&format!("http://{address}/")).await;
    assert!(matches!(error.unwrap_err(), Error::ConnectionRefused));
    let error = function.get("http://nowhere.test/").await;
    assert!(matches!(error.unwrap_err(), Error::DnsError { .. }));
    let error = function.get(&tls).await.unwrap_err();
    assert!(matches!(error, Error::TlsProtocolError), "{error}");
}

#[tokio::test]
async fn certificates_are_asked_for_the_name_in_the_uri() {
    let made = rcgen::generate_simple_self_signed(vec!["secure.test".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::speaking(
        move |stream| {
            let accepting = acceptor.accept(stream);
            async { accepting.await.ok() }
        },
        |number| format!("{number}"),
    )
    .await;
    let port = server.address.port();
    let names = || {
        Names::of([
            ("secure.test", &[&["127.0.0.1"]]),
            ("other.test", &[&["127.0.0.1"]]),
        ])
    };
    let allowed = ["*:*", "127.0.0.1:*"];

    let trusting = Outbound::with(Connector::trusting(names(), roots), 100, FOR_EVER);
    let function = Function::of(&trusting, &allowed, EgressLimits::default());
    for _ in 0..2 {
        // Also with the root's dot, over the same connection.
        assert_eq!(
            function
                .text(&format!("https://secure.test.:{port}/"))
                .await,
            "1"
        );
    }
    for name in ["other.test", "127.0.0.1"] {
        let error = function.get(&format!("https://{name}:{port}/")).await;
        assert!(
            matches!(error.unwrap_err(), Error::TlsCertificateError),
            "{name}"
        );
    }

    let distrusting = Function::of(&outbound(names()), &allowed, EgressLimits::default());
    let error = distrusting
        .get(&format!("https://secure.test:{port}/"))
        .await;
    assert!(matches!(error.unwrap_err(), Error::TlsCertificateError));
}
