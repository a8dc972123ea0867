//! Carries out what the plan says: writes claims and outcomes, and makes the calls.
//!
//! A call goes on when this controller leads no more, and its outcome is written all the same: the next
//! leader leaves it alone until it must have ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hive_manifests::schedule::{ActiveCall, ScheduleStatus};
use hive_proto::invoke::REASON;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::agenda::Agenda;
use super::plan::{self, Call, Plan, Skipped, Step};
use crate::gateway::Body;
use crate::ingress::{Forwarder, NothingRan};
use crate::objects::{self, EditError};
use crate::reconcile::Outlook;
use crate::reconcile::events::{self, Notice};
use crate::state::{Key, State};
use crate::store::Replica;

/// Before a call that no copy could take is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// The clock of the day may jump; the one that sleeps does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Says what a request is about, in the words of CloudEvents (HTTP binding, binary mode).
const EVENT_TYPE: &str = "dev.hive.schedule";

/// Makes the calls of all terms in which this controller leads.
#[derive(Clone)]
pub struct Cron {
    forwarder: Forwarder,
    calling: Calling,
}

/// Schedules whose calls this process makes.
#[derive(Clone, Default)]
struct Calling(Arc<Mutex<HashSet<(Key, String)>>>);

/// Takes a schedule out when the call has ended, however it did.
struct Called(Calling, (Key, String));

impl Calling {
    fn holds(&self, function: &Key, name: &str) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains(&(function.clone(), name.to_owned()))
    }

    fn begin(&self, call: &Call) -> Option<Called> {
        let one = (call.function.clone(), call.name.clone());
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(one.clone()).then(|| Called(self.clone(), one))
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.1);
    }
}

/// How one attempt ended.
enum Outcome {
    Success,
    /// No copy took it, and nothing of it ran.
    NotTaken,
    Failed(String),
}

impl Cron {
    pub fn new(forwarder: Forwarder) -> Self {
        Self {
            forwarder,
            calling: Calling::default(),
        }
    }

