//! How far a version is tried: which of its strategy's steps are done. Pure.

use hive_manifests::rollout::{CanaryStatus, CanaryStep};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::plan::Subject;
use crate::reconcile::schedule::{moved_on_at, settled_at};

/// What people asked of a rollout, by annotations: they name the rollout that they are about by its times, so that
/// none is heeded twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// `<rollout.startTime>/<step>` ends that step, `<rollout.startTime>/full` all of them.
    promote: Option<String>,
    /// `<rollout.phaseTime>` of one that was rolled back.
    retry: Option<String>,
}

/// Where a version stands after the steps that are done.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// All copies may go over to it.
    Over,
    /// Its copies are to answer.
    Coming {
        /// When they will have for long enough, if all do.
        settled: Option<Timestamp>,
        /// Since when none more does.
        since: Timestamp,
    },
    /// Until somebody says so, if not until then.
    Pausing(Option<Timestamp>),
}

impl Asked {
    pub fn of(metadata: &ObjectMeta) -> Self {
        let asked = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
        Self {
            promote: asked("hive.dev/promote"),
            retry: asked("hive.dev/retry"),
        }
    }

    pub fn retries(&self, rolled_back_at: &Time) -> bool {
        self.retry
            .as_deref()
            .is_some_and(|it| names(it, rolled_back_at))
    }

    fn promotes(&self, started: &Time, step: u32) -> bool {
        let Some((time, upto)) = self.promote.as_deref().and_then(|it| it.split_once('/')) else {
            return false;
        };
        names(time, started) && (upto == "full" || upto.parse() == Ok(step))
    }
}

fn names(text: &str, time: &Time) -> bool {
    text.parse::<Timestamp>().is_ok_and(|it| it == time.0)
}

/// Goes on to the step that is not done yet.
pub fn advance(
    mut canary: CanaryStatus,
    subject: &Subject<'_>,
    started: &Time,
    now: Timestamp,
) -> (CanaryStatus, Trial) {
    let function = subject.function;
    let steps = function.spec.canary_steps();
    let template = function.spec.template();
    while let Some(step) = steps.get(canary.step as usize) {
        let waits_for = match step {
            CanaryStep {
                set_weight: Some(weight),
                ..
            } => {
                let replicas = u32::try_from(subject.copies.wanted).unwrap_or(u32::MAX);
                let copies = function.spec.canary_copies(&canary, replicas) as usize;
                let trying = || subject.copies.trying(&template);
                let settled = settled_at(trying(), copies, function.spec.min_ready());
                if settled.is_some_and(|due| due <= now) {
                    canary.weight = *weight;
                    None
                } else {
                    let moved = moved_on_at(trying()).unwrap_or(Timestamp::MIN);
                    let since = moved.max(canary.step_time.0);
                    Some(Trial::Coming { settled, since })
                }
            }
            CanaryStep { pause, .. } => {
                let duration = pause.as_ref().and_then(|pause| pause.duration);
                let until = duration.map(|duration| canary.step_time.0 + duration.0);
                let is_over = until.is_some_and(|until| until <= now);
                (!is_over).then_some(Trial::Pausing(until))
            }
        };
        match waits_for {
            Some(_) if function.asked.promotes(started, canary.step) => {}
            Some(waits_for) => return (canary, waits_for),
            None => {}
        }
        canary.step += 1;
        canary.step_time = Time(now);
    }
    (canary, Trial::Over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_of_another_rollout_is_not_heeded() {
        let time = |text: &str| Time(text.parse().expect("a time"));
        let (this, other) = (time("2026-01-01T00:00:01Z"), time("2026-01-01T00:00:02Z"));
        let asked = |promote: &str| Asked {
            promote: Some(promote.to_owned()),
            retry: None,
        };
        let one = asked("2026-01-01T00:00:01Z/3");
        assert!(one.promotes(&this, 3));
        assert!(!one.promotes(&this, 2));
        assert!(!one.promotes(&other, 3));
        let full = asked("2026-01-01T00:00:01Z/full");
        assert!(full.promotes(&this, 0) && full.promotes(&this, 9));
        assert!(!full.promotes(&other, 0));
        for bad in [
            "",
            "/",
            "x/1",
            "2026-01-01T00:00:01Z",
            "2026-01-01T00:00:01Z/x",
        ] {
            assert!(!asked(bad).promotes(&this, 1), "{bad}");
        }
        assert!(!Asked::default().retries(&this));
    }
}
