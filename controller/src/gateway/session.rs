//! One agent's session: its reports go up into statuses, its desired set comes down.
//!
//! Every wake-up rereads the state. The node's status names the session that wrote last: one that has
//! something to write puts itself there first, and one that finds there what it did not see when
//! it began ends itself. So a session that only moved to another controller writes nothing, and of
//! two that are held at once the one that was overtaken is silenced by the other's first write.

mod held;
mod machine;
mod metering;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use hive_manifests::Resource;
use hive_proto::desired::hash_of_hashes;
use hive_proto::v1::{
    AgentMessage, ControllerMessage, Controllers, Desired, DesiredEntry, Hello, Report,
    agent_message, controller_message, desired_entry,
};
use serde_json::json;
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::bounds::{self, Allowance};
use super::desired::{self, NodeSet};
use super::nodes::Telling;
use super::report::{self, StatusWrite};
use super::{Nodes, Notices, Wakes, endpoints, status};
use crate::node_record::NodeRecord;
use crate::objects::{self, EditError};
use crate::reconcile::events::{Notice, Occasion};
use crate::state::{Key, Placed, State};
use crate::store::Replica;
use crate::together::Together;
use held::Held;

/// A peer that opened a session says who it is at once, or is dropped.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages on their way down. The newest desired set replaces older ones, so few are needed.
pub const OUTBOX: usize = 4;

/// An agent that takes no message for this long hangs: another session finds it better or not at all.
const STALLED: Duration = Duration::from_secs(30);

/// Before what could not be written is tried again; there may be no leader.
const RETRY: Duration = Duration::from_secs(2);

/// A copy that is being fetched is told to be so after this long: most are there sooner, and what nobody
/// could have read need not be written.
const PASSING: Duration = Duration::from_secs(1);

/// Reports heard at once, and then one in this time; the agent waits meanwhile. Each may change
/// the status of every assignment.
const REPORTS: (u32, Duration) = (32, Duration::from_millis(250));

/// Likewise batches of what was used, each an entry of the log: the agent sends one or two a minute.
const BATCHES: (u32, Duration) = (8, Duration::from_secs(1));

pub struct Session {
    /// What sessions write, they write at once.
    pub together: Together,
    pub replica: Replica,
    pub nodes: Nodes,
    pub wakes: Wakes,
    pub notices: Notices,
    pub node: String,
    /// Fingerprint of its device key.
    pub device: String,
    pub outbox: mpsc::Sender<Result<ControllerMessage, Status>>,
    pub cancel: CancellationToken,
}

/// What was said on the session so far.
struct Progress {
    telling: Telling,
    /// Random; in the node's status once this session has written.
    id: String,
    /// What the node's status names while this session counts: the one before it, then its own.
    named: String,
    report: Option<Report>,
    /// Of the swarm, as the set that the agent holds has it.
    epoch: u64,
    reports: Allowance,
    batches: Allowance,
    /// Some of it is yet to be written, and until when that has time.
    unwritten: Option<Instant>,
    /// Since when nothing but what may pass soon is to be written.
    passing_since: Option<Instant>,
    /// Generation and hash of the set that the agent holds.
    generation: u64,
    hash: Vec<u8>,
    /// The assignments in it.
    held: Held,
    controllers: Option<Controllers>,
    /// State revision that was looked at last.
    seen: u64,
}

impl Session {
    /// Runs until the agent, the link or the swarm ends it.
    pub async fn run(self, inbound: Streaming<AgentMessage>) {
        let outbox = self.outbox.clone();
        let node = self.node.clone();
        if let Err(error) = self.talk(inbound).await {
            tracing::info!(node, error = error.message(), "session ended");
            // The agent may be gone already.
            let _ = outbox.try_send(Err(error));
        }
    }

