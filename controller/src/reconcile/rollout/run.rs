//! Performs the plan of rollouts: revisions first, then the status that names them, each by compare-and-swap.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use hive_manifests::rollout::{Answered, OUTSIDE_TEMPLATE};
use hive_manifests::{Function, Resource};
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::plan::{Step, Subject, plan};
use super::standing::Standing;
use super::view::RevisionView;
use crate::objects::{self, Writer};
use crate::reconcile::schedule::{Plan, Seen, View, copies, follow};
use crate::reconcile::{Outlook, events};
use crate::state::{Command, Key, Rejection, State, level};
use crate::store::ProposeError;
use crate::together::{self, Together};
use crate::traffic::Traffic;

/// Functions whose steps are under way at once: they fill some batches.
const WRITES_AT_ONCE: usize = 4 * together::MOST;

/// Where people say why there is a new version, as kubectl shows it.
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// The steps of each function, and when to look again although nothing changed.
pub type Steps = (Vec<Vec<Step>>, Option<Timestamp>);

/// What was read of revisions at the look before.
#[derive(Default)]
pub struct Rollouts {
    revisions: Vec<RevisionView>,
}

impl Rollouts {
    pub async fn pass(
        &mut self,
        together: &Together,
        seen: &Seen,
        traffic: &Traffic,
        state: &State,
    ) -> Outlook {
        // Controllers before that could not read what would be written.
        if state.level() < level::REVISIONS {
            return Outlook::Settled;
        }
        let now = Timestamp::now();
        let answered = |function: &Key, revision: &str, last| {
            let sum = traffic.of_revision(function, revision, last, Instant::now());
            Answered {
                requests: sum.requests,
                failures: sum.failures,
            }
        };
        let (steps, again) = seen.at(state, now, |view, plan| {
            self.steps(state, view, plan, &answered, now)
        });
        let failed = futures::stream::iter(steps)
            .map(|steps| perform(together, state, steps))
            .buffer_unordered(WRITES_AT_ONCE)
            .filter_map(async |written| written.err())
            .fold(None, async |first, error| first.or(Some(error)))
            .await;
        match failed {
            None => Outlook::at(again, now),
            Some(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write a rollout"
                );
                Outlook::Again
            }
        }
    }

    /// What is to be done by a view of the state and the scheduler's plan for it.
    /// `answered` says what was answered for a function's revision, or for none, in the last time.
    pub fn steps(
        &mut self,
        state: &State,
        view: &View,
        scheduled: &Plan,
        answered: &dyn Fn(&Key, &str, Duration) -> Answered,
        now: Timestamp,
    ) -> Steps {
        self.revisions = follow(
            std::mem::take(&mut self.revisions),
            state.list(Resource::ControllerRevision, None),
            RevisionView::version,
            RevisionView::of,
        );
        let mut by_owner: HashMap<&str, Vec<&RevisionView>> = HashMap::new();
        for revision in &self.revisions {
            by_owner.entry(&revision.owner).or_default().push(revision);
        }
        let (mut all, mut earliest) = (Vec::new(), None);
        let observes = state.level() >= level::METERING;
        for (function, copies) in copies(view, scheduled) {
            let answered = |revision: &str, time| answered(&function.key, revision, time);
            let subject = Subject {
                answered: &answered,
                observes,
                revisions: by_owner.remove(&*function.uid).unwrap_or_default(),
                function,
                copies,
            };
            let (steps, again) = plan(&subject, now);
            if !steps.is_empty() {
                all.push(steps);
            }
            earliest = [earliest, again].into_iter().flatten().min();
        }
        (all, earliest)
    }
}

