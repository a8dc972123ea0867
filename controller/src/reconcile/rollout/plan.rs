//! What is to be said of a function's versions: a pure function of what there is.

use std::time::Duration;

use hive_manifests::FunctionStatus;
use hive_manifests::rollout::{RolloutPhase, RolloutStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::view::RevisionView;
use crate::reconcile::events::Notice;
use crate::reconcile::schedule::{Copies, FunctionView};
use crate::state::Key;

/// A function, what it was, and what runs of it.
pub struct Subject<'a> {
    pub function: &'a FunctionView,
    pub revisions: Vec<&'a RevisionView>,
    pub copies: Copies<'a>,
}

/// Where a rollout stands, as a function's status holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    pub current: String,
    pub update: String,
    pub rollout: Option<RolloutStatus>,
    /// Of the condition Progressing: status, reason, message.
    pub condition: Option<(String, String, String)>,
}

impl Standing {
    pub fn of(status: &FunctionStatus) -> Self {
        let told = status
            .conditions
            .iter()
            .find(|it| it.type_ == "Progressing");
        Self {
            current: status.current_revision.clone(),
            update: status.update_revision.clone(),
            rollout: status.rollout.clone(),
            condition: told.map(|it| (it.status.clone(), it.reason.clone(), it.message.clone())),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A version that was not there yet.
    Create {
        key: Key,
        function: Key,
        number: i64,
    },
    /// One that is back is the newest again.
    Renumber {
        key: Key,
        expect: u64,
        function: Key,
        number: i64,
    },
    /// One that nobody goes back to.
    Prune {
        key: Key,
        expect: u64,
    },
    Stand {
        function: Key,
        expect: u64,
        standing: Box<Standing>,
    },
    Tell {
        function: Key,
        notice: Notice,
    },
}

/// The steps of one function in the order in which they must be done, and when to look again although nothing
/// changed.
pub fn plan(subject: &Subject<'_>, now: Timestamp) -> (Vec<Step>, Option<Timestamp>) {
    let function = subject.function;
    // Its revisions go with it, and its copies are no longer anybody's business here.
    if function.ending.is_some() {
        return (Vec::new(), None);
    }
    // An image that was never here is no version yet.
    if function.spec.artifact.sha256.is_none() {
        return (Vec::new(), None);
    }
    let mut planning = Planning {
        steps: Vec::new(),
        again: None,
        now,
    };
    let mut standing = function.standing.clone();
    let known = subject
        .revisions
        .iter()
        .find(|revision| revision.key.name == standing.update);
    match known {
        Some(known) if known.template == function.digest || function.spec.paused => {
            planning.go_on(subject, &mut standing, known.number);
            planning.prune(subject, &standing);
        }
        _ => planning.begin(subject, &mut standing),
    }
    if standing != function.standing {
        // Told once it is written, which the order says.
        let at = planning
            .steps
            .iter()
            .position(|step| matches!(step, Step::Tell { .. }))
            .unwrap_or(planning.steps.len());
        let standing = Step::Stand {
            function: function.key.clone(),
            expect: function.revision,
            standing: Box::new(standing),
        };
        planning.steps.insert(at, standing);
    }
    (planning.steps, planning.again)
}

struct Planning {
    steps: Vec<Step>,
    again: Option<Timestamp>,
    now: Timestamp,
}

impl Planning {
    /// Another version than before is to reach the copies.
    fn begin(&mut self, subject: &Subject<'_>, standing: &mut Standing) {
        let function = subject.function;
        let newest = subject.revisions.iter().map(|it| it.number).max();
        let same = subject
            .revisions
            .iter()
            .find(|revision| revision.template == function.digest);
        let (name, number) = match same {
            Some(same) if Some(same.number) == newest => (same.key.name.clone(), same.number),
            Some(same) => {
                let number = newest.unwrap_or(0) + 1;
                self.steps.push(Step::Renumber {
                    key: same.key.clone(),
                    expect: same.revision,
                    function: function.key.clone(),
                    number,
                });
                (same.key.name.clone(), number)
            }
            None => {
                let number = newest.unwrap_or(0) + 1;
                let name = function.digest.name(&function.key, &function.uid);
                self.steps.push(Step::Create {
                    key: super::run::revision_key(&function.key, &name),
                    function: function.key.clone(),
                    number,
                });
                (name, number)
            }
        };
        let is_first = standing.update.is_empty();
        if is_first {
            standing.current.clone_from(&name);
        }
        standing.update = name;
        self.enter(standing, function, RolloutPhase::Progressing, true);
        standing.condition = Some(reaches(number));
        self.again = Some(self.now + function.spec.progress_deadline());
        // How the first one comes is told by its assignments.
        if !is_first {
            self.tell(function, false, "RolloutStarted", reaches(number).2);
        }
    }

    /// The version is known: how far is it?
    fn go_on(&mut self, subject: &Subject<'_>, standing: &mut Standing, number: i64) {
        let function = subject.function;
        let phase = standing.rollout.as_ref().map(|rollout| rollout.phase);
        if function.spec.paused {
            if phase != Some(RolloutPhase::Paused) {
                self.enter(standing, function, RolloutPhase::Paused, false);
                let waits = paused(number);
                self.tell(function, false, "RolloutPaused", waits.2.clone());
                standing.condition = Some(waits);
            }
            return;
        }
        if phase != Some(RolloutPhase::Progressing) && phase != Some(RolloutPhase::Complete) {
            self.enter(standing, function, RolloutPhase::Progressing, false);
        }
        let Some(rollout) = &mut standing.rollout else {
            return;
        };
        if rollout.phase == RolloutPhase::Complete {
            return;
        }
        rollout.observed_generation = function.generation;
        let template = function.spec.template();
        let settled = subject
            .copies
            .settled_at(&template, function.spec.min_ready());
        match settled {
            Some(due) if due <= self.now => {
                self.enter(standing, function, RolloutPhase::Complete, false);
                let done = complete(number);
                if standing.current != standing.update {
                    standing.current.clone_from(&standing.update);
                    self.tell(function, false, "RolloutComplete", done.2.clone());
                }
                standing.condition = Some(done);
                return;
            }
            Some(due) => self.look_again_at(due),
            None => {}
        }
        let moved = subject.copies.moved_on_at(&template);
        let since = moved.unwrap_or(Timestamp::MIN).max(rollout.phase_time.0);
        let deadline = function.spec.progress_deadline();
        let due = since + deadline;
        // A copy that settles is on its way, however long it has to answer first.
        if settled.is_none() && due <= self.now {
            let stands = exceeded(number, deadline);
            if standing.condition.as_ref() != Some(&stands) {
                self.tell(function, true, "ProgressDeadlineExceeded", stands.2.clone());
                standing.condition = Some(stands);
            }
            return;
        }
        self.look_again_at(due.max(self.now));
        standing.condition = Some(reaches(number));
    }

    /// What is beyond the history, oldest first; never what runs or should.
    fn prune(&mut self, subject: &Subject<'_>, standing: &Standing) {
        let mut older: Vec<_> = subject
            .revisions
            .iter()
            .filter(|it| it.key.name != standing.current && it.key.name != standing.update)
            .collect();
        older.sort_by_key(|revision| revision.number);
        let surplus = older.len().saturating_sub(subject.function.spec.history());
        self.steps
            .extend(older.into_iter().take(surplus).map(|it| Step::Prune {
                key: it.key.clone(),
                expect: it.revision,
            }));
    }

    fn enter(
        &self,
        standing: &mut Standing,
        function: &FunctionView,
        phase: RolloutPhase,
        is_new: bool,
    ) {
        let now = Time(self.now);
        let start_time = match &standing.rollout {
            Some(known) if !is_new => known.start_time.clone(),
            _ => now.clone(),
        };
        standing.rollout = Some(RolloutStatus {
            observed_generation: function.generation,
            phase,
            start_time,
            phase_time: now,
        });
    }

    fn look_again_at(&mut self, due: Timestamp) {
        self.again = Some(self.again.map_or(due, |known| known.min(due)));
    }

    fn tell(&mut self, function: &FunctionView, warning: bool, reason: &str, message: String) {
        self.steps.push(Step::Tell {
            function: function.key.clone(),
            notice: Notice {
                warning,
                reason: reason.into(),
                message,
                source: "rollout".into(),
                count: 1,
            },
        });
    }
}

type Condition = (String, String, String);

fn condition(status: &str, reason: &str, message: String) -> Condition {
    (status.to_owned(), reason.to_owned(), message)
}

fn reaches(number: i64) -> Condition {
    let message = format!("revision {number} is reaching the copies");
    condition("True", "RollingUpdate", message)
}

fn complete(number: i64) -> Condition {
    let message = format!("all copies run revision {number}");
    condition("True", "NewRevisionAvailable", message)
}

fn paused(number: i64) -> Condition {
    let message = format!("changes wait after revision {number}: spec.paused is set");
    condition("Unknown", "Paused", message)
}

fn exceeded(number: i64, deadline: Duration) -> Condition {
    let seconds = deadline.as_secs();
    let message = format!("no copy went over to revision {number} for {seconds} s");
    condition("False", "ProgressDeadlineExceeded", message)
}
