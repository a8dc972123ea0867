//! Requests to what tunnels lead to: HTTP/1.1 on connections to their targets, reused while idle, or HTTP/2 on
//! connections that requests share.
//!
//! Bodies stream in both directions, however long they are. A request goes to another target where nothing is lost
//! by that: where nothing of it was sent, or where it can be sent again and does no harm twice. What breaks is cut,
//! never ended.

mod body;
mod kept;
mod sender;
mod shared;
#[cfg(test)]
mod tests;
mod upgrade;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hive_manifests::tunnel::{TargetProtocol, TunnelTarget};
use hive_proto::invoke::REASON;
use hive_proto::link::Stream;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout_at};

use super::repeat::{BodyError, Copy};
use crate::gateway::Body;
use crate::spans::AnsweredBy;
use crate::state::Key;
use crate::tunnels::Tunnels;
use crate::tunnels::health::UnderWay;
use crate::tunnels::live::{CLIENT_BROKE, Live, TARGET_BROKE, TARGET_SILENT, TooMany};
use crate::tunnels::open::OpenError;
use body::{Download, Upload};
use kept::{Connection, Kept};
use sender::Sender;
pub use sender::to_http2;
use shared::{Http2, Shared};
pub use upgrade::{Upgrade, announce};
use wire::{Activity, Wire};

/// For a target to begin its answer, from the last byte of the request that moved: as long as proxies wait in
/// general. Who takes longer to think sends something meanwhile.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);

/// A controller that just started is dialled by the nodes within this time as a rule. Who asks before rather waits
/// than reads of it.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// After it no further target is asked for a connection: whoever waits has given up, or soon will.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// Targets that get to see a request. Where they break off one after the other, it is the request that they
/// cannot bear.
const MAX_TRIES: usize = 3;

/// A clone is the same.
#[derive(Clone)]
pub struct Proxy {
    tunnels: Tunnels,
    kept: Kept,
    shared: Shared,
}

