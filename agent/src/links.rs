//! Links to all controllers, kept up: one carries the session, the rest are warm, so that losing a
//! controller costs no reconnect. What controllers open on them is handed on; who they are comes
//! from the controllers themselves and changes while running.
//!
//! Only a controller is ever at the other end: the agent dials, and TLS proves it. It is checked
//! once more here, because what these streams may ask for rests on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_identity::{ExpectedController, LiveCredentials, Subject, tls};
use hive_proto::link::{Link, LinkError, LinkSettings, Maintained, Purpose, Stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::logs::Logs;
use crate::serve::{Server, invoke, log_stream};
use crate::tunnels::Tunnels;

/// The links there are. A clone is the same.
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    kept: Mutex<BTreeMap<String, Maintained>>,
    /// Counts what came and went: a wake-up, no data.
    changed: watch::Sender<u64>,
    /// Counts requests to dial all of them anew.
    anew: watch::Sender<u64>,
}

/// Answers what controllers open.
#[derive(Clone)]
pub struct Streams {
    pub server: Server,
    pub logs: Logs,
    pub tunnels: Tunnels,
    pub tasks: TaskTracker,
    /// Ends streams that are between two requests.
    pub stop: CancellationToken,
}

/// What links are made with.
pub struct Linking {
    pub live: LiveCredentials,
    pub settings: LinkSettings,
    pub streams: Streams,
}

impl Default for Links {
    fn default() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            changed: watch::Sender::new(0),
            anew: watch::Sender::new(0),
        }))
    }
}

impl Links {
    /// The links that live now, with their endpoints.
    pub fn current(&self) -> Vec<(String, Link)> {
        self.kept()
            .iter()
            .filter_map(|(endpoint, kept)| Some((endpoint.clone(), kept.current()?)))
            .filter(|(_, link)| link.end().is_none())
            .collect()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Drops all links and dials anew, now: the credentials are others.
    pub fn dial_anew(&self) {
        self.0.anew.send_modify(|count| *count += 1);
    }

    /// Keeps a link to each of the controllers until `stop`, then closes them.
    pub async fn keep(
        self,
        mut controllers: watch::Receiver<Arc<Vec<String>>>,
        linking: Linking,
        stop: CancellationToken,
    ) {
        let mut anew = self.0.anew.subscribe();
        loop {
            let wanted: BTreeSet<String> =
                controllers.borrow_and_update().iter().cloned().collect();
            let gone = self.take(|endpoint| !wanted.contains(endpoint));
            close(gone).await;
            for endpoint in wanted {
                if !self.kept().contains_key(&endpoint) {
                    self.begin(endpoint, &linking, &stop);
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = controllers.changed() => if changed.is_err() { break },
                changed = anew.changed() => {
                    if changed.is_err() { break }
                    let all = self.take(|_| true);
                    close(all).await;
                }
            }
        }
        let all = self.take(|_| true);
        close(all).await;
    }

    fn begin(&self, endpoint: String, linking: &Linking, stop: &CancellationToken) {
        // Any controller will do: addresses move from one to another.
        let tls = tls::link_client_config(&linking.live, ExpectedController::Any);
        let kept = Maintained::spawn(
            endpoint.as_str(),
            tls,
            linking.settings.clone(),
            stop.clone(),
        );
        tokio::spawn(follow(
            endpoint.clone(),
            kept.links(),
            linking.streams.clone(),
            self.0.changed.clone(),
        ));
        self.kept().insert(endpoint, kept);
    }

    fn take(&self, which: impl Fn(&str) -> bool) -> Vec<Maintained> {
        self.kept()
            .extract_if(.., |endpoint, _| which(endpoint))
            .map(|(_, kept)| kept)
            .collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Maintained>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close(links: Vec<Maintained>) {
    futures::future::join_all(links.into_iter().map(Maintained::stop)).await;
}

/// One task an endpoint: tells of the links that come and go, and sees to it that what is opened on
/// them is answered. Ends with what it follows.
async fn follow(
    endpoint: String,
    mut links: watch::Receiver<Option<Link>>,
    streams: Streams,
    changed: watch::Sender<u64>,
) {
    loop {
        let link = links.borrow_and_update().clone();
        match link {
            Some(link) if is_controller(&link) => {
                tracing::info!(
                    endpoint,
                    link = link.id(),
                    transport = %link.transport(),
                    "linked to a controller"
                );
                tokio::spawn(accept(link, streams.clone()));
            }
            Some(link) => link.close("agents link with controllers only"),
            None => tracing::debug!(endpoint, "no link"),
        }
        changed.send_modify(|count| *count += 1);
        if links.changed().await.is_err() {
            return;
        }
    }
}

fn is_controller(link: &Link) -> bool {
    link.peer()
        .is_some_and(|peer| matches!(peer.subject, Subject::Controller { .. }))
}

/// One task a link, as long as it lives. It goes on while the agent stops: requests that still come
/// are told at once to go elsewhere.
async fn accept(link: Link, streams: Streams) {
    loop {
        match link.accept().await {
            Ok((purpose, stream)) => streams.take(purpose, stream),
            Err(end @ LinkError::ClosedByPeer { .. }) => {
                // Closed for a reason, such as that this node was removed: people must read it.
                tracing::info!(link = link.id(), %end, "link ended");
                return;
            }
            Err(end) => {
                tracing::debug!(link = link.id(), %end, "link ended");
                return;
            }
        }
    }
}

impl Streams {
    fn take(&self, purpose: Purpose, stream: Stream) {
        let stop = self.stop.clone();
        match purpose {
            Purpose::Invoke => {
                let serving = invoke::serve(stream, self.server.clone(), stop);
                self.tasks.spawn(serving);
            }
            Purpose::Logs => {
                let serving = log_stream::serve(stream, self.logs.clone(), stop);
                self.tasks.spawn(serving);
            }
            Purpose::Tunnel => {
                let serving = self.tunnels.clone().serve(stream, stop);
                self.tasks.spawn(serving);
            }
            Purpose::TunnelUdp => {
                let serving = self.tunnels.clone().serve_datagrams(stream, stop);
                self.tasks.spawn(serving);
            }
            Purpose::Grpc | Purpose::Calls => {
                tracing::debug!(
                    ?purpose,
                    "a controller asked an agent for what agents do not serve"
                );
            }
        }
    }
}
