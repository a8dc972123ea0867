//! Requests to targets on a node, whose agent and whose targets are this test: without a socket, in a time that
//! passes only while all wait.

#![allow(clippy::unwrap_used)]

mod answers;
mod h2c;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use hive_manifests::Resource;
use hive_proto::frame;
use hive_proto::link::{Link, Stream};
use hive_proto::tunnel::REFUSED;
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;
use crate::gateway::{BoxError, Links};
use crate::ingress::repeat::{full, gather};
use crate::objects;
use crate::state::{Command, State};
use crate::tunnels::fake_agent::join_by_hand;
use crate::tunnels::table::Table;

/// After it no connection waits for a request any more.
const LATER: Duration = Duration::from_secs(10);

/// What listens at a port.
type Target = Arc<dyn Fn(Stream) -> BoxFuture<'static, ()> + Send + Sync>;

/// A node: who listens at its ports, and which of them were asked for.
#[derive(Clone, Default)]
struct Node {
    targets: Arc<Mutex<BTreeMap<u16, Target>>>,
    asked: Arc<Mutex<Vec<u16>>>,
}

struct World {
    links: Links,
    tunnels: Tunnels,
    proxy: Proxy,
    node: Node,
}

fn key() -> Key {
    Key::new(Resource::Tunnel, "default", "photos")
}

fn target(port: u16) -> TunnelTarget {
    serde_json::from_value(json!({ "node": "pi", "port": port })).unwrap()
}

impl World {
    /// A tunnel to ports of the node `pi`, which is linked.
    fn new(ports: &[u16], more: Value) -> Self {
        let world = Self::unlinked(ports, more);
        world.join();
        world
    }

    fn unlinked(ports: &[u16], more: Value) -> Self {
        let links = Links::default();
        let tunnels = Tunnels::new(links.clone());
        let targets: Vec<TunnelTarget> = ports.iter().map(|port| target(*port)).collect();
        let mut spec = json!({ "targets": targets, "healthCheck": { "interval": "1h" } });
        let fields = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        let body = objects::fresh(&key(), json!({}), json!({ "spec": spec })).into();
        let mut state = State::default();
        let create = Command::Create { key: key(), body };
        state.apply(create).unwrap();
        tunnels.take(&Table::of(&state));
        Self {
            links,
            proxy: Proxy::new(tunnels.clone()),
            tunnels,
            node: Node::default(),
        }
    }

    /// The node comes with a new link.
    fn join(&self) {
        let link = join_by_hand(&self.links, "pi");
        tokio::spawn(self.node.clone().serve(link));
    }

    fn listen(&self, port: u16, target: Target) {
        self.node.targets.lock().unwrap().insert(port, target);
    }

    /// The first of the ports is asked first: the others are at work.
    fn prefer_first(&self, others: &[u16]) -> Vec<UnderWay> {
        let begin = |port: &u16| self.tunnels.health.begin(&key(), &target(*port));
        others.iter().map(begin).collect()
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, TunnelError> {
        let (request, copy) = gather(request).await?;
        self.proxy.answer(&key(), request, copy, None).await
    }

    async fn get(&self) -> Result<Response<Body>, TunnelError> {
        self.send(request(Method::GET, full(""))).await
    }
}

impl Node {
    async fn serve(self, link: Link) {
        while let Ok((_, mut stream)) = link.accept().await {
            let node = self.clone();
            tokio::spawn(async move {
                let open: TunnelOpen = frame::read(&mut stream, 1 << 10).await.unwrap().unwrap();
                let port = u16::try_from(open.port).unwrap();
                node.asked.lock().unwrap().push(port);
                let target = node.targets.lock().unwrap().get(&port).cloned();
                let reason = if target.is_some() { "" } else { REFUSED };
                let opened = TunnelOpened {
                    reason: reason.into(),
                    message: String::new(),
                };
                frame::write(&mut stream, &opened).await.unwrap();
                if let Some(target) = target {
                    target(stream).await;
                }
            });
        }
    }
}

fn request(method: Method, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("/");
    request.header("host", "photos.example").body(body).unwrap()
}

async fn text(answered: Result<Response<Body>, TunnelError>) -> String {
    let body = answered.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}

/// Of unknown length.
fn streaming<S>(pieces: S) -> Body
where
    S: futures::Stream<Item = &'static [u8]> + Send + 'static,
{
    let frames = pieces.map(|it| Ok::<_, BoxError>(Frame::data(Bytes::from_static(it))));
    StreamBody::new(frames).boxed_unsync()
}

/// `x`, and another one each time that so much time has passed.
fn dripping(every: Duration, count: usize) -> impl futures::Stream<Item = &'static [u8]> + Send {
    stream::iter(0..count).then(move |number| async move {
        sleep(every * u32::from(number > 0)).await;
        &b"x"[..]
    })
}

