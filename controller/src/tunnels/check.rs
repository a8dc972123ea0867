//! Asks the targets of one tunnel how they are, every so often. What is found goes to [`Health`](super::health).

mod datagrams;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use hive_manifests::tunnel::{Protocol, TargetProtocol, TunnelTarget};
use hive_proto::flow::FlowEnd;
use hive_proto::link::Stream;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::health::Evidence;
use super::live::Live;
use super::open::OpenError;
use super::table::Tunnel;
use super::{LINK_PATIENCE, Tunnels};
use crate::ingress::to_http2;

/// The first check follows within this time: those of all tunnels of a controller that starts do not come at once.
const FIRST: Duration = Duration::from_secs(1);

/// Why a target is not well.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error(transparent)]
    Unreached(#[from] OpenError),
    #[error("GET {path} is answered with {status}")]
    Status { path: String, status: StatusCode },
    #[error("GET {path} is not answered in HTTP")]
    Broken {
        path: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the node broke the flow off")]
    Flow(#[source] FlowEnd),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{path} at {host} is not what can be asked for")]
    Request { host: String, path: String },
}

impl Unwell {
    /// In one CamelCase word.
    fn reason(&self) -> &str {
        match self {
            Self::Unreached(error) => error.reason(),
            Self::Status { .. } => "BadStatus",
            Self::Broken { .. } => "NoHttp",
            Self::Flow(_) => "LinkFailed",
            Self::Late(_) => "Timeout",
            Self::Request { .. } => "BadRequest",
        }
    }
}

/// Checks until the tunnel ends. Without it nothing is known but what connections meet.
pub async fn run(tunnels: Tunnels, live: Arc<Live>) {
    let ended = live.ended().clone();
    let checking = async {
        let mut changes = live.changes();
        tokio::time::sleep(FIRST.mul_f64(random())).await;
        loop {
            let tunnel = changes.borrow_and_update().clone();
            let checks = tunnel.spec.targets.iter();
            join_all(checks.map(|target| check(&tunnels, &tunnel, target))).await;
            let rest = between(tunnel.spec.health_check.interval.0, random());
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    };
    ended.run_until_cancelled(checking).await;
}

/// From nine tenths of the interval to eleven: controllers that began together do not stay together.
fn between(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}

/// From 0 to 1.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

async fn check(tunnels: &Tunnels, tunnel: &Tunnel, target: &TunnelTarget) {
    let node = std::slice::from_ref(&target.node);
    tunnels.opener.links().linked(node, LINK_PATIENCE).await;
    let (by, reached) = match (tunnel.spec.protocol, &tunnel.spec.health_check.path) {
        (Protocol::Udp, _) => datagrams::reach(tunnels, tunnel, target).await,
        (_, Some(_)) => (Evidence::Request, reach(tunnels, tunnel, target).await),
        (_, None) => (Evidence::Connection, reach(tunnels, tunnel, target).await),
    };
    match reached {
        Ok(latency) => tunnels.health.answered(&tunnel.key, target, by, latency),
        Err(unwell) => {
            let (reason, message) = (unwell.reason(), unwell.to_string());
            tracing::debug!(tunnel = %tunnel.key, node = target.node, address = target.address(), reason, "target is not well");
            tunnels
                .health
                .failed(&tunnel.key, target, by, reason, message);
        }
    }
}

/// How long it took to get a connection, on which all was well.
async fn reach(
    tunnels: &Tunnels,
    tunnel: &Tunnel,
    target: &TunnelTarget,
) -> Result<Duration, Unwell> {
    let health = &tunnel.spec.health_check;
    let within = health.timeout.0;
    let began = Instant::now();
    let mut stream = tunnels.opener.open(&tunnel.key, target, within).await?;
    let latency = began.elapsed();
    let asked = async {
        match &health.path {
            Some(path) => ask(stream, tunnel, path).await,
            None => {
                // Services write a line about connections that break without an end.
                let _ = stream.shutdown().await;
                Ok(())
            }
        }
    };
    match tokio::time::timeout(within, asked).await {
        Ok(asked) => asked.map(|()| latency),
        Err(_) => Err(Unwell::Late(within)),
    }
}

/// Well is who answers with 200 to 399, as functions that are asked whether they are ready.
async fn ask(stream: Stream, tunnel: &Tunnel, path: &str) -> Result<(), Unwell> {
    let host = &tunnel.host;
    let broken = |source| Unwell::Broken {
        path: path.to_owned(),
        source,
    };
    let mut request = request(host, path).ok_or_else(|| Unwell::Request {
        host: host.clone(),
        path: path.to_owned(),
    })?;
    let stream = TokioIo::new(stream);
    let answered = match tunnel.spec.target_protocol {
        TargetProtocol::Http1 => {
            let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            driven(connection, sender.send_request(request)).await
        }
        TargetProtocol::H2c => {
            to_http2(&mut request);
            let handshake = http2::handshake(TokioExecutor::new(), stream);
            let (mut sender, connection) = handshake.await.map_err(broken)?;
            driven(connection, sender.send_request(request)).await
        }
    };
    let status = answered.map_err(broken)?.status();
    match status.is_success() || status.is_redirection() {
        true => Ok(()),
        false => Err(Unwell::Status {
            path: path.to_owned(),
            status,
        }),
    }
}

/// What comes of an answer, while its connection goes on.
async fn driven(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> hyper::Result<Response<Incoming>> {
    let driving = async {
        // Where it fails, the answer does.
        let _ = connection.await;
        std::future::pending::<hyper::Result<Response<Incoming>>>().await
    };
    tokio::select! {
        answered = answer => answered,
        never = driving => never,
    }
}

fn request(host: &str, path: &str) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static("hive-probe"));
    Some(request)
}
