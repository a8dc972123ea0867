//! The session: one gRPC stream with one controller, in which this node hears what it must run and
//! says how it goes. When it breaks, it goes on with the next controller at once.
//!
//! Statuses and events are sent as they change, usage on a timer and with it what the disk holds, if that changed,
//! what is metered until it is held. What is heard lands in the ledger before anybody acts on it.

mod choice;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_identity::StoreError;
use hive_proto::USAGE_INTERVAL;
use hive_proto::grpc;
use hive_proto::link::{Link, LinkError};
use hive_proto::v1;
use hive_proto::v1::gateway_client::GatewayClient;
use hive_proto::v1::{agent_message, controller_message};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::declared::{DeclareError, Declared};
use crate::desired::Refused;
use crate::events::Events;
use crate::ledger::LedgerError;
use crate::links::Links;
use crate::metering::Metering;
use crate::reconcile::holdings::{self, Holdings};
use crate::reconcile::report::Told;
use crate::usage::Scope;
use choice::{choose, wait_after};

/// For the controller to take the session, or to take a message when the stream is full.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages on their way out: a report and usage, and some room.
const OUTBOX: usize = 8;

/// A session that lived this long was a good one: the rounds that failed before it are forgotten.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Of commands: from this level on every controller adds up usage that is told in parts.
const PARTIAL_USAGE: u32 = 5;

/// Likewise: from this level on they count what is metered.
const METERING: u32 = 6;

/// Holds what a session needs; [`Session::run`] is the one task that has it.
pub struct Session {
    pub info: v1::NodeInfo,
    pub declared: Declared,
    pub links: Links,
    pub told: watch::Receiver<Arc<Told>>,
    pub holdings: watch::Receiver<Holdings>,
    pub events: Events,
    /// What the machine and its functions use now.
    pub usage: Box<dyn FnMut(Scope) -> v1::Usage + Send>,
    pub metering: Metering,
    /// The endpoint of the controller with which a session is held, for whoever looks on.
    pub held_with: watch::Sender<Option<String>>,
    /// There was a session before.
    pub moved: bool,
}