    /// One look, with what was known of the functions at the last.
    pub async fn pass(&self, agenda: &mut Agenda, replica: &Replica, state: &State) -> Outlook {
        agenda.follow(state);
        let now = Timestamp::now();
        let calling = |function: &Key, name: &str| self.calling.holds(function, name);
        let Plan { steps, next } = plan::plan(agenda.scheduled(), calling, now);
        let mut outlook = match next {
            Some(next) => {
                let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                Outlook::In(wait.min(LONGEST_SLEEP))
            }
            None => Outlook::Settled,
        };
        for step in steps {
            if let Err(error) = self.perform(replica, step).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write of a schedule"
                );
                outlook = Outlook::Again;
            }
        }
        outlook
    }

    async fn perform(&self, replica: &Replica, step: Step) -> Result<(), EditError> {
        let now = Time(Timestamp::now());
        match step {
            Step::Observe {
                function,
                name,
                observed,
            } => {
                let change = |schedules: &mut Vec<ScheduleStatus>| {
                    match schedules.iter_mut().find(|one| one.name == name) {
                        Some(known) if known.observed == observed => return false,
                        Some(known) => {
                            known.observed.clone_from(&observed);
                            known.since = now.clone();
                        }
                        None => schedules.push(ScheduleStatus {
                            name: name.clone(),
                            observed: observed.clone(),
                            since: now.clone(),
                            last_schedule_time: None,
                            last_successful_time: None,
                            active: None,
                        }),
                    }
                    true
                };
                edit(replica, &function, change).await.map(drop)
            }
            Step::Begin(call) => {
                let Some(called) = self.calling.begin(&call) else {
                    return Ok(());
                };
                let is_ours = edit_one(replica, &call.function, &call.name, |status| {
                    let is_free = status.since.0 < call.time && status.active.is_none();
                    if is_free {
                        status.since = Time(call.time);
                        status.last_schedule_time = Some(Time(call.time));
                        status.active = Some(ActiveCall {
                            time: Time(call.time),
                            start_time: Some(now.clone()),
                        });
                    }
                    is_free
                })
                .await?;
                if is_ours {
                    let make = self.clone().make(replica.clone(), call, called);
                    tokio::spawn(make);
                }
                Ok(())
            }
            Step::Resume(call) => {
                let Some(called) = self.calling.begin(&call) else {
                    return Ok(());
                };
                if start(replica, &call).await? {
                    let make = self.clone().make(replica.clone(), call, called);
                    tokio::spawn(make);
                }
                Ok(())
            }
            Step::Skip {
                function,
                name,
                time,
                why,
            } => {
                let written = edit_one(replica, &function, &name, |status| {
                    let is_waiting = status
                        .active
                        .as_ref()
                        .is_some_and(|active| active.time.0 == time && active.start_time.is_none());
                    if is_waiting {
                        status.active = None;
                    }
                    let is_over = status.since.0 < time;
                    if is_over {
                        status.since = Time(time);
                    }
                    is_waiting || is_over
                });
                if written.await? {
                    tell_skipped(replica, &function, &name, why).await;
                }
                Ok(())
            }
            Step::Lose {
                function,
                name,
                time,
            } => {
                let written = edit_one(replica, &function, &name, |status| {
                    let active = status.active.as_ref();
                    let is_it = active.is_some_and(|active| active.time.0 == time);
                    if is_it {
                        status.active = None;
                    }
                    is_it
                });
                if written.await? {
                    let message = format!(
                        "schedule {name}: the controller that made the call was lost, and with it the answer; the call is not made again"
                    );
                    tell(replica, &function, "ScheduleOutcomeUnknown", message).await;
                }
                Ok(())
            }
            Step::Forget { function, name } => {
                let change = |schedules: &mut Vec<ScheduleStatus>| {
                    let before = schedules.len();
                    schedules.retain(|one| one.name != name);
                    schedules.len() != before
                };
                edit(replica, &function, change).await.map(drop)
            }
        }
    }

    /// Makes a claimed call, and writes down how it ended.
    async fn make(self, replica: Replica, call: Call, called: Called) {
        let result = async {
            let success = match self.until_taken(&replica, &call).await? {
                Outcome::Success => true,
                Outcome::NotTaken => {
                    tell_skipped(&replica, &call.function, &call.name, Skipped::Missed).await;
                    false
                }
                Outcome::Failed(why) => {
                    let message = format!("schedule {}: {why}", call.name);
                    tell(&replica, &call.function, "ScheduleFailed", message).await;
                    false
                }
            };
            // Before it is written: what that wakes may begin the next.
            drop(called);
            end(&replica, &call, success).await
        };
        if let Err(error) = result.await {
            tracing::warn!(
                function = %call.function,
                schedule = call.name,
                error = &error as &dyn std::error::Error,
                "cannot write how a call ended"
            );
        }
    }

    /// Tries until a copy takes it, or it is too late.
    async fn until_taken(&self, replica: &Replica, call: &Call) -> Result<Outcome, EditError> {
        loop {
            let outcome = self.attempt(call).await;
            let may_wait = Timestamp::now() + PAUSE < call.until;
            if !(may_wait && matches!(outcome, Outcome::NotTaken)) {
                return Ok(outcome);
            }
            // Should this controller be lost now, the next one makes it.
            edit_active(replica, call, |active| active.start_time.take().is_some()).await?;
            tokio::time::sleep(PAUSE).await;
            if !start(replica, call).await? {
                return Ok(Outcome::NotTaken);
            }
        }
    }

    async fn attempt(&self, call: &Call) -> Outcome {
        let request = match request(call) {
            Ok(request) => request,
            Err(error) => return Outcome::Failed(format!("no request can be made: {error}")),
        };
        let response = self.forwarder.by_name(&call.function, request).await;
        if response.extensions().get::<NothingRan>().is_some() {
            return Outcome::NotTaken;
        }
        let (head, mut body) = response.into_parts();
        // What it says is not kept, but only its end tells that the function came to its own.
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return Outcome::Failed(said(&head.headers, "the answer ended early"));
            }
        }
        match head.status.is_success() {
            true => Outcome::Success,
            false => Outcome::Failed(said(&head.headers, &format!("answered {}", head.status))),
        }
    }
}

