//! Requests to tunnels at the ingress: over a real link, to a node that connects to targets as an agent does.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use hive_controller::ingress::{self, Forwarder, Ingress};
use hive_controller::state::Key;
use hive_controller::traffic::Loads;
use hive_controller::tunnels::{self, Tunnels};
use hive_manifests::Resource;
use hive_proto::frame;
use hive_proto::invoke::FUNCTION;
use hive_proto::link::{Link, Purpose, Stream};
use hive_proto::tunnel::REFUSED;
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use hive_tunnels::{Counts, RelayLimits, abort, relay};
use http::{Method, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::agents::Swarm;
use crate::batches::Node;
use crate::harness::DEADLINE;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A controller with an ingress, to which the node `pi` is linked.
struct World {
    swarm: Swarm,
    tunnels: Tunnels,
    ingress: SocketAddr,
}

impl World {
    async fn with(tunnels: &[(&str, Value)]) -> Self {
        let swarm = Swarm::start().await;
        for (name, spec) in tunnels {
            let spec = json!({ "spec": spec });
            swarm.create(Resource::Tunnel, "default", name, spec).await;
        }
        let link = swarm.link(swarm.node("pi").await).await;
        tokio::spawn(connect(link));
        let carried = Tunnels::new(swarm.nodes.links().clone());
        let (replica, stop) = (&swarm.server.replica, &swarm.server.stop);
        let at = Ipv4Addr::LOCALHOST.into();
        let (served, cancel) = (carried.clone(), stop.clone());
        tokio::spawn(tunnels::serve(served, replica.clone(), at, cancel));
        let routes = ingress::follow_routes(replica, stop.clone());
        let (invoker, loads) = (swarm.invoker.clone(), Loads::default());
        let forwarder = Forwarder::new(routes, invoker, carried.clone(), loads, None);
        let listener = TcpListener::bind((at, 0)).await.unwrap();
        let ingress = listener.local_addr().unwrap();
        tokio::spawn(Ingress::new(forwarder).serve(listener, stop.clone()));
        let world = Self {
            swarm,
            tunnels: carried,
            ingress,
        };
        world.until(|it| it.all().len() == tunnels.len()).await;
        world
    }

    /// One tunnel, at `photos.example`, to a target.
    async fn to(target: &TcpListener) -> Self {
        Self::with(&[("photos", spec("photos.example", target))]).await
    }

    async fn until(&self, wanted: impl Fn(&Tunnels) -> bool) {
        let reached = async {
            while !wanted(&self.tunnels) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        reached.expect("in time");
    }

    /// On a connection of its own.
    async fn ask(&self, version: Version, request: Request<Body>) -> Response<Incoming> {
        let stream = TokioIo::new(TcpStream::connect(self.ingress).await.unwrap());
        let answered = async {
            if version == Version::HTTP_2 {
                let executor = TokioExecutor::new();
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(executor, stream).await?;
                tokio::spawn(connection);
                return sender.send_request(request).await;
            }
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.expect("an answer in time").unwrap()
    }

    async fn get(&self, version: Version) -> Response<Incoming> {
        let get = request(version, Method::GET, "photos.example", "/");
        self.ask(version, get.body(whole("")).unwrap()).await
    }

    /// A connection on which a head was sent.
    async fn raw(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.ingress).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

/// Connects to what is asked for, as an agent does.
async fn connect(link: Link) {
    while let Ok((purpose, stream)) = link.accept().await {
        assert_eq!(purpose, Purpose::Tunnel);
        tokio::spawn(carry(stream));
    }
}

async fn carry(mut stream: Stream) {
    let open: TunnelOpen = frame::read(&mut stream, 1 << 10).await.unwrap().unwrap();
    let port = u16::try_from(open.port).unwrap();
    let Ok(mut target) = TcpStream::connect((&*open.host, port)).await else {
        let (reason, message) = (REFUSED.into(), "nobody listens".into());
        let refused = TunnelOpened { reason, message };
        frame::write(&mut stream, &refused).await.unwrap();
        // Else what was said may be lost with the stream.
        let _ = stream.shutdown().await;
        return;
    };
    let opened = TunnelOpened::default();
    frame::write(&mut stream, &opened).await.unwrap();
    let (limits, counts) = (RelayLimits::default(), Counts::default());
    if relay(&mut stream, &mut target, &limits, &counts)
        .await
        .is_err()
    {
        abort(target);
    }
}

fn spec(host: &str, target: &TcpListener) -> Value {
    let port = target.local_addr().unwrap().port();
    json!({ "targets": [{ "node": "pi", "port": port }], "http": { "host": host } })
}

async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// As a version of HTTP says whom it is for.
fn request(version: Version, method: Method, host: &str, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method);
    match version {
        Version::HTTP_2 => request.uri(format!("http://{host}{path}")).version(version),
        _ => request.uri(path).header("host", host),
    }
}

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}

/// A target that speaks HTTP.
fn serve<F, R>(target: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<UnsyncBoxBody<Bytes, hyper::Error>>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = target.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// A target that does what it wants, once it has read the head of a request.
fn serve_raw<F, R>(target: TcpListener, then: F)
where
    F: Fn(TcpStream, String) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = target.accept().await {
            let then = then.clone();
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                // Who checks its health says nothing.
                if !head.is_empty() {
                    then(stream, head).await;
                }
            });
        }
    });
}

