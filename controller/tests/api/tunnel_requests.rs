//! Requests to tunnels at the ingress: over a real link, to a node that connects to targets as an agent does.

mod bodies;
mod heads;
mod upgrades;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use hive_controller::ingress::{self, Forwarder, Ingress};
use hive_controller::traffic::Loads;
use hive_controller::tunnels::{self, Tunnels};
use hive_manifests::Resource;
use hive_proto::frame;
use hive_proto::link::{Link, Purpose, Stream};
use hive_proto::tunnel::REFUSED;
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use hive_tunnels::{Counts, RelayLimits, abort, relay};
use http::{Method, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agents::Swarm;
use crate::harness::in_time;

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
        let at = target.local_addr().unwrap();
        Self::with(&[("photos", spec("photos.example", at))]).await
    }

    async fn until(&self, wanted: impl Fn(&Tunnels) -> bool) {
        let reached = async {
            while !wanted(&self.tunnels) {
                tokio::task::yield_now().await;
            }
        };
        in_time(reached).await;
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
        in_time(answered).await.unwrap()
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

fn spec(host: &str, target: SocketAddr) -> Value {
    json!({ "targets": [{ "node": "pi", "port": target.port() }], "http": { "host": host } })
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

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