fn said(headers: &HeaderMap, what: &str) -> String {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    match header(REASON.as_str()) {
        Some(reason) => format!("{what} ({reason})"),
        None => what.to_owned(),
    }
}

/// A POST that says in its headers which time it is for.
fn request(call: &Call) -> http::Result<Request<Body>> {
    let Key {
        namespace, name, ..
    } = &call.function;
    let time = call.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::post(&call.path)
        .header("host", format!("{name}.{namespace}"))
        .header("content-length", 0)
        .header("ce-specversion", "1.0")
        .header("ce-type", EVENT_TYPE)
        .header("ce-id", format!("{}/{}/{time}", call.uid, call.name))
        .header(
            "ce-source",
            format!("/apis/hive.dev/v1/namespaces/{namespace}/functions/{name}"),
        )
        .header("ce-subject", &call.name)
        .header("ce-time", time)
        .body(body)
}

/// Says that a claimed call is sent now. False when it is another's by now.
async fn start(replica: &Replica, call: &Call) -> Result<bool, EditError> {
    let now = Time(Timestamp::now());
    edit_active(replica, call, |active| {
        let waits = active.start_time.is_none();
        active.start_time = Some(now.clone());
        waits
    })
    .await
}

async fn end(replica: &Replica, call: &Call, success: bool) -> Result<(), EditError> {
    edit_one(replica, &call.function, &call.name, |status| {
        let active = status.active.as_ref();
        let is_it = active.is_some_and(|active| active.time.0 == call.time);
        if is_it {
            status.active = None;
        }
        if success {
            status.last_successful_time = Some(Time(call.time));
        }
        is_it || success
    })
    .await
    .map(drop)
}

async fn edit_active(
    replica: &Replica,
    call: &Call,
    mut change: impl FnMut(&mut ActiveCall) -> bool,
) -> Result<bool, EditError> {
    edit_one(replica, &call.function, &call.name, |status| {
        let active = status.active.as_mut();
        active
            .filter(|active| active.time.0 == call.time)
            .is_some_and(&mut change)
    })
    .await
}

async fn edit_one(
    replica: &Replica,
    function: &Key,
    name: &str,
    mut change: impl FnMut(&mut ScheduleStatus) -> bool,
) -> Result<bool, EditError> {
    edit(replica, function, |schedules| {
        let mut schedules = schedules.iter_mut();
        schedules
            .find(|one| one.name == name)
            .is_some_and(&mut change)
    })
    .await
}

/// Changes what a function's status says of its schedules. True when it was written; a function that is
/// gone has nothing to say.
async fn edit(
    replica: &Replica,
    function: &Key,
    mut change: impl FnMut(&mut Vec<ScheduleStatus>) -> bool,
) -> Result<bool, EditError> {
    let mut written = false;
    let edited = objects::edit(replica, function, |body| {
        let said = &mut body["status"]["schedules"];
        let Ok(mut schedules) = read(said) else {
            return false;
        };
        written = change(&mut schedules);
        if written {
            *said = json!(schedules);
        }
        written
    });
    match edited.await {
        Ok(()) => Ok(written),
        Err(EditError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(schedules: &Value) -> serde_json::Result<Vec<ScheduleStatus>> {
    match schedules {
        Value::Null => Ok(Vec::new()),
        said => serde_json::from_value(said.clone()),
    }
}

async fn tell_skipped(replica: &Replica, function: &Key, name: &str, why: Skipped) {
    let (reason, why) = match why {
        Skipped::Missed => ("ScheduleMissed", "no controller or copy was there in time"),
        Skipped::StillRunning => ("ScheduleSkipped", "the call before has not ended"),
    };
    tell(replica, function, reason, format!("schedule {name}: {why}")).await;
}

async fn tell(replica: &Replica, function: &Key, reason: &str, message: String) {
    let notice = Notice {
        warning: true,
        reason: reason.to_owned(),
        message,
        source: "cron".to_owned(),
        count: 1,
    };
    events::record(replica, function, notice).await;
}