/// Why no target answered.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("tunnel {0} has no target here yet")]
    NoTarget(String),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("no target of tunnel {tunnel} took a connection")]
    Unopened {
        tunnel: String,
        #[source]
        source: OpenError,
    },
    #[error("the target of tunnel {tunnel} broke the connection before it answered")]
    Lost {
        tunnel: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the target of tunnel {0} did not begin to answer in time")]
    Silent(String),
    #[error("the target of tunnel {0} went over to another protocol, which nobody asked for")]
    Switched(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Of a connection that others waited for as well.
    #[error(transparent)]
    Common(Arc<TunnelError>),
}

impl TunnelError {
    /// No other target would do better.
    fn is_final(&self) -> bool {
        match self {
            Self::Common(error) => error.is_final(),
            error => matches!(error, Self::Silent(_) | Self::Body(_)),
        }
    }
}

/// A request that came to nothing at one target.
struct Failed {
    error: TunnelError,
    /// Given back if nothing of it was sent.
    request: Option<Request<Body>>,
    /// The connection had waited for it, and the target may have closed it at that very moment.
    reused: bool,
}

impl Proxy {
    pub fn new(tunnels: Tunnels) -> Self {
        Self {
            tunnels,
            kept: Kept::default(),
            shared: Shared::default(),
        }
    }

    pub fn carried(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Answers a request whose headers are as they go on. `copy` is the same, where it can be sent again.
    pub async fn answer(
        &self,
        tunnel: &Key,
        request: Request<Body>,
        copy: Option<Copy>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Body>, TunnelError> {
        let name = || name_of(tunnel);
        let live = self.tunnels.get(tunnel);
        let live = live.ok_or_else(|| TunnelError::NoTarget(name()))?;
        let place = live.begin()?;
        let (mut response, connection, under_way) = self.send(&live, request, copy).await?;
        // In the version before, what is cut looks like an end.
        *response.version_mut() = Version::HTTP_11;
        let by = AnsweredBy {
            node: connection.target.node.clone(),
            revision: None,
        };
        response.extensions_mut().insert(by);
        // There is one only where Hive answers.
        response.headers_mut().remove(REASON);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or_else(|| TunnelError::Switched(name()))?;
            return Ok(upgrade.join(response, live, (place, under_way)));
        }
        let kept = self.kept.clone();
        let tunnel = tunnel.clone();
        Ok(response.map(|body| {
            Download::new(body, kept, tunnel, connection, place, under_way).boxed_unsync()
        }))
    }

    /// Sends it to one target after the other until one answers.
    async fn send(
        &self,
        live: &Arc<Live>,
        request: Request<Body>,
        mut copy: Option<Copy>,
    ) -> Result<(Response<Incoming>, Connection, UnderWay), TunnelError> {
        let tunnel = live.tunnel();
        let targets = self.tunnels.health.choose(&tunnel.key);
        self.linked(&tunnel.key, &targets).await;
        let is_awaited = Arc::new(AtomicBool::new(false));
        let mut next = Some(match request.body().is_end_stream() {
            true => request,
            false => request.map(|body| Upload::new(body, is_awaited.clone()).boxed_unsync()),
        });
        let until = Instant::now() + OPEN_PATIENCE;
        let (mut tries, mut last) = (0, None);
        'targets: for target in &targets {
            let mut fresh = false;
            while let Some(request) = next.take().or_else(|| copy.as_ref().map(Copy::request)) {
                let under_way = self.tunnels.health.begin(&tunnel.key, target);
                let asked = self.ask(live, target, request, fresh, &is_awaited);
                match asked.await {
                    Ok((response, connection)) => return Ok((response, connection, under_way)),
                    Err(failed) if failed.error.is_final() => return Err(failed.error),
                    Err(Failed {
                        error,
                        request,
                        reused,
                    }) => {
                        last = Some(error);
                        next = request;
                        if next.is_some() {
                            if Instant::now() >= until {
                                break 'targets;
                            }
                            break;
                        }
                        // It may have been performed, so only what does no harm twice goes on.
                        copy = copy.filter(|copy| copy.method().is_idempotent());
                        tries += 1;
                        if tries == MAX_TRIES {
                            break 'targets;
                        }
                        if !reused {
                            break;
                        }
                        fresh = true;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| TunnelError::NoTarget(name_of(&tunnel.key))))
    }

    /// Waits for a node while one is expected: not where it is known that none can be reached.
    async fn linked(&self, tunnel: &Key, targets: &[TunnelTarget]) {
        let known = self.tunnels.health.snapshot(tunnel);
        if known.iter().all(|it| it.healthy == Some(false)) {
            return;
        }
        let nodes: Vec<String> = targets.iter().map(|it| it.node.clone()).collect();
        let links = self.tunnels.opener.links();
        links.linked(&nodes, LINK_PATIENCE).await;
    }

    /// `fresh`: on a connection of its own.
    async fn ask(
        &self,
        live: &Arc<Live>,
        target: &TunnelTarget,
        mut request: Request<Body>,
        fresh: bool,
        is_awaited: &AtomicBool,
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        loop {
            let connected = self.connection(live, target, fresh).await;
            let (mut connection, reused) = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    return Err(Failed {
                        error,
                        request: Some(request),
                        reused: false,
                    });
                }
            };
            let answer = connection.sender.send(request);
            let (error, unsent) = match heard(answer, &connection.activity).await {
                Some(Ok(response)) => return Ok((response, connection)),
                Some(Err(mut failed)) => match failed.take_message() {
                    // An idle connection that its other end closed meanwhile; the next is another.
                    Some(unsent) if reused => {
                        request = unsent;
                        self.give_up(&connection);
                        continue;
                    }
                    unsent => (broken(live, failed.into_error()), unsent),
                },
                None if is_awaited.load(Ordering::Relaxed) => (BodyError::Slow.into(), None),
                None => (silent(live), None),
            };
            self.give_up(&connection);
            return Err(Failed {
                error,
                request: unsent,
                reused,
            });
        }
    }

    /// A connection to a target, and whether others were sent requests on it before.
    async fn connection(
        &self,
        live: &Arc<Live>,
        target: &TunnelTarget,
        fresh: bool,
    ) -> Result<(Connection, bool), TunnelError> {
        let tunnel = live.tunnel();
        let link = self.tunnels.opener.links().of(&target.node);
        let link = link.map(|link| link.id());
        if tunnel.spec.target_protocol == TargetProtocol::H2c {
            let place = shared::Place {
                tunnel: tunnel.key.clone(),
                target: target.clone(),
                link: link.unwrap_or_default(),
            };
            return self.share(live, place).await;
        }
        let link = link.filter(|_| !fresh);
        let kept = link.and_then(|link| self.kept.take(&tunnel.key, target, link));
        Ok(match kept {
            Some(kept) => (kept, true),
            None => (self.connect(live, target).await?, false),
        })
    }

    async fn share(
        &self,
        live: &Arc<Live>,
        place: shared::Place,
    ) -> Result<(Connection, bool), TunnelError> {
        let (target, link) = (place.target.clone(), place.link);
        let opens = {
            let (proxy, live, target) = (self.clone(), live.clone(), target.clone());
            async move { proxy.connect_http2(&live, &target).await.map_err(Arc::new) }
        };
        let (opened, share, was_open) = self.shared.take(place, opens).await;
        let Http2 { sender, activity } = opened.map_err(TunnelError::Common)?;
        let connection = Connection {
            target,
            link,
            sender: Sender::Http2(sender, share),
            activity,
        };
        Ok((connection, was_open))
    }

    /// Nobody is to wait for a connection on which something failed.
    fn give_up(&self, connection: &Connection) {
        if let Sender::Http2(_, share) = &connection.sender {
            self.shared.forget(share);
        }
    }

    /// Bytes to a target and back, and the id of the link in which they go.
    async fn wire(
        &self,
        live: &Arc<Live>,
        target: &TunnelTarget,
    ) -> Result<(Wire<Stream>, u64), TunnelError> {
        let opened = self.tunnels.open(live, target).await;
        let stream = opened.map_err(|source| TunnelError::Unopened {
            tunnel: name_of(&live.tunnel().key),
            source,
        })?;
        let link = stream.link().id();
        Ok((Wire::new(stream, live.clone()), link))
    }

    async fn connect_http2(
        &self,
        live: &Arc<Live>,
        target: &TunnelTarget,
    ) -> Result<Http2, TunnelError> {
        let (wire, link) = self.wire(live, target).await?;
        let activity = wire.activity();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(wire))
            .await
            .map_err(|source| TunnelError::Lost {
                tunnel: name_of(&live.tunnel().key),
                source,
            })?;
        // Ends when nobody has a sender any more, or with the tunnel.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(link, %error, "connection to a target ended");
            }
        });
        Ok(Http2 { sender, activity })
    }

    async fn connect(
        &self,
        live: &Arc<Live>,
        target: &TunnelTarget,
    ) -> Result<Connection, TunnelError> {
        let name = || name_of(&live.tunnel().key);
        let (wire, link) = self.wire(live, target).await?;
        let activity = wire.activity();
        let (sender, connection) =
            http1::handshake(TokioIo::new(wire))
                .await
                .map_err(|source| TunnelError::Lost {
                    tunnel: name(),
                    source,
                })?;
        // Owned by its sender and its answer: ends when both are dropped, or with the tunnel.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(link, %error, "connection to a target ended");
            }
        });
        Ok(Connection {
            target: target.clone(),
            link,
            sender: Sender::Http1(sender),
            activity,
        })
    }
}