/// One function's steps, as far as nobody came in between: then its next change brings them up again.
async fn perform(together: &Together, state: &State, steps: Vec<Step>) -> Result<(), ProposeError> {
    for step in steps {
        if let Step::Tell { function, notice } = step {
            events::record(together, &function, notice).await;
            continue;
        }
        let Some(command) = command(&step, state) else {
            return Ok(());
        };
        match together.write(command).await {
            Ok(()) => log(&step),
            Err(ProposeError::Rejected(
                Rejection::Conflict { .. }
                | Rejection::NotFound
                | Rejection::NoNamespace
                | Rejection::AlreadyExists,
            )) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a step writes; nothing if what it is about is gone.
pub fn command(step: &Step, state: &State) -> Option<Command> {
    let body = |key: &Key| Some(state.get(key)?.to_value().into_owned());
    let replace = |key: &Key, expect: u64, body: Value| Command::Replace {
        key: key.clone(),
        body: body.into(),
        expect: Some(expect),
    };
    match step {
        Step::Create {
            key,
            function,
            number,
        } => Some(Command::Create {
            key: key.clone(),
            body: revision(key, &body(function)?, *number).into(),
        }),
        Step::Renumber {
            key,
            expect,
            function,
            number,
        } => {
            let mut renumbered = body(key)?;
            renumbered["revision"] = json!(number);
            set_cause(&mut renumbered, &body(function)?);
            Some(replace(key, *expect, renumbered))
        }
        Step::Prune { key, expect } => Some(Command::Delete {
            key: key.clone(),
            expect: Some(*expect),
            uid: None,
        }),
        Step::Stand {
            function,
            expect,
            standing,
        } => {
            let mut told = body(function)?;
            set_status(&mut told["status"], standing);
            Some(replace(function, *expect, told))
        }
        Step::Tell { .. } => None,
    }
}

/// A revision of a function as it is: what of its spec is the version, also fields that only a newer program knows.
fn revision(key: &Key, function: &Value, number: i64) -> Value {
    let mut template = function["spec"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.retain(|name, _| !OUTSIDE_TEMPLATE.contains(&&**name));
    }
    // A tag would be another image by the time that somebody goes back to it.
    if template["artifact"]["sha256"].is_null()
        && let Ok(parsed) = Function::deserialize(function)
        && let Some(component) = parsed.component()
    {
        template["artifact"] = json!(component);
    }
    let metadata = &function["metadata"];
    let mut body = objects::fresh(
        key,
        json!({ "hive.dev/function": metadata["name"] }),
        json!({ "data": { "spec": template }, "revision": number }),
    );
    body["metadata"]["ownerReferences"] = json!([{
        "apiVersion": Resource::Function.api_version(),
        "kind": Resource::Function.kind(),
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    set_cause(&mut body, function);
    body
}

fn set_cause(revision: &mut Value, function: &Value) {
    let metadata = &mut revision["metadata"];
    match function["metadata"]["annotations"].get(CHANGE_CAUSE) {
        Some(cause) => metadata["annotations"][CHANGE_CAUSE] = cause.clone(),
        None => {
            if let Some(known) = metadata["annotations"].as_object_mut() {
                known.remove(CHANGE_CAUSE);
            }
        }
    }
}

fn set_status(status: &mut Value, standing: &Standing) {
    if let Some((value, reason, message)) = &standing.condition {
        let now = std::time::SystemTime::now();
        objects::set_condition(status, "Progressing", value, reason, message, now);
    }
    status["currentRevision"] = json!(standing.current);
    status["updateRevision"] = json!(standing.update);
    status["rollout"] = json!(standing.rollout);
}

pub(super) fn revision_key(function: &Key, name: &str) -> Key {
    Key::new(
        Resource::ControllerRevision,
        function.namespace.clone(),
        name,
    )
}

fn log(step: &Step) {
    match step {
        Step::Create { key, number, .. } => {
            tracing::info!(revision = %key, number, "a new version")
        }
        Step::Renumber { key, number, .. } => {
            tracing::info!(revision = %key, number, "a version is back")
        }
        Step::Prune { key, .. } => tracing::debug!(revision = %key, "forgotten"),
        Step::Stand {
            function, standing, ..
        } => {
            let phase = standing.rollout.as_ref().map(|rollout| rollout.phase);
            tracing::info!(%function, revision = standing.update, ?phase, "rollout");
        }
        Step::Tell { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_what_was_pulled_and_not_the_tag() {
        let key = Key::new(Resource::ControllerRevision, "default", "hello-1");
        let mut function = json!({
            "apiVersion": "hive.dev/v1", "kind": "Function",
            "metadata": { "name": "hello", "uid": "u" },
            "spec": {
                "artifact": { "oci": "ghcr.io/a/b:1" }, "imagePullSecrets": [{ "name": "mine" }],
                "later": "a field of a newer program",
            },
            "status": { "artifact": {
                "requested": "ghcr.io/a/b:1", "reference": "ghcr.io/a/b@sha256:0", "sha256": "00",
                "size": 1, "pulledAt": "2026-01-01T00:00:00Z",
            }},
        });
        let made = revision(&key, &function, 1);
        let pinned = json!({ "oci": "ghcr.io/a/b@sha256:0", "sha256": "00" });
        let expected = json!({ "artifact": pinned, "later": "a field of a newer program" });
        assert_eq!(made["data"]["spec"], expected);

        function["spec"]["artifact"] = json!({ "sha256": "11", "later": 1 });
        let made = revision(&key, &function, 1);
        assert_eq!(
            made["data"]["spec"]["artifact"],
            json!({ "sha256": "11", "later": 1 })
        );
    }
}
