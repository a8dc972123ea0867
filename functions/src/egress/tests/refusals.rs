//! What is refused, and what the log says of it.

use http::Method;
use tokio::net::{TcpListener, TcpStream};
use wasmtime_wasi_http::{Error, WasiHttpHooks};

use super::{Function, Names, Server, get, outbound};
use crate::{EgressLimits, egress::LINES_PER_REQUEST};

async fn is_reached(listener: TcpListener) -> bool {
    // Had somebody connected, that would be accepted before us.
    let us = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (_, first) = listener.accept().await.unwrap();
    first != us.local_addr().unwrap()
}

#[tokio::test]
async fn a_refused_request_reaches_nobody_and_the_log_says_what_to_add() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let function = Function::allowing(&["example.com"]);
    let error = function.get(&format!("http://{address}/")).await;
    assert!(matches!(error.unwrap_err(), Error::HttpRequestDenied));
    let lines = function.lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(&format!("add \"{address}\" to spec.allowedHosts")));
    assert!(!is_reached(listener).await);
}

#[tokio::test]
async fn a_name_at_a_private_address_is_refused_and_the_log_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let names = Names::of([("nas.lan", &[&["::ffff:127.0.0.1", "10.0.0.1"]])]);
    let function = Function::of(
        &outbound(names),
        &["*", "nas.lan:*"],
        EgressLimits::default(),
    );
    let error = function.get(&format!("http://nas.lan:{port}/")).await;
    assert!(matches!(error.unwrap_err(), Error::DestinationIpProhibited));
    let lines = function.lines();
    assert!(lines[0].contains(&format!(
        "request to nas.lan:{port} refused: 127.0.0.1 is not public (this machine): to allow it, \
         add \"127.0.0.1:{port}\" to spec.allowedHosts"
    )));
    assert!(!is_reached(listener).await);
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_dialled() {
    let server = Server::start().await;
    let port = server.address.port();
    // Another server at the same port, which a second lookup would lead to.
    let other = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let names = Names::of([("rebound.test", &[&["127.0.0.1"], &["127.0.0.2"]])]);
    let allowed = [format!("rebound.test:{port}"), format!("127.0.0.1:{port}")];
    let function = Function::of(
        &outbound(names),
        &allowed.each_ref().map(String::as_str),
        EgressLimits::default(),
    );
    let uri = format!("http://rebound.test:{port}/close");
    assert_eq!(function.text(&uri).await, "1");
    let error = function.get(&uri).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error}");
    assert!(!is_reached(other).await);
}

#[tokio::test]
async fn one_address_of_a_name_is_refused_without_the_others() {
    let server = Server::start().await;
    let port = server.address.port();
    let names = Names::of([("both.test", &[&["10.0.0.1", "127.0.0.1"]])]);
    let allowed = [format!("both.test:{port}"), format!("127.0.0.1:{port}")];
    let function = Function::of(
        &outbound(names),
        &allowed.each_ref().map(String::as_str),
        EgressLimits::default(),
    );
    assert_eq!(
        function.text(&format!("http://both.test:{port}/")).await,
        "1"
    );
    assert!(function.lines().is_empty());
}

#[tokio::test]
async fn what_a_uri_hides_is_refused() {
    let function = Function::allowing(&["*", "127.0.0.1"]);
    for uri in [
        "http://user@127.0.0.1/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1:0/",
        "ftp://127.0.0.1/",
    ] {
        let error = function.get(uri).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestUriInvalid), "{uri}");
    }
    for method in [Method::CONNECT, Method::TRACE] {
        let mut request = get("http://127.0.0.1/");
        *request.method_mut() = method;
        let error = function.send(request).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestMethodInvalid));
    }
    assert_eq!(function.lines().len(), 6);
}

#[tokio::test]
async fn refusals_of_one_request_fill_no_log() {
    let function = Function::allowing(&[]);
    let mut egress = function.egress();
    for _ in 0..3 * LINES_PER_REQUEST {
        let done = Box::new(async { Ok(()) });
        let refused = egress.send_request(get("http://example.com/"), None, done);
        Box::into_pin(refused).await.err().unwrap();
    }
    let lines = function.lines();
    assert_eq!(lines.len(), LINES_PER_REQUEST as usize + 1);
    assert!(lines.last().unwrap().contains("the rest is not"));
}
