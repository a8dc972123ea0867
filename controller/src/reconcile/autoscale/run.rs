//! Performs the plan of autoscaling: into the function's status, by compare-and-swap, only where something
//! changes.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use hive_manifests::autoscaling::Autoscaling;
use hive_manifests::rollout::RolloutPhase;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::count;
use super::plan::{self, Change, Demand, Subject};
use crate::objects::{self, Writer};
use crate::reconcile::schedule::{FunctionView, Seen, View};
use crate::reconcile::{Outlook, events};
use crate::state::{Command, Key, Rejection, State, level};
use crate::store::ProposeError;
use crate::together::Together;
use crate::traffic::{Sum, Traffic};

/// Windows move on by themselves. What is asked for anew wakes this earlier.
const INTERVAL: Duration = Duration::from_secs(1);

pub async fn pass(together: &Together, seen: &Seen, traffic: &Traffic, state: &State) -> Outlook {
    // Controllers before that could not read what would be written.
    if state.level() < level::REVISIONS {
        return Outlook::Settled;
    }
    let (now, instant) = (Timestamp::now(), Instant::now());
    let (changes, any) = seen.at(state, now, |view, _| {
        let mut changes = Vec::new();
        let mut any = false;
        let ready = ready(view);
        for function in &view.functions {
            any |= function.spec.autoscaling.is_some();
            let ready = ready.get(&*function.uid).copied().unwrap_or_default();
            if let Some(change) = change(function, ready, traffic, now, instant) {
                changes.push((function.key.clone(), function.revision, change));
            }
        }
        (changes, any)
    });
    let writes = changes
        .into_iter()
        .map(|(key, expect, change)| perform(together, state, key, expect, change));
    let failed = futures::future::join_all(writes)
        .await
        .into_iter()
        .find_map(Result::err);
    match failed {
        Some(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot write how far a function scales");
            Outlook::Again
        }
        None if any => Outlook::In(INTERVAL),
        None => Outlook::Settled,
    }
}

impl Demand {
    pub(super) fn of(traffic: &Traffic, function: &Key, rule: &Autoscaling, now: Instant) -> Self {
        let moment = count::moment(rule);
        let moments = traffic.moments(function, moment, rule.window.0, now);
        let busy = moments.iter().map(|sum| sum.busy).max();
        let lately = traffic.of_function(function, rule.idle_time(), now);
        Self {
            peak: busy.unwrap_or_default().as_secs_f64() / moment.as_secs_f64(),
            wait: moments.first().map(Sum::wait).unwrap_or_default(),
            longest_wait: moments.iter().map(Sum::wait).max().unwrap_or_default(),
            any: traffic.in_flight(function) > 0 || lately != Sum::default(),
            known_for: traffic.complete_for(now),
        }
    }
}

/// The copies that answer, by the uids of the functions that scale by how long requests wait.
fn ready(view: &View) -> HashMap<&str, u32> {
    let waits = |function: &&FunctionView| {
        let rule = function.spec.autoscaling.as_ref();
        rule.is_some_and(|rule| rule.target.queue_time.is_some())
    };
    let functions = view.functions.iter().filter(waits);
    let mut ready: HashMap<&str, u32> = functions.map(|it| (&*it.uid, 0)).collect();
    if ready.is_empty() {
        return ready;
    }
    let copies = view.assignments.iter();
    for copy in copies.filter(|copy| copy.current && !copy.spec.canary) {
        if let Some(copies) = ready.get_mut(&*copy.spec.function_uid) {
            *copies += 1;
        }
    }
    ready
}

fn change(
    function: &FunctionView,
    ready: u32,
    traffic: &Traffic,
    now: Timestamp,
    instant: Instant,
) -> Option<Change> {
    if function.ending.is_some() {
        return None;
    }
    let phase = function.standing.rollout.as_ref().map(|it| it.phase);
    let subject = Subject {
        spec: &function.spec,
        wanted: function.wanted_replicas(),
        ready,
        is_settled: phase.is_some_and(|phase| phase != RolloutPhase::Progressing),
        scaling: &function.scaling,
    };
    let demand = match &function.spec.autoscaling {
        None => Demand::default(),
        Some(rule) => Demand::of(traffic, &function.key, rule, instant),
    };
    plan::plan(&subject, &demand, now)
}

async fn perform(
    together: &Together,
    state: &State,
    function: Key,
    expect: u64,
    change: Change,
) -> Result<(), ProposeError> {
    let Some(object) = state.get(&function) else {
        return Ok(());
    };
    let mut body = object.to_value().into_owned();
    write(&mut body["status"], &change);
    let command = Command::Replace {
        key: function.clone(),
        body: body.into(),
        expect: Some(expect),
    };
    match together.write(command).await {
        Ok(()) => {}
        // Somebody came in between: their change brings it up again.
        Err(ProposeError::Rejected(Rejection::Conflict { .. } | Rejection::NotFound)) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    if let Some(notice) = change.notice {
        tracing::info!(%function, "scaled {}", notice.message);
        events::record(together, &function, notice).await;
    }
    Ok(())
}

fn write(status: &mut Value, change: &Change) {
    let scaling = &change.scaling;
    match (&scaling.found, status.as_object_mut()) {
        (Some(found), _) => status["autoscaling"] = json!(found),
        (None, Some(fields)) => {
            fields.remove("autoscaling");
        }
        (None, None) => {}
    }
    let now = SystemTime::now();
    for (kind, told) in [
        ("ScalingActive", &scaling.active),
        ("ScalingLimited", &scaling.limited),
    ] {
        match (told, status["conditions"].as_array_mut()) {
            (Some((is_so, reason, message)), _) => {
                objects::set_condition(status, kind, is_so, reason, message, now);
            }
            (None, Some(conditions)) => conditions.retain(|it| it["type"] != kind),
            (None, None) => {}
        }
    }
}
