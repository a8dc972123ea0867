//! A network between simulated machines: late, lossy, cut one way or both, twice or out of order.
//!
//! It takes the place of links under the generated gRPC client and server, so that everything from
//! Raft's messages to their encoding is the real thing.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hive_proto::v1::peers_server::PeersServer;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::faults::{Fault, Seen};
use super::planted::Planted;
use super::service::Answering;
use super::stream::SimulatedStream;
use super::world;
use crate::peers::{Channel, Connect, Route};

/// One way, in a network that is well.
const LATENCY_US: u64 = 4_000;

/// For one message in a network that is not; beyond an election's time.
const LATE_US: u64 = 1_500_000;

/// Of calls and of sequences of appends, as many go through streams that keep their order; the
/// others are single calls, as to a controller of an older version.
const STREAMS_PERCENT: u64 = 60;

/// Until a link over which nothing comes is given up (see `peers/routes.rs`).
const SILENCE: Duration = Duration::from_secs(3);

type Request = http::Request<Body>;
type Response = http::Response<Body>;

#[derive(Clone)]
pub struct Fabric {
    wires: Arc<Mutex<Wires>>,
    seen: Seen,
    planted: Option<Planted>,
}

#[derive(Default)]
struct Wires {
    serving: BTreeMap<u64, PeersServer<Answering>>,
    answering: BTreeMap<u64, Answering>,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    loss_percent: u64,
    late_percent: u64,
    twice_percent: u64,
}

impl Fabric {
    pub fn new(seen: Seen, planted: Option<Planted>) -> Self {
        Self {
            wires: Arc::default(),
            seen,
            planted,
        }
    }

    /// Whether an append to there is said to be there without being there.
    fn lies(&self, from: u64, to: u64, path: &str) -> bool {
        let lies = match self.planted {
            Some(Planted::AcknowledgeBeforeCommit) => true,
            Some(Planted::QuorumMinusOne) => to == if from == 1 { 2 } else { 1 },
            _ => false,
        };
        lies && path.ends_with("/Append")
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("no panics inside")
    }

    pub fn connect(&self, from: u64) -> Connect {
        let fabric = self.clone();
        Box::new(move |to, _| {
            let channel = Channel::new(Wire {
                fabric: fabric.clone(),
                from,
                to,
            });
            let fabric = fabric.clone();
            let stream = move || {
                let streams = fabric.has_streams() && world::chance(STREAMS_PERCENT);
                streams.then(|| SimulatedStream::open(fabric.clone(), from, to))
            };
            Route::over(channel, Box::new(stream))
        })
    }

    /// The liars answer single calls.
    fn has_streams(&self) -> bool {
        !matches!(
            self.planted,
            Some(Planted::AcknowledgeBeforeCommit | Planted::QuorumMinusOne)
        )
    }

    /// Who answers over there, if the machine is up.
    pub fn answering(&self, to: u64) -> Option<Answering> {
        self.wires().answering.get(&to).cloned()
    }

    pub fn serve(&self, id: u64, service: Answering) {
        let mut wires = self.wires();
        wires.answering.insert(id, service.clone());
        wires.serving.insert(id, PeersServer::new(service));
    }

    pub fn stop_serving(&self, id: u64) {
        let mut wires = self.wires();
        wires.serving.remove(&id);
        wires.answering.remove(&id);
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.wires().cut.insert((from, to));
    }

    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.loss_percent = 0;
        wires.late_percent = 0;
        wires.twice_percent = 0;
    }

    pub fn disturb(&self, loss: u64, late: u64, twice: u64) {
        let mut wires = self.wires();
        wires.loss_percent = loss;
        wires.late_percent = late;
        wires.twice_percent = twice;
    }

    /// One message's way. If it is lost, that may be known only after a while.
    pub async fn pass(&self, from: u64, to: u64) -> Result<(), Status> {
        let (lost, late, cut) = {
            let wires = self.wires();
            (
                world::chance(wires.loss_percent),
                world::chance(wires.late_percent),
                wires.cut.contains(&(from, to)),
            )
        };
        let us = if late { LATE_US } else { LATENCY_US };
        if late {
            self.seen.happened(Fault::Late);
        }
        world::Sleep::of(Duration::from_micros(1 + world::below(us))).await;
        if lost {
            self.seen.happened(Fault::Lost);
        }
        if !lost && !cut && !self.wires().cut.contains(&(from, to)) {
            return Ok(());
        }
        if world::chance(50) {
            world::Sleep::of(SILENCE).await;
        }
        Err(Status::unavailable("the simulated network broke"))
    }

    /// Has the request answered over there; the answer is not yet on its way back.
    fn deliver(&self, to: u64, request: Request) -> oneshot::Receiver<Response> {
        let (done, answer) = oneshot::channel();
        let Some(mut server) = self.wires().serving.get(&to).cloned() else {
            return answer;
        };
        world::spawn_on(to, async move {
            let Ok(response) = server.call(request).await;
            // The caller may have given up.
            let _ = done.send(response);
        });
        answer
    }

    async fn call(self, from: u64, to: u64, request: Request) -> Result<Response, Status> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let streams = path.ends_with("/InstallSnapshot");
        // What Raft repeats by itself may arrive twice; other calls the link delivers once at most.
        let repeats = path.ends_with("/Append") || path.ends_with("/Vote");
        let (mut request, again) = if streams {
            (http::Request::from_parts(head, body), None)
        } else {
            let body = body.collect().await?.to_bytes();
            world::record(&body);
            let twice = repeats && world::chance(self.wires().twice_percent);
            let again = twice.then(|| request_of(&head, body.clone()));
            (request_of(&head, body), again)
        };
        if self.lies(from, to, &path) {
            let liar = Answering {
                replica: None,
                seen: self.seen.clone(),
            };
            // Sent all the same, where the quorum is what it should be.
            if self.planted == Some(Planted::AcknowledgeBeforeCommit) {
                let fabric = self.clone();
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                request = request_of(&head, body.clone());
                let sent = request_of(&head, body);
                world::spawn_on(world::OUTSIDE, async move {
                    if fabric.pass(from, to).await.is_ok() {
                        drop(fabric.deliver(to, sent));
                    }
                });
            }
            let Ok(answer) = PeersServer::new(liar).call(request).await;
            return Ok(answer);
        }
        self.pass(from, to).await?;
        let answer = self.deliver(to, request);
        if let Some(again) = again {
            let fabric = self.clone();
            world::spawn_on(world::OUTSIDE, async move {
                if fabric.pass(from, to).await.is_ok() {
                    fabric.seen.happened(Fault::Twice);
                    drop(fabric.deliver(to, again));
                }
            });
        }
        let answer = answer
            .await
            .map_err(|_| Status::unavailable("the other machine is down"))?;
        self.pass(to, from).await?;
        Ok(answer)
    }
}

fn request_of(head: &http::request::Parts, body: Bytes) -> Request {
    http::Request::from_parts(head.clone(), Body::new(Full::new(body)))
}

/// What one machine has of another.
#[derive(Clone)]
struct Wire {
    fabric: Fabric,
    from: u64,
    to: u64,
}

impl Service<Request> for Wire {
    type Response = Response;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.fabric.clone().call(self.from, self.to, request))
    }
}
