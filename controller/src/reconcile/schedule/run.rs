//! Performs the scheduler's plan: one command a step, each by compare-and-swap, many in one entry.

use std::time::SystemTime;

use futures::TryStreamExt;
use hive_manifests::AssignmentSpec;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Seen, Step};
use crate::gateway::report::{Reported, set_assignment_status};
use crate::objects::{self, Writer};
use crate::reconcile::Outlook;
use crate::state::{Command, Key, Rejection, State};
use crate::store::ProposeError;
use crate::together::{self, Together};

/// Steps under way at once: they are of different assignments, and fill some batches.
const WRITES_AT_ONCE: usize = 4 * together::MOST;

/// One look at the state. What another writer overtook is planned again after its change.
pub async fn pass(together: &Together, seen: &Seen, state: &State) -> Outlook {
    let now = Timestamp::now();
    let (steps, again) = seen.at(state, now, |_, plan| (plan.steps.clone(), plan.again));
    let written = futures::stream::iter(steps.into_iter().map(Ok))
        .try_for_each_concurrent(WRITES_AT_ONCE, |step| async move {
            perform(together, state, &step).await
        })
        .await;
    match written {
        Ok(()) => Outlook::at(again, now),
        // Without a leader the others would fail as well; what they did is seen at the next look.
        Err(error) => {
            tracing::warn!(%error, "cannot write an assignment");
            Outlook::Again
        }
    }
}

async fn perform(together: &Together, state: &State, step: &Step) -> Result<(), ProposeError> {
    let Some(command) = command(step, state) else {
        return Ok(());
    };
    match together.write(command).await {
        Ok(()) => {
            log(step);
            Ok(())
        }
        Err(ProposeError::Rejected(
            Rejection::Conflict { .. }
            | Rejection::NotFound
            | Rejection::NoNamespace
            | Rejection::AlreadyExists,
        )) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn command(step: &Step, state: &State) -> Option<Command> {
    let replace = |key: &Key, expect: u64, change: &dyn Fn(&mut Value)| {
        let mut body = state.get(key)?.to_value().into_owned();
        change(&mut body);
        Some(Command::Replace {
            key: key.clone(),
            body: body.into(),
            expect: Some(expect),
        })
    };
    let count_change = |body: &mut Value| {
        let generation = body["metadata"]["generation"].as_i64().unwrap_or_default();
        body["metadata"]["generation"] = json!(generation + 1);
    };
    let set_spec = |body: &mut Value, spec: &AssignmentSpec| {
        body["spec"] = json!(spec);
        count_change(body);
    };
    match step {
        Step::Create { key, spec } => {
            let labels = json!({ "hive.dev/function": spec.function_name });
            let mut body = objects::fresh(key, labels, json!({ "spec": spec }));
            body["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "hive.dev/v1",
                "kind": "Function",
                "name": spec.function_name,
                "uid": spec.function_uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }]);
            body["status"] = fresh_status();
            Some(Command::Create {
                key: key.clone(),
                body: body.into(),
            })
        }
        Step::Move { key, expect, spec } => replace(key, *expect, &|body| {
            set_spec(body, spec);
            body["status"] = fresh_status();
        }),
        Step::Update { key, expect, spec } => replace(key, *expect, &|body| set_spec(body, spec)),
        Step::MarkUnknown { key, expect } => {
            replace(key, *expect, &|body| {
                let unknown = Reported {
                phase: "Unknown",
                generation: body["status"]["observedGeneration"].as_u64(),
                revision: body["status"]["observedRevision"].as_str().unwrap_or_default().into(),
                reason: "NodeLost".into(),
                message: "nothing was heard of the node for a while, and no other node takes this copy".into(),
            };
                set_assignment_status(&mut body["status"], &unknown, SystemTime::now());
            })
        }
        Step::Settle { key, expect } => replace(key, *expect, &|body| {
            if let Some(spec) = body["spec"].as_object_mut() {
                spec.remove("previous");
            }
            count_change(body);
        }),
        Step::Delete { key, expect } => Some(Command::Delete {
            key: key.clone(),
            expect: Some(*expect),
            uid: None,
        }),
    }
}

fn fresh_status() -> Value {
    let pending = Reported {
        phase: "Pending",
        generation: None,
        revision: String::new(),
        reason: String::new(),
        message: String::new(),
    };
    let mut status = Value::Null;
    set_assignment_status(&mut status, &pending, SystemTime::now());
    status
}

fn log(step: &Step) {
    match step {
        Step::Create { key, spec } => {
            tracing::info!(assignment = %key, node = spec.node_name, "assigned");
        }
        Step::Move { key, spec, .. } => {
            tracing::info!(assignment = %key, node = spec.node_name, "moved");
        }
        Step::Update { key, spec, .. } => {
            tracing::info!(assignment = %key, generation = spec.function_generation, "updated");
        }
        Step::MarkUnknown { key, .. } => tracing::warn!(assignment = %key, "its node is lost"),
        Step::Settle { key, .. } => tracing::info!(assignment = %key, "let go of where it was"),
        Step::Delete { key, .. } => tracing::info!(assignment = %key, "withdrawn"),
    }
}