#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the controller ended the session")]
    Closed,
    #[error("the controller refuses the session: {}", .0.message())]
    Status(Box<Status>),
    #[error("the controller takes no messages")]
    Stalled,
    #[error("nothing is heard from the controller")]
    Silent,
    #[error("desired state was refused")]
    Refused(#[source] Refused),
    #[error("the ledger cannot be written")]
    Ledger(#[source] LedgerError),
    #[error("the list of controllers cannot be written")]
    Controllers(#[source] StoreError),
    #[error("there is a better link to the same controller")]
    Replaced,
    #[error("the link to the controller ended")]
    Link(#[source] LinkError),
}

impl SessionEnd {
    /// gRPC only sees a connection that broke. Where the link ended, how it did is what a person
    /// must read: that this node was removed, for one.
    fn because_of(self, link: &Link) -> Self {
        match (self, link.end()) {
            (Self::Closed | Self::Status(_) | Self::Stalled, Some(end)) => Self::Link(end),
            (end, _) => end,
        }
    }
}

impl Session {
    /// Holds one session after another until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.hold()).await;
    }

    async fn hold(&mut self) {
        let mut changes = self.links.changes();
        let mut last = None;
        let mut failed: BTreeSet<String> = BTreeSet::new();
        let mut rounds = 0;
        loop {
            changes.mark_unchanged();
            let live = self.links.current();
            let endpoints: Vec<&str> = live.iter().map(|(endpoint, _)| endpoint.as_str()).collect();
            // One whose link is a new one gets another chance.
            failed.retain(|endpoint| endpoints.contains(&endpoint.as_str()));
            let Some(chosen) = choose(&endpoints, last.as_deref(), &failed) else {
                // A link that comes meanwhile is tried at once.
                tokio::select! {
                    () = tokio::time::sleep(wait_after(rounds)), if !live.is_empty() => {
                        rounds += 1;
                        failed.clear();
                    }
                    changed = changes.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let (endpoint, link) = live[chosen].clone();
            let begun = Instant::now();
            let end = self.talk(&endpoint, link.clone(), changes.clone());
            let end = end.await.because_of(&link);
            tracing::info!(
                endpoint,
                end = &end as &dyn std::error::Error,
                "session ended"
            );
            if begun.elapsed() >= STABLE_AFTER {
                failed.clear();
                rounds = 0;
            }
            if !matches!(end, SessionEnd::Replaced) {
                failed.insert(endpoint.clone());
            }
            last = Some(endpoint);
        }
    }

    /// One session over one link, to its end. `links` tells what came and went since that link was chosen.
    async fn talk(
        &mut self,
        endpoint: &str,
        link: Link,
        links: watch::Receiver<u64>,
    ) -> SessionEnd {
        let (outbox, sent) = mpsc::channel(OUTBOX);
        // Before the first report takes what waits: what comes while the controller answers is told, too.
        let news = News {
            events: self.events.changes(),
            links,
        };
        let mut talk = Talk {
            session: self,
            outbox,
            reported: None,
            holdings: holdings::Told::default(),
            scope: Scope::Whole,
            level: 0,
        };
        match talk.begin(link.clone(), sent).await {
            Ok(inbound) => {
                tracing::info!(endpoint, link = link.id(), "session begins");
                let held_with = talk.session.held_with.clone();
                held_with.send_replace(Some(endpoint.to_owned()));
                talk.session.moved = true;
                let end = talk.exchange(endpoint, link, inbound, news).await;
                held_with.send_replace(None);
                talk.session.metering.set_taken(false);
                end.unwrap_or_else(|end| end)
            }
            Err(end) => end,
        }
    }
}

/// Counts what changes around a session, from before it began.
struct News {
    events: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
}

/// A session under way.
struct Talk<'a> {
    session: &'a mut Session,
    outbox: mpsc::Sender<v1::AgentMessage>,
    reported: Option<Arc<Told>>,
    holdings: holdings::Told,
    /// Of the next usage.
    scope: Scope,
    /// What every controller of the swarm understands.
    level: u32,
}

type Inbound = tonic::Streaming<v1::ControllerMessage>;

impl Talk<'_> {
    async fn begin(
        &mut self,
        link: Link,
        sent: mpsc::Receiver<v1::AgentMessage>,
    ) -> Result<Inbound, SessionEnd> {
        let desired = self.session.declared.desired().borrow().clone();
        let held = desired.held();
        let uids = held.values().map(|held| held.assignment().uid.clone());
        let hello = v1::Hello {
            info: Some(self.session.info.clone()),
            epoch: desired.epoch,
            generation: desired.generation,
            hash: desired.hash.0.to_vec(),
            held_uids: uids.collect(),
            held: held.keys().map(|hash| hash.0.to_vec()).collect(),
            moved: self.session.moved,
        };
        self.send(agent_message::Kind::Hello(hello)).await?;
        self.report().await?;
        let mut gateway = GatewayClient::new(grpc::channel(link));
        let answer = gateway.session(ReceiverStream::new(sent));
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(SessionEnd::Status(Box::new(status))),
            Err(_) => Err(SessionEnd::Stalled),
        }
    }

    async fn exchange(
        &mut self,
        endpoint: &str,
        link: Link,
        mut inbound: Inbound,
        mut news: News,
    ) -> Result<SessionEnd, SessionEnd> {
        let mut told = self.session.told.clone();
        let mut sealed = self.session.metering.sealed();
        let mut usage = tokio::time::interval(USAGE_INTERVAL);
        // After a sleep of the machine once is enough.
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was heard when usage was sent last, until something more is.
        let mut unanswered = None;
        let silence = tokio::time::sleep(ANSWER_TIMEOUT);
        tokio::pin!(silence);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.hear(message).await?,
                    Ok(None) => return Ok(SessionEnd::Closed),
                    Err(status) => return Ok(SessionEnd::Status(Box::new(status))),
                },
                // While the agent stops nobody tells any more, and what was used is sent all the same.
                Ok(()) = told.changed() => self.report().await?,
                changed = news.events.changed() => {
                    changed.map_err(|_| SessionEnd::Closed)?;
                    self.report().await?;
                }
                changed = sealed.changed() => {
                    changed.map_err(|_| SessionEnd::Closed)?;
                    self.send_metering().await?;
                }
                _ = usage.tick() => {
                    self.session.events.flush();
                    self.send_holdings().await?;
                    let usage = (self.session.usage)(self.scope);
                    self.send(agent_message::Kind::Usage(usage)).await?;
                    // A controller of the release before takes what it gets for all there is.
                    if self.level >= PARTIAL_USAGE {
                        self.scope = Scope::Changed;
                    }
                    unanswered = link.heard();
                    silence.as_mut().reset(tokio::time::Instant::now() + ANSWER_TIMEOUT);
                }
                // Sooner than the link itself would find out: another controller serves meanwhile, and
                // costs nothing.
                () = &mut silence, if unanswered.is_some() => {
                    if link.heard() == unanswered {
                        return Ok(SessionEnd::Silent);
                    }
                    unanswered = None;
                }
                changed = news.links.changed() => {
                    changed.map_err(|_| SessionEnd::Closed)?;
                    let now = self.session.links.current();
                    let better = now.iter().any(|(other, newer)| other == endpoint && newer.id() != link.id());
                    if better {
                        return Ok(SessionEnd::Replaced);
                    }
                }
            }
        }
    }

    /// Sends the statuses and what waits of events, unless that was sent already.
    async fn report(&mut self) -> Result<(), SessionEnd> {
        let told = self.session.told.borrow_and_update().clone();
        let events = self.session.events.take();
        if events.is_empty() && self.reported.as_ref() == Some(&told) {
            return Ok(());
        }
        let report = v1::Report {
            epoch: told.epoch,
            generation: told.generation,
            assignments: told.statuses.clone(),
            events: events.clone(),
        };
        let sent = self.send(agent_message::Kind::Report(report)).await;
        match &sent {
            Ok(()) => self.reported = Some(told),
            Err(_) => self.session.events.put_back(events),
        }
        sent
    }

    /// Sends which artifacts are here, if this session has not told so. It is no haste: what is fetched at once
    /// goes together.
    async fn send_holdings(&mut self) -> Result<(), SessionEnd> {
        let now = self.session.holdings.borrow().clone();
        match self.holdings.news(&now) {
            Some(news) => self.send(agent_message::Kind::Holdings(news)).await,
            None => Ok(()),
        }
    }

    /// Sends what was used and is not known to be held, if the swarm can hold it.
    async fn send_metering(&mut self) -> Result<(), SessionEnd> {
        let sealed = self.session.metering.sealed().borrow().clone();
        match sealed.filter(|_| self.level >= METERING) {
            Some(sealed) => {
                self.send(agent_message::Kind::Metering((*sealed).clone()))
                    .await
            }
            None => Ok(()),
        }
    }

    async fn send(&mut self, kind: agent_message::Kind) -> Result<(), SessionEnd> {
        let message = v1::AgentMessage { kind: Some(kind) };
        self.outbox
            .send_timeout(message, ANSWER_TIMEOUT)
            .await
            .map_err(|error| match error {
                mpsc::error::SendTimeoutError::Timeout(_) => SessionEnd::Stalled,
                mpsc::error::SendTimeoutError::Closed(_) => SessionEnd::Closed,
            })
    }

    async fn hear(&mut self, message: v1::ControllerMessage) -> Result<(), SessionEnd> {
        let declared = self.session.declared.clone();
        match message.kind {
            Some(controller_message::Kind::Desired(desired)) => {
                match blocking(move || declared.declare(desired)).await {
                    Ok(()) => Ok(()),
                    // What the controller takes for held isn't: the next Hello tells it.
                    // Of a swarm that is no more there are better controllers elsewhere.
                    Err(DeclareError::Refused(
                        refused @ (Refused::NotHeld(_) | Refused::LeftBehind { .. }),
                    )) => Err(SessionEnd::Refused(refused)),
                    // A newer set may come; there is nothing better to be had elsewhere.
                    Err(DeclareError::Refused(refused)) => {
                        tracing::warn!(%refused, "refused desired state");
                        Ok(())
                    }
                    Err(DeclareError::Ledger(error)) => Err(SessionEnd::Ledger(error)),
                }
            }
            Some(controller_message::Kind::Controllers(controllers)) => {
                let is_first = self.level < METERING && controllers.level >= METERING;
                self.level = controllers.level;
                blocking(move || declared.declare_controllers(&controllers))
                    .await
                    .map_err(SessionEnd::Controllers)?;
                if is_first {
                    self.session.metering.set_taken(true);
                    self.send_metering().await?;
                }
                Ok(())
            }
            Some(controller_message::Kind::Metered(metered)) => {
                let metering = self.session.metering.clone();
                blocking(move || metering.held(&metered))
                    .await
                    .map_err(SessionEnd::Ledger)
            }
            // A newer controller may say more than this agent knows.
            None => Ok(()),
        }
    }
}

/// Disk syncs wait elsewhere than where guests run.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
