//! Requests over real sockets, to servers that say what they saw.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use rustls::{RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{connect::Connector, *};
use crate::{EgressLimits, logs::LogRecord};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Names that stand for other addresses each time, the last one for ever.
#[derive(Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn of<const N: usize>(names: [(&str, &[&[&str]]); N]) -> Arc<Self> {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let names = names.map(|(name, turns)| {
            let turns = turns.iter().map(|texts| addresses(texts)).collect();
            (name.to_owned(), turns)
        });
        Arc::new(Self(Mutex::new(names.into())))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let found = match names.get_mut(name) {
            Some(turns) if turns.len() > 1 => Ok(turns.remove(0)),
            Some(turns) => Ok(turns[0].clone()),
            None => Err(io::Error::other("no such name")),
        };
        Box::pin(async { found })
    }
}

/// One function's way out, and what was said about it.
struct Function {
    client: Arc<Client>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Function {
    fn of(outbound: &Arc<Outbound>, allowed: &[&str], limits: EgressLimits) -> Self {
        Self {
            client: outbound.client(AllowedHosts::parse(allowed).unwrap(), limits),
            lines: Arc::default(),
        }
    }

    fn allowing(allowed: &[&str]) -> Self {
        Self::of(&outbound(Names::of([])), allowed, EgressLimits::default())
    }

    /// Of one request's guest.
    fn egress(&self) -> Egress {
        let lines = self.lines.clone();
        let sink: crate::LogSink =
            Arc::new(move |record: LogRecord| lines.lock().unwrap().push(record.text));
        Egress::new(
            self.client.clone(),
            RequestLog::new(sink, "hello".into(), None),
        )
    }

    async fn send(&self, request: http::Request<WasiBody>) -> Answer {
        self.send_with(request, RequestOptions::default()).await
    }

    async fn send_with(&self, request: http::Request<WasiBody>, options: RequestOptions) -> Answer {
        let done = Box::new(async { Ok(()) });
        let sending = self.egress().send_request(request, Some(options), done);
        Box::into_pin(sending).await.map(|(answer, _)| answer)
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(get(uri)).await
    }

    /// Gets, and reads to the end.
    async fn text(&self, uri: &str) -> String {
        let body = self.get(uri).await.unwrap().into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

type Answer = Result<http::Response<WasiBody>, Error>;

/// As WASI makes it.
fn get(uri: &str) -> http::Request<WasiBody> {
    let uri: http::Uri = uri.parse().unwrap();
    let host = uri.authority().unwrap().to_string();
    http::Request::get(uri)
        .header("host", host)
        .body(WasiBody::default())
        .unwrap()
}

fn outbound(resolver: Arc<dyn Resolve>) -> Arc<Outbound> {
    Outbound::with(Connector::new(resolver), 1000, FOR_EVER)
}

fn limits(max_connections: u32) -> EgressLimits {
    EgressLimits {
        max_connections,
        connect: Duration::from_secs(20),
        ..EgressLimits::default()
    }
}

/// Answers every request with the number of its connection, until told to close.
struct Server {
    address: SocketAddr,
    /// The heads that arrived.
    heads: mpsc::UnboundedReceiver<String>,
    /// Connections that ended.
    ended: mpsc::UnboundedReceiver<u32>,
}

impl Server {
    async fn start() -> Self {
        Self::speaking(
            |stream| async { Some(stream) },
            |number| format!("{number}"),
        )
        .await
    }

    async fn speaking<S, F>(
        handshake: impl Fn(TcpStream) -> F + Send + 'static,
        body: impl Fn(u32) -> String + Clone + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, heads_seen) = mpsc::unbounded_channel();
        let (ended, ended_seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, ended, body) = (heads.clone(), ended.clone(), body.clone());
                let stream = handshake(stream);
                tokio::spawn(async move {
                    if let Some(stream) = stream.await {
                        converse(stream, &heads, &body(number)).await;
                    }
                    let _ = ended.send(number);
                });
            }
        });
        Self {
            address,
            heads: heads_seen,
            ended: ended_seen,
        }
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Paths: `/close` ends the connection after its answer, `/silent` is never answered, `/stuck`
/// only begun.
async fn converse<S>(mut stream: S, heads: &mpsc::UnboundedSender<String>, body: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let _ = heads.send(head);
        let (length, sent) = match path.as_str() {
            "/silent" => {
                let _ = stream.read(&mut [0]).await;
                return;
            }
            "/stuck" => (body.len() + 1, body),
            _ => (body.len(), body),
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{sent}");
        if stream.write_all(answer.as_bytes()).await.is_err() || path == "/close" {
            return;
        }
    }
}

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