/// In small letters; as much as there is.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.expect("in time")
}

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[tokio::test]
async fn what_a_target_could_read_otherwise_never_reaches_it() {
    let target = listen().await;
    let world = World::to(&target).await;
    serve_raw(target, |mut stream, _| async move {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    });
    for (path, headers, expected) in [
        ("/public/x", "Host: photos.example", "200 ok"),
        ("/public/../x", "Host: photos.example", "badpath"),
        ("/public/%2E%2e%2Fx", "Host: photos.example", "badpath"),
        (
            "/",
            "Host: photos.example\r\nHost: other.example",
            "badhost",
        ),
        ("http://photos.example/", "Host: photos.example", "200 ok"),
        ("http://photos.example/", "Host: other.example", "badhost"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        let mut stream = world.raw(&head).await;
        let answer = in_time(read_head(&mut stream)).await;
        assert!(answer.contains(expected), "{head}{answer}");
        let is_refused = answer.starts_with("http/1.1 400 ");
        assert_eq!(is_refused, expected.starts_with("bad"), "{head}{answer}");
    }
}

#[tokio::test]
async fn a_target_is_told_what_was_asked_and_by_whom() {
    let target = listen().await;
    let world = World::to(&target).await;
    let seen = Arc::new(Mutex::new(None));
    let sees = seen.clone();
    serve(target, move |request| {
        let sees = sees.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *sees.lock().unwrap() = Some((head, body));
            let answer = Response::builder()
                .status(201)
                .header("x-own", "1")
                .header("x-hive-reason", "Invented")
                .header("keep-alive", "timeout=5");
            let body = Full::new(Bytes::from_static(b"made"));
            let body = body.map_err(|never| match never {});
            answer.body(body.boxed_unsync()).unwrap()
        }
    });
    for version in BOTH {
        let host = "Photos.example:8080";
        let request = request(version, Method::POST, host, "/albums?sort=new")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-hive-function", "other")
            .header("x-own", "2");
        let answer = world
            .ask(version, request.body(whole("new")).unwrap())
            .await;
        assert_eq!((answer.status().as_u16(), answer.version()), (201, version));
        let headers = answer.headers().clone();
        assert_eq!(headers["x-own"], "1");
        for hidden in ["x-hive-reason", "keep-alive", "connection"] {
            assert!(!headers.contains_key(hidden), "{hidden}");
        }
        let body = in_time(answer.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes(), "made");

        let (head, body) = seen.lock().unwrap().take().unwrap();
        assert_eq!(
            (head.method, head.version),
            (Method::POST, Version::HTTP_11)
        );
        assert_eq!(head.uri, "/albums?sort=new");
        assert_eq!(body, "new");
        let via = if version == Version::HTTP_2 {
            "2 hive"
        } else {
            "1.1 hive"
        };
        for (name, expected) in [
            ("host", host),
            ("x-forwarded-host", host),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("via", via),
            ("cookie", "a=1; b=2"),
            ("x-own", "2"),
        ] {
            let all: Vec<_> = head.headers.get_all(name).iter().collect();
            assert_eq!(all, [expected], "{name}");
        }
        assert!(!head.headers.contains_key("x-hive-function"));
        assert_eq!(head.headers["x-request-id"], headers["x-request-id"]);
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let target = listen().await;
    let world = World::to(&target).await;
    serve(target, |request| async move {
        Response::new(request.into_body().boxed_unsync())
    });
    for version in BOTH {
        let (sender, pieces) = mpsc::channel(1);
        let frames = ReceiverStream::new(pieces).map(|it| Ok(Frame::data(it)));
        let request = request(version, Method::POST, "photos.example", "/");
        let request = request.body(StreamBody::new(frames).boxed_unsync());
        // Hyper waits for nothing of the body.
        let mut answer = world.ask(version, request.unwrap()).await.into_body();
        for piece in ["one", "two", "three"] {
            sender
                .send(Bytes::from_static(piece.as_bytes()))
                .await
                .unwrap();
            // The next comes only when this was seen.
            let frame = in_time(answer.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(sender);
        let rest = in_time(answer.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "");
    }
}

#[tokio::test]
async fn what_a_target_cuts_is_cut_for_its_client() {
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let counted = "content-length: 10\r\n\r\nhello";
    for (rest, resets) in [(chunked, false), (counted, false), (chunked, true)] {
        let target = listen().await;
        let world = World::to(&target).await;
        let (go, went) = tokio::sync::watch::channel(0);
        serve_raw(target, move |mut stream, _| {
            let mut went = went.clone();
            async move {
                let asked = *went.borrow();
                let answer = format!("HTTP/1.1 200 OK\r\n{rest}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                // A reset may throw away what was not read yet.
                let _ = went.wait_for(|it| *it > asked).await;
                if resets {
                    abort(stream);
                }
            }
        });
        for version in BOTH {
            let answer = world.get(version).await;
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let frame = in_time(body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hello");
            go.send_modify(|it| *it += 1);
            let end = in_time(body.frame()).await;
            assert!(matches!(end, Some(Err(_))), "{rest:?} {version:?}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_lets_its_target_go() {
    for begins in [false, true] {
        let target = listen().await;
        let world = World::to(&target).await;
        let (ended, mut ends) = mpsc::channel(1);
        serve_raw(target, move |mut stream, _| {
            let ended = ended.clone();
            async move {
                if begins {
                    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                ended.send("asked").await.unwrap();
                // No second request follows: only the end can come.
                let _ = stream.read_u8().await;
                ended.send("ended").await.unwrap();
            }
        });
        let head = "GET / HTTP/1.1\r\nhost: photos.example\r\n\r\n";
        let mut client = world.raw(head).await;
        assert_eq!(in_time(ends.recv()).await, Some("asked"));
        if begins {
            assert!(read_head(&mut client).await.starts_with("http/1.1 200"));
        }
        drop(client);
        assert_eq!(in_time(ends.recv()).await, Some("ended"));
        world
            .until(|it| it.all()[0].metered().connections == 0)
            .await;
    }
}

/// A target that goes over to what it is asked for, says hello, and repeats what it hears.
fn switches(target: TcpListener) {
    serve_raw(target, |mut stream, head| async move {
        let Some((_, to)) = head.split_once("\r\nupgrade: ") else {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            return;
        };
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        let (to, _) = to.split_once("\r\n").unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\nX-Own: 1\r\n\r\nhello"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut heard = [0; 5];
        while let Ok(bytes) = stream.read(&mut heard).await
            && bytes > 0
        {
            if &heard[..bytes] == b"break" {
                return abort(stream);
            }
            stream.write_all(&heard[..bytes]).await.unwrap();
        }
        // Said after the other side has ended.
        let _ = stream.write_all(b"bye").await;
    });
}

#[tokio::test]
async fn a_connection_that_goes_over_to_another_protocol_carries_it() {
    let target = listen().await;
    let world = World::to(&target).await;
    switches(target);
    let upgrade = |to: &str| {
        format!(
            "GET /x HTTP/1.1\r\nhost: photos.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: {to}\r\n\r\n"
        )
    };
    let begin = async || {
        let mut client = world.raw(&upgrade("websocket")).await;
        let head = in_time(read_head(&mut client)).await;
        for expected in [
            "http/1.1 101 ",
            "\r\nconnection: upgrade\r\n",
            "\r\nupgrade: websocket\r\n",
            "\r\nx-own: 1\r\n",
        ] {
            assert!(head.contains(expected), "{head}");
        }
        let mut hello = [0; 5];
        in_time(client.read_exact(&mut hello)).await.unwrap();
        assert_eq!(&hello, b"hello");
        client
    };
    // Both ways, and half an end.
    let mut client = begin().await;
    for said in [b"one", b"two"] {
        client.write_all(said).await.unwrap();
        let mut heard = [0; 3];
        in_time(client.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, said);
    }
    assert_eq!(world.tunnels.all()[0].metered().connections, 1);
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    in_time(client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "bye");
    world
        .until(|it| it.all()[0].metered().connections == 0)
        .await;

    // What breaks does not end.
    let mut client = begin().await;
    client.write_all(b"break").await.unwrap();
    assert!(in_time(client.read_to_string(&mut rest)).await.is_err());

    // Requests inside of it would go where no route leads.
    for to in ["h2c", "websocket, H2C", "HTTP/2.0"] {
        let mut client = world.raw(&upgrade(to)).await;
        let head = in_time(read_head(&mut client)).await;
        assert!(head.starts_with("http/1.1 200"), "{to}: {head}");
    }

    // The tunnel is no more, and neither is what it carries.
    let mut client = begin().await;
    let key = Key::new(Resource::Tunnel, "default", "photos");
    world.swarm.delete(key).await;
    assert!(in_time(client.read_to_string(&mut rest)).await.is_err());
}

#[tokio::test]
async fn who_asks_in_vain_is_told_why() {
    let nobody = listen().await;
    let read_only = json!({
        "targets": [{ "node": "pi", "port": 80 }],
        "http": { "host": "read.example", "routes": [{ "methods": ["GET"] }] },
    });
    let world = World::with(&[
        ("down", spec("down.example", &nobody)),
        ("read", read_only),
        (
            "alias",
            json!({ "function": "gone", "http": { "host": "alias.example" } }),
        ),
    ])
    .await;
    drop(nobody);
    for (method, host, status, reason, sentence) in [
        (
            "GET",
            "down.example",
            502,
            "TargetDown",
            "no target of tunnel default/down took a connection",
        ),
        (
            "POST",
            "read.example",
            405,
            "NoMethod",
            "what answers at this path takes GET",
        ),
        (
            "GET",
            "alias.example",
            503,
            "NoTarget",
            "tunnel default/alias leads to function gone, which does not exist",
        ),
        (
            "GET",
            "other.example",
            404,
            "NoRoute",
            "for host \"other.example\"",
        ),
        (
            "CONNECT",
            "down.example",
            405,
            "Tunnel",
            "the ingress is no proxy",
        ),
    ] {
        let path = if method == "CONNECT" {
            "down.example:80"
        } else {
            "/"
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut client = world.raw(&head).await;
        let mut answer = String::new();
        in_time(client.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("\r\nx-hive-reason: {reason}\r\n")),
            "{answer}"
        );
        assert!(answer.contains(&format!("{status} {reason}: ")), "{answer}");
        assert!(answer.contains(sentence), "{answer}");
    }
}

#[tokio::test]
async fn a_function_answers_at_the_host_of_a_tunnel() {
    let alias = json!({ "function": "taker", "http": { "host": "alias.example" } });
    let world = World::with(&[("alias", alias)]).await;
    let swarm = &world.swarm;
    let node = Arc::new(Node::default());
    *node.answer.lock().unwrap() = (200, &[], "taken");
    let link = swarm.link(swarm.node("phone").await).await;
    tokio::spawn(node.clone().serve(link));
    let function = json!({ "spec": { "artifact": { "sha256": "11".repeat(32) } } });
    swarm
        .create(Resource::Function, "default", "taker", function)
        .await;
    swarm.assign("taker", "phone", 0x11).await;
    swarm.is_ready("taker").await;
    let answered = in_time(async {
        loop {
            let get = request(Version::HTTP_11, Method::GET, "alias.example", "/x");
            let get = get.body(whole("")).unwrap();
            let answer = world.ask(Version::HTTP_11, get).await;
            if answer.status() == 200 {
                return answer.into_body().collect().await.unwrap().to_bytes();
            }
        }
    });
    assert_eq!(answered.await, "taken");
    let (head, _) = node.asked.lock().unwrap().pop().unwrap();
    assert_eq!(head.headers()[FUNCTION], "taker");
    assert_eq!(head.headers()["host"], "alias.example");
    assert_eq!(head.uri(), "/x");
}