/// As people call it.
pub fn name_of(tunnel: &Key) -> String {
    format!("{}/{}", tunnel.namespace, tunnel.name)
}

/// What it means that a connection ended before an answer began.
fn broken(live: &Live, source: hyper::Error) -> TunnelError {
    if source.is_user() {
        live.count_failure(CLIENT_BROKE);
        return BodyError::Cut.into();
    }
    if is_silence(&source) {
        return silent(live);
    }
    live.count_failure(TARGET_BROKE);
    TunnelError::Lost {
        tunnel: name_of(&live.tunnel().key),
        source,
    }
}

fn silent(live: &Live) -> TunnelError {
    live.count_failure(TARGET_SILENT);
    TunnelError::Silent(name_of(&live.tunnel().key))
}

/// The tunnel waits no longer than its connections may be idle.
fn is_silence(error: &hyper::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|it| it.kind() == std::io::ErrorKind::TimedOut)
    })
}

/// What comes of `answer`, unless nothing moves on its connection for too long.
async fn heard<T>(answer: impl Future<Output = T>, activity: &Activity) -> Option<T> {
    tokio::pin!(answer);
    let mut until = Instant::now() + HEAD_PATIENCE;
    loop {
        if let Ok(answer) = timeout_at(until, &mut answer).await {
            return Some(answer);
        }
        let later = activity.last() + HEAD_PATIENCE;
        if later <= until {
            return None;
        }
        until = later;
    }
}