/// A target that speaks HTTP; `answer` is told the number of the connection.
fn serves<F, R>(answer: F) -> Target
where
    F: Fn(usize, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Body> + Send + 'static,
{
    let connections = AtomicUsize::new(0);
    Arc::new(move |stream: Stream| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let body = answer(number, request);
            async move { Ok::<_, Infallible>(Response::new(body.await)) }
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        served.map(drop).boxed()
    })
}

fn echo() -> Target {
    serves(|_, request| async move {
        let body = request.into_body().collect().await;
        full(body.map(|it| it.to_bytes()).unwrap_or_default())
    })
}

/// A target that reads requests without a body, answers each of the first `count`, and breaks off at the next.
fn breaks_after(count: usize) -> Target {
    Arc::new(move |mut stream: Stream| {
        async move {
            for _ in 0..count {
                read_head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
            read_head(&mut stream).await;
        }
        .boxed()
    })
}

/// What came, up to the end of a request's head; nothing at the stream's end.
async fn read_head(stream: &mut Stream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Vec::new(),
        }
    }
    head
}

fn numbered() -> Target {
    serves(|number, _| async move { full(number.to_string()) })
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_while_it_is_fresh() {
    let world = World::new(&[80], json!({}));
    world.listen(80, numbered());
    let first = text(world.get().await).await;
    assert_eq!(text(world.get().await).await, first);
    // Two at once need two.
    let (one, other) = tokio::join!(world.get(), world.get());
    assert_ne!(text(one).await, text(other).await);

    let last = text(world.get().await).await;
    sleep(LATER).await;
    let later = text(world.get().await).await;
    assert_ne!(later, last);
    // Who came back is not asked by the link before.
    world.join();
    assert_ne!(text(world.get().await).await, later);
}

#[tokio::test(start_paused = true)]
async fn what_waited_and_is_closed_costs_no_request_that_may_be_repeated() {
    for (method, is_answered) in [
        (Method::GET, true),
        (Method::DELETE, true),
        (Method::POST, false),
    ] {
        let world = World::new(&[80], json!({}));
        world.listen(80, breaks_after(1));
        assert_eq!(text(world.get().await).await, "ok");
        let answered = world.send(request(method.clone(), full(""))).await;
        match answered {
            Ok(answer) => assert!(is_answered && answer.status() == 200, "{method}"),
            Err(error) => assert!(
                !is_answered && matches!(error, TunnelError::Lost { .. }),
                "{method}: {error:?}"
            ),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_goes_to_the_next_target() {
    let world = World::new(&[80, 81], json!({}));
    world.listen(81, echo());
    let _under_way = world.prefer_first(&[81]);
    let body = streaming(stream::iter([&b"hel"[..], b"lo"]));
    let answered = world.send(request(Method::POST, body)).await;
    assert_eq!(text(answered).await, "hello");
    assert_eq!(*world.node.asked.lock().unwrap(), [80, 81]);
    // From now on it is known.
    assert_eq!(text(world.get().await).await, "");
    assert_eq!(*world.node.asked.lock().unwrap(), [80, 81]);
}

#[tokio::test(start_paused = true)]
async fn where_no_target_takes_a_connection_the_last_says_why() {
    let world = World::new(&[80, 81], json!({}));
    let Err(TunnelError::Unopened { source, .. }) = world.get().await else {
        panic!("nobody listens");
    };
    assert_eq!(source.reason(), REFUSED);
    let nobody = Key::new(Resource::Tunnel, "default", "nobody");
    let answered = world
        .proxy
        .answer(&nobody, request(Method::GET, full("")), None, None);
    assert!(matches!(answered.await, Err(TunnelError::NoTarget(_))));
}

#[tokio::test(start_paused = true)]
async fn a_node_is_waited_for_unless_it_is_known_to_be_away() {
    let world = World::unlinked(&[80], json!({}));
    world.listen(80, echo());
    let joins = async {
        sleep(Duration::from_secs(3)).await;
        world.join();
    };
    let (answered, ()) = tokio::join!(world.get(), joins);
    assert_eq!(text(answered).await, "");

    let world = World::unlinked(&[80], json!({}));
    let mut waited = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let Err(TunnelError::Unopened { source, .. }) = world.get().await else {
            panic!("the node is not linked");
        };
        assert_eq!(source.reason(), "NodeNotLinked");
        waited.push(began.elapsed().as_secs());
    }
    assert_eq!(waited, [5, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_performed_is_sent_again_only_if_that_does_no_harm() {
    let large = || streaming(stream::iter([&b"large"[..]]));
    for (method, body, is_answered) in [
        (Method::GET, full(""), true),
        (Method::PUT, full("small"), true),
        (Method::POST, full("small"), false),
        (Method::PUT, large(), false),
    ] {
        let world = World::new(&[80, 81], json!({}));
        world.listen(80, breaks_after(0));
        world.listen(81, echo());
        let _under_way = world.prefer_first(&[81]);
        let answered = world.send(request(method.clone(), body)).await;
        assert_eq!(answered.is_ok(), is_answered, "{method}");
        let both: [u16; 2] = [80, 81];
        let expected = if is_answered { &both[..] } else { &both[..1] };
        assert_eq!(*world.node.asked.lock().unwrap(), expected, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_from_a_body_that_is_long_in_coming() {
    const LONG: Duration = Duration::from_secs(40);
    let thinks = || serves(|_, _| std::future::pending());
    let never = || streaming(stream::pending());
    let drips = || streaming(dripping(LONG, 4));
    let cases: [(Target, Body, Result<&str, &str>); 4] = [
        (thinks(), full(""), Err("target")),
        (thinks(), drips(), Err("target")),
        (echo(), never(), Err("client")),
        (echo(), drips(), Ok("xxxx")),
    ];
    for (target, body, expected) in cases {
        let world = World::new(&[80, 81], json!({}));
        world.listen(80, target);
        world.listen(81, echo());
        let _under_way = world.prefer_first(&[81]);
        match (world.send(request(Method::PUT, body)).await, expected) {
            (Err(TunnelError::Silent(_)), Err("target")) => {}
            (Err(TunnelError::Body(BodyError::Slow)), Err("client")) => {}
            (answered, Ok(expected)) => assert_eq!(text(answered).await, expected),
            (answered, _) => panic!("{expected:?}: {answered:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_on_while_something_comes_and_is_cut_where_nothing_does() {
    let world = World::new(&[80], json!({ "idleTimeout": "5s" }));
    let drip = Duration::from_secs(3);
    world.listen(
        80,
        serves(move |_, _| async move { streaming(dripping(drip, 5)) }),
    );
    assert_eq!(text(world.get().await).await, "xxxxx");
    let stops = || stream::iter([&b"x"[..]]).chain(stream::pending());
    world.listen(80, serves(move |_, _| async move { streaming(stops()) }));
    sleep(LATER).await;
    let answer = world.get().await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    // Before it begins, the same is told as such.
    world.listen(80, serves(|_, _| std::future::pending()));
    let silent = world.get().await;
    assert!(matches!(silent, Err(TunnelError::Silent(_))), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_tunnel_carries_is_cut_when_it_is_no_more() {
    let world = World::new(&[80], json!({ "idleTimeout": "0s" }));
    let stops = || stream::iter([&b"x"[..]]).chain(stream::pending());
    world.listen(80, serves(move |_, _| async move { streaming(stops()) }));
    let answer = world.get().await.unwrap();
    world.tunnels.take(&Table::default());
    assert!(answer.into_body().collect().await.is_err());
    let gone = world.get().await;
    assert!(matches!(gone, Err(TunnelError::NoTarget(_))), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_has_no_more_requests_under_way_than_it_may() {
    let world = World::new(&[80], json!({ "maxConnections": 1 }));
    world.listen(80, numbered());
    let live = world.tunnels.get(&key()).unwrap();
    let first = world.get().await.unwrap();
    assert_eq!(live.metered().connections, 1);
    assert!(matches!(world.get().await, Err(TunnelError::TooMany(_))));
    drop(first);
    assert_eq!(text(world.get().await).await.len(), 1);
    let metered = live.metered();
    assert_eq!(metered.connections, 0);
    // Heads count as well.
    assert!(
        metered.in_bytes > 40 && metered.out_bytes > 40,
        "{metered:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_as_fast_as_it_may_be() {
    const SIZE: usize = 256 << 10;
    let world = World::new(&[80], json!({ "bandwidth": "64Ki" }));
    world.listen(
        80,
        serves(|_, request| async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            full(if body.is_empty() {
                Bytes::from(vec![0; SIZE])
            } else {
                Bytes::new()
            })
        }),
    );
    for (body, size) in [(Bytes::new(), SIZE), (vec![0; SIZE].into(), 0)] {
        let began = Instant::now();
        let answered = world.send(request(Method::PUT, full(body))).await;
        assert_eq!(text(answered).await.len(), size);
        // A second's worth may go at once.
        let took = began.elapsed().as_secs_f64();
        assert!((2.9..3.5).contains(&took), "{took}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_over_to_a_protocol_that_was_not_asked_for() {
    let world = World::new(&[80], json!({}));
    let switches: Target = Arc::new(|mut stream: Stream| {
        async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            // Until it is dropped at the other end.
            read_head(&mut stream).await;
        }
        .boxed()
    });
    world.listen(80, switches);
    let answered = world.get().await;
    assert!(
        matches!(answered, Err(TunnelError::Switched(_))),
        "{answered:?}"
    );
}
