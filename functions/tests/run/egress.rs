//! What leaves a function, in both WASI versions.

use std::{net::SocketAddr, time::Duration};

use hive_functions::{InvokeError, LogStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::guests::{Loaded, get, guest, guest_0_3, limits, load_with, options};

/// Guests that send a request to `address`, one a version.
fn senders(address: SocketAddr) -> [Vec<u8>; 2] {
    let address = address.to_string();
    let data = format!(r#"(data (i32.const 1024) "{address}")"#);
    let send = format!(
        "(call $send (i32.const 1024) (i32.const {}))",
        address.len()
    );
    [
        guest(&format!(
            r#"{data} (func (export "handle") (param i32 i32) {send})"#
        )),
        guest_0_3(&format!(
            r#"{data} (func (export "handle") (param i32) (result i32) {send})"#
        )),
    ]
}

fn load_allowing(component: &[u8], allowed_hosts: Vec<String>) -> Loaded {
    load_with(component, |logs| {
        let mut options = options(limits(), logs);
        options.allowed_hosts = allowed_hosts;
        options
    })
}

/// Answers one request with 418; gives what it was asked.
fn answer_one(listener: TcpListener) -> JoinHandle<String> {
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    })
}

#[tokio::test]
async fn requests_to_hosts_that_are_not_allowed_reach_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for component in senders(address) {
        let other = vec!["example.com".to_owned(), "127.0.0.1".to_owned()];
        let loaded = load_allowing(&component, other);
        loaded.function.handle(get()).await.unwrap_err();
        let lines = loaded.logs.of(LogStream::Hive);
        assert!(
            lines[0].contains(&format!("add \"{address}\" to spec.allowedHosts")),
            "{lines:?}"
        );
    }
    // Had one of them connected, it would be accepted before us.
    let us = TcpStream::connect(address).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, us.local_addr().unwrap());
}

#[tokio::test]
async fn the_guest_is_told_that_its_request_was_denied() {
    let [_, component] = senders(SocketAddr::from(([127, 0, 0, 1], 9)));
    let loaded = load_allowing(&component, Vec::new());
    // It answers with the error that it got.
    let error = loaded.function.handle(get()).await.unwrap_err();
    let InvokeError::ErrorCode(code) = error else {
        panic!("{error}");
    };
    assert!(code.contains("HttpRequestDenied"), "{code}");
}

#[tokio::test]
async fn requests_to_allowed_hosts_are_sent_and_answered() {
    for version in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = answer_one(listener);
        let loaded = load_allowing(&senders(address)[version], vec![address.to_string()]);
        let answer = loaded.function.handle(get()).await;
        let asked = tokio::time::timeout(Duration::from_secs(20), server).await;
        let asked = asked.expect("nothing was sent").unwrap();
        assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {address}")), "{asked}");
        match answer {
            // That of version 0.3 hands the answer on, that of 0.2 ends there.
            Ok(response) => assert_eq!((version, response.status().as_u16()), (1, 418)),
            Err(error) => assert_eq!((version, error), (0, InvokeError::NoResponse)),
        }
    }
}

#[tokio::test]
async fn what_a_guest_sends_is_of_the_trace_of_its_request() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for version in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = answer_one(listener);
        let loaded = load_allowing(&senders(address)[version], vec![address.to_string()]);
        let mut request = get();
        for (name, value) in [("traceparent", PARENT), ("tracestate", "a=b")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let _ = loaded.function.handle(request).await;
        let asked = tokio::time::timeout(Duration::from_secs(60), server).await;
        let asked = asked.expect("nothing was sent").unwrap();
        for line in [
            format!("traceparent: {PARENT}\r\n"),
            "tracestate: a=b\r\n".to_owned(),
        ] {
            assert!(asked.contains(&line), "{asked}");
        }
    }
}