    async fn talk(self, mut inbound: Streaming<AgentMessage>) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(AgentMessage {
            kind: Some(agent_message::Kind::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        let mut wakes = self.wakes.of(&self.node);
        let mut progress = self.begin(hello).await?;
        let mut is_due = true;
        loop {
            if is_due {
                wakes.borrow_and_update();
                self.look(&mut progress).await?;
            }
            tokio::select! {
                () = self.cancel.cancelled() => {
                    return Err(Status::unavailable("this controller is stopping"));
                }
                changed = wakes.changed() => {
                    changed.map_err(|_| Status::unavailable("the gateway has stopped"))?;
                    is_due = true;
                }
                () = due(progress.unwritten), if progress.unwritten.is_some() => is_due = true,
                message = inbound.message() => match message? {
                    None => return Ok(()),
                    Some(message) => {
                        self.hear(&mut progress, message).await?;
                        // A report asks for another look.
                        is_due = progress.seen == 0;
                    }
                },
            }
        }
    }

    /// Takes down what the machine is, where that is news.
    async fn begin(&self, hello: Hello) -> Result<Progress, Status> {
        let epoch = self.replica.state().epoch();
        if hello.epoch > epoch {
            tracing::error!(
                node = self.node,
                "a node has heard of epoch {} of this swarm, and this controller is of epoch {epoch}: the swarm \
                 was recovered or restored without it. Stop it",
                hello.epoch
            );
            return Err(Status::failed_precondition(format!(
                "this controller is of epoch {epoch}, and the swarm has begun epoch {}",
                hello.epoch
            )));
        }
        // A replica that lags could name a session that was overtaken long ago.
        self.replica
            .read_barrier()
            .await
            .map_err(status::from_propose)?;
        let id = objects::fresh_uid();
        let mut named = id.clone();
        let held = Held::told(&hello);
        let info = bounds::info(hello.info.unwrap_or_default());
        let labels = info.labels.clone();
        let fresh = report::node_status(&info);
        objects::edit(&self.together, &objects::node_key(&self.node), |body| {
            let before = body.clone();
            report::merge_status(&mut body["status"], &fresh);
            report::merge_labels(body, &labels);
            let only_moved = hello.moved && *body == before;
            named = match body["status"]["session"].as_str() {
                Some(known) if only_moved => known.to_owned(),
                _ => {
                    body["status"]["session"] = json!(id);
                    id.clone()
                }
            };
            named == id
        })
        .await
        .map_err(status::from_edit)?;
        tracing::info!(
            node = self.node,
            generation = hello.generation,
            "session begins"
        );
        Ok(Progress {
            telling: self.nodes.telling(&self.node, &id, hello.moved),
            id,
            named,
            report: None,
            epoch: hello.epoch,
            reports: Allowance::new(REPORTS.0, REPORTS.1, Instant::now()),
            batches: Allowance::new(BATCHES.0, BATCHES.1, Instant::now()),
            unwritten: None,
            passing_since: None,
            generation: hello.generation,
            held,
            hash: hello.hash,
            controllers: None,
            seen: 0,
        })
    }

    async fn hear(&self, progress: &mut Progress, message: AgentMessage) -> Result<(), Status> {
        match message.kind {
            Some(agent_message::Kind::Report(report)) => {
                while let Err(wait) = progress.reports.take(Instant::now()) {
                    tokio::time::sleep(wait).await;
                }
                let mut report = bounds::report(report);
                let events = std::mem::take(&mut report.events);
                progress.report = Some(report);
                progress.seen = 0;
                for event in events {
                    self.record(event);
                }
                Ok(())
            }
            Some(agent_message::Kind::Usage(usage)) => {
                self.judge(progress, &usage).await?;
                progress.telling.tell(bounds::usage(usage));
                Ok(())
            }
            Some(agent_message::Kind::Holdings(told)) => {
                progress.telling.hold(bounds::holdings(told));
                Ok(())
            }
            Some(agent_message::Kind::Metering(told)) => self.meter(progress, told).await,
            Some(agent_message::Kind::Hello(_)) => {
                Err(Status::invalid_argument("Hello comes once, first"))
            }
            // A newer agent may say more than this controller knows.
            None => Ok(()),
        }
    }

    fn record(&self, event: hive_proto::v1::AgentEvent) {
        // A node speaks only of what runs on it.
        let key = Key::new(
            Resource::Assignment,
            event.namespace.clone(),
            event.assignment.clone(),
        );
        let state = self.replica.state();
        let Some(assignment) = state.get(&key) else {
            return;
        };
        let Some(placed) = Placed::of(assignment).filter(|placed| placed.node == self.node) else {
            return;
        };
        if !self.nodes.may_tell_event(&self.node) {
            tracing::debug!(
                node = self.node,
                reason = event.reason,
                "one event too many"
            );
            return;
        }
        let about = Key::new(Resource::Function, event.namespace, placed.function);
        let warning = event.r#type == "Warning";
        let notice = Notice {
            warning,
            reason: event.reason,
            message: event.message,
            // That all is well is of no node in particular: it is one event, however many say so.
            source: match warning {
                true => format!("agent/{}", self.node),
                false => "agent".to_owned(),
            },
            count: event.count.max(1),
        };
        let last = Occasion {
            request_id: event.request_id,
            trace_id: event.trace_id,
            generation: event.generation,
        };
        self.notices.tell(about, notice, last);
    }

    /// Rereads the state and does what it asks for.
    async fn look(&self, progress: &mut Progress) -> Result<(), Status> {
        let state = self.replica.state();
        if state.revision() == progress.seen && progress.unwritten.is_none() {
            return Ok(());
        }
        self.still_counts(&state, progress)?;
        progress.seen = state.revision();
        self.send_controllers(&state, progress).await?;
        let mut set = desired::desired(&state, &self.node);
        let kept = progress.held.keep(&mut set);
        progress.unwritten = self.write_statuses(&state, progress, &set).await?;
        self.send_desired(&state, progress, set, kept).await
    }

    fn still_counts(&self, state: &State, progress: &Progress) -> Result<(), Status> {
        let Some(node) = state.get(&objects::node_key(&self.node)) else {
            return Err(Status::permission_denied(
                "this node was removed from the swarm",
            ));
        };
        match NodeRecord::of(node).session() == progress.named {
            true => Ok(()),
            false => Err(overtaken()),
        }
    }

    /// Names this session in the node's status, before it writes for the first time. False when that
    /// could not be written.
    async fn claim(&self, progress: &mut Progress) -> Result<bool, Status> {
        if progress.named == progress.id {
            return Ok(true);
        }
        let mut is_overtaken = false;
        let key = objects::node_key(&self.node);
        let claimed = objects::edit(&self.together, &key, |body| {
            let named = &mut body["status"]["session"];
            is_overtaken = *named != json!(progress.named);
            if !is_overtaken {
                *named = json!(progress.id);
            }
            !is_overtaken
        })
        .await;
        match claimed {
            Ok(()) if is_overtaken => Err(overtaken()),
            Ok(()) => {
                progress.named = progress.id.clone();
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(
                    node = self.node,
                    error = &error as &dyn std::error::Error,
                    "cannot write the node's session"
                );
                Ok(false)
            }
        }
    }

    async fn send_controllers(&self, state: &State, progress: &mut Progress) -> Result<(), Status> {
        let controllers = Controllers {
            endpoints: endpoints(state),
            epoch: state.epoch(),
            level: state.level(),
        };
        if progress.controllers.as_ref() == Some(&controllers) {
            return Ok(());
        }
        progress.controllers = Some(controllers.clone());
        self.send(controller_message::Kind::Controllers(controllers))
            .await
    }

    async fn send_desired(
        &self,
        state: &State,
        progress: &mut Progress,
        set: NodeSet,
        kept: BTreeMap<[u8; 32], String>,
    ) -> Result<(), Status> {
        let (epoch, generation) = (state.epoch(), state.revision());
        // This replica lags behind the one that the agent heard last: what it knows is old.
        if (epoch, generation) < (progress.epoch, progress.generation) {
            return Ok(());
        }
        let sent = set.assignments.iter().map(|assignment| assignment.hash());
        let hash = hash_of_hashes(sent.chain(kept.keys().copied())).to_vec();
        // A new epoch is told whatever the set is: from then on the one before is refused.
        if hash == progress.hash && epoch == progress.epoch {
            progress.held = Held::of(&set, kept);
            return Ok(());
        }
        let entries = set.assignments.iter().map(|assignment| {
            let hash = assignment.hash();
            match progress.held.contains(&hash) {
                true => desired_entry::Kind::Hash(hash.to_vec()),
                false => desired_entry::Kind::Assignment(assignment.encoded().clone()),
            }
        });
        let goes_on = kept
            .keys()
            .map(|hash| desired_entry::Kind::Hash(hash.to_vec()));
        let entries: Vec<DesiredEntry> = entries
            .chain(goes_on)
            .map(|kind| DesiredEntry { kind: Some(kind) })
            .collect();
        tracing::debug!(
            node = self.node,
            generation,
            assignments = entries.len(),
            "sending desired set"
        );
        // The agent must be told even when its generation is ours already but its content is not:
        // one more than it holds is accepted, equal is refused.
        let generation = generation.max(progress.generation.saturating_add(1));
        progress.epoch = epoch;
        progress.generation = generation;
        progress.held = Held::of(&set, kept);
        progress.hash = hash.clone();
        self.send(controller_message::Kind::Desired(Desired {
            epoch,
            generation,
            hash,
            entries,
        }))
        .await
    }

    async fn send(&self, kind: controller_message::Kind) -> Result<(), Status> {
        let message = Ok(ControllerMessage { kind: Some(kind) });
        self.outbox
            .send_timeout(message, STALLED)
            .await
            .map_err(|error| match error {
                SendTimeoutError::Timeout(_) => {
                    Status::deadline_exceeded("the agent takes no messages")
                }
                SendTimeoutError::Closed(_) => Status::cancelled("the agent went away"),
            })
    }

    /// Writes what the agent reported, where the state says otherwise. Returns when to try again where
    /// something of it is yet to be written.
    async fn write_statuses(
        &self,
        state: &State,
        progress: &mut Progress,
        set: &NodeSet,
    ) -> Result<Option<Instant>, Status> {
        let now = SystemTime::now();
        let retry = || Some(Instant::now() + RETRY);
        let mut writes =
            report::status_writes(state, &self.node, progress.report.as_ref(), &set.problems);
        let is_passing = writes.iter().any(|write| write.passing);
        let since = progress.passing_since.filter(|_| is_passing);
        let since = since.unwrap_or_else(Instant::now);
        let has_time = is_passing && since.elapsed() < PASSING;
        progress.passing_since = has_time.then_some(since);
        writes.retain(|write| !(write.passing && has_time));
        let mut unwritten = has_time.then_some(since + PASSING);
        if !writes.is_empty() && !self.claim(progress).await? {
            return Ok(retry());
        }
        for StatusWrite {
            key, uid, status, ..
        } in writes
        {
            let written = objects::edit(&self.together, &key, |body| {
                // After a conflict the state is a newer one, in which another session may count.
                self.still_counts(&self.replica.state(), progress).is_ok()
                    && body["metadata"]["uid"] == json!(uid)
                    && body["spec"]["nodeName"] == json!(self.node)
                    && report::set_assignment_status(&mut body["status"], &status, now)
            })
            .await;
            match written {
                // Deleted meanwhile: nothing is left to say of it.
                Ok(()) | Err(EditError::NotFound(_)) => {}
                Err(error) => {
                    unwritten = unwritten.or_else(retry);
                    tracing::warn!(assignment = %key, error = &error as &dyn std::error::Error, "cannot write status");
                }
            }
        }
        Ok(unwritten)
    }
}

async fn due(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

fn overtaken() -> Status {
    Status::aborted("a newer session of this node took over")
}
