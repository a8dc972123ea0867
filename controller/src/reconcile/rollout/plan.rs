//! What is to be said of a function's versions: a pure function of what there is.

use std::time::Duration;

use hive_manifests::rollout::{Answered, CanaryStatus, RolloutPhase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::canary::{Trial, advance};
use super::standing::Standing;
use super::view::RevisionView;
use super::words::{
    Condition, complete, condition, exceeded, observed, paused, pausing, reaches, tried, trying,
};
use crate::reconcile::events::Notice;
use crate::reconcile::schedule::{Copies, FunctionView, began_at, moved_on_at, settled_at};
use crate::state::Key;

/// A function, what it was, and what runs of it.
pub struct Subject<'a> {
    pub function: &'a FunctionView,
    pub revisions: Vec<&'a RevisionView>,
    pub copies: Copies<'a>,
    /// What was answered in the last time by copies that were asked for a revision, or for none.
    pub answered: &'a dyn Fn(&str, Duration) -> Answered,
    /// All controllers read what is written of a version that is observed.
    pub observes: bool,
}

/// How often what a version answers is looked at until it is proven: ingresses tell as often.
const EACH: Duration = Duration::from_secs(1);

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
        standing.update = name;
        self.start(subject, standing, number);
        // How the first one comes is told by its assignments.
        if !is_first {
            self.tell(function, false, "RolloutStarted", reaches(number).2);
        }
    }

    fn start(&mut self, subject: &Subject<'_>, standing: &mut Standing, number: i64) {
        let function = subject.function;
        let before = subject.answered_before(standing, self.now);
        standing.enter(function, RolloutPhase::Progressing, true, self.now);
        if let Some(rollout) = &mut standing.rollout {
            rollout.before = before;
        }
        standing.condition = Some(reaches(number));
        self.look_again_at(self.now + function.spec.progress_deadline());
        // There is nothing to compare with before a first version has come, and nothing to try where no copy
        // is wanted.
        let has_other = !standing.current.is_empty() && standing.current != standing.update;
        let is_tried = !function.spec.canary_steps().is_empty() && subject.copies.wanted > 0;
        if has_other && is_tried {
            if let Some(rollout) = &mut standing.rollout {
                rollout.canary = Some(CanaryStatus {
                    step: 0,
                    weight: 0,
                    step_time: Time(self.now),
                });
            }
            self.look_again_at(self.now);
        }
    }

    /// The version is known: how far is it?
    fn go_on(&mut self, subject: &Subject<'_>, standing: &mut Standing, number: i64) {
        let function = subject.function;
        let phase = standing.rollout.as_ref().map(|rollout| rollout.phase);
        if let Some(rollout) = &mut standing.rollout
            && rollout.phase == RolloutPhase::RolledBack
        {
            // Until it is another, or is to be tried again.
            rollout.observed_generation = function.generation;
            if !function.spec.paused && function.asked.retries(&rollout.phase_time) {
                self.start(subject, standing, number);
                self.tell(function, false, "RolloutStarted", reaches(number).2);
            }
            return;
        }
        if function.spec.paused {
            if phase != Some(RolloutPhase::Paused) {
                standing.enter(function, RolloutPhase::Paused, false, self.now);
                let waits = paused(number);
                self.tell(function, false, "RolloutPaused", waits.2.clone());
                standing.condition = Some(waits);
            }
            return;
        }
        if matches!(phase, None | Some(RolloutPhase::Paused)) {
            standing.enter(function, RolloutPhase::Progressing, false, self.now);
        }
        let Some(rollout) = &mut standing.rollout else {
            return;
        };
        if rollout.phase == RolloutPhase::Complete {
            return;
        }
        rollout.observed_generation = function.generation;
        if rollout.phase == RolloutPhase::Observing {
            return self.observe(subject, standing, number);
        }
        let phase_time = rollout.phase_time.0;
        if let Some(canary) = rollout.canary.clone() {
            let started = rollout.start_time.clone();
            if let Some(why) = subject.fails_while_tried(&standing.update, &started, self.now)
                && self.roll_back(subject, standing, number, &why)
            {
                return;
            }
            // What is answered is no change of any object.
            self.look_again_at(self.now + EACH);
            let weight = canary.weight;
            let (canary, trial) = advance(canary, subject, &started, self.now);
            if let Some(rollout) = &mut standing.rollout {
                rollout.canary = Some(canary.clone());
            }
            if canary.weight != weight {
                self.tell(function, false, "CanaryStep", tried(number, &canary));
            }
            match trial {
                Trial::Over => {}
                Trial::Pausing(until) => {
                    standing.condition = Some(pausing(number, &canary, until));
                    return self.again_at(until);
                }
                Trial::Coming { settled, since } => {
                    let since = since.max(phase_time);
                    let says = trying(number, &canary);
                    return self.wait_or_give_up(subject, standing, number, settled, since, says);
                }
            }
        }
        let template = function.spec.template();
        let updated = || subject.copies.updated(&template);
        let (wanted, min_ready) = (subject.copies.wanted, function.spec.min_ready());
        let settled = settled_at(updated(), wanted, min_ready);
        if settled.is_some_and(|due| due <= self.now) {
            if wanted == 0 || !subject.can_be_observed(standing) {
                return self.complete(subject, standing, number);
            }
            standing.enter(function, RolloutPhase::Observing, false, self.now);
            return self.observe(subject, standing, number);
        }
        // Some copies have gone over to it, and what they answer is part of all that is answered.
        if let Some(since) = began_at(updated())
            && subject.can_be_observed(standing)
        {
            if let Some(why) = subject.fails_since(standing, since, self.now)
                && self.roll_back(subject, standing, number, &why)
            {
                return;
            }
            self.look_again_at(self.now + EACH);
        }
        let since = moved_on_at(updated()).unwrap_or(Timestamp::MIN);
        // After a trial it is the last step that it came from.
        let canary = standing.rollout.as_ref().and_then(|it| it.canary.as_ref());
        let step_time = canary.map_or(Timestamp::MIN, |canary| canary.step_time.0);
        let since = since.max(phase_time).max(step_time);
        let says = reaches(number);
        self.wait_or_give_up(subject, standing, number, settled, since, says);
    }

    /// Copies are on their way, as `says` tells, unless nothing came forward `since` for too long.
    fn wait_or_give_up(
        &mut self,
        subject: &Subject<'_>,
        standing: &mut Standing,
        number: i64,
        settled: Option<Timestamp>,
        since: Timestamp,
        says: Condition,
    ) {
        self.again_at(settled);
        let function = subject.function;
        let deadline = function.spec.progress_deadline();
        let due = since + deadline;
        // A copy that settles is on its way, however long it has to answer first.
        if settled.is_some() || due > self.now {
            standing.condition = Some(says);
            return self.again_at(Some(due).filter(|due| *due > self.now));
        }
        let stands = exceeded(number, deadline, function.missing.as_deref());
        if !self.roll_back(subject, standing, number, &stands.2)
            && standing.condition.as_ref() != Some(&stands)
        {
            self.tell(function, true, "ProgressDeadlineExceeded", stands.2.clone());
            standing.condition = Some(stands);
        }
    }

    /// All copies run it. It is proven when it has answered for a while, and not worse than the one before.
    fn observe(&mut self, subject: &Subject<'_>, standing: &mut Standing, number: i64) {
        let Some(since) = standing.rollout.as_ref().map(|it| it.phase_time.0) else {
            return;
        };
        if let Some(why) = subject.fails_since(standing, since, self.now)
            && self.roll_back(subject, standing, number, &why)
        {
            return;
        }
        let until = since + subject.function.spec.error_rate().window;
        if until <= self.now || !subject.can_be_observed(standing) {
            return self.complete(subject, standing, number);
        }
        standing.condition = Some(observed(number, until));
        self.look_again_at(until.min(self.now + EACH));
    }

    fn complete(&mut self, subject: &Subject<'_>, standing: &mut Standing, number: i64) {
        let function = subject.function;
        standing.enter(function, RolloutPhase::Complete, false, self.now);
        let done = complete(number);
        if standing.current != standing.update {
            // Of the very first one the assignments tell.
            if !standing.current.is_empty() || number > 1 {
                self.tell(function, false, "RolloutComplete", done.2.clone());
            }
            standing.current.clone_from(&standing.update);
        }
        standing.condition = Some(done);
    }

    /// False if there is no version to go back to.
    fn roll_back(
        &mut self,
        subject: &Subject<'_>,
        standing: &mut Standing,
        number: i64,
        why: &str,
    ) -> bool {
        let Some(back) = subject.proven(standing) else {
            return false;
        };
        let (function, to) = (subject.function, back.number);
        standing.enter(function, RolloutPhase::RolledBack, false, self.now);
        let message = format!("revision {number} was rolled back to revision {to}: {why}");
        self.tell(function, true, "RolledBack", message.clone());
        standing.condition = Some(condition("False", "RolledBack", message));
        true
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

    fn again_at(&mut self, due: Option<Timestamp>) {
        if let Some(due) = due {
            self.look_again_at(due);
        }
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
