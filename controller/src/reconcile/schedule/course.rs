//! Which version each copy of a function is to run. Pure.
//!
//! What people wrote is the newest version. The function's status says what the swarm makes of it: it is held
//! back, it is tried on copies of its own, or it failed and all go back to the one before.

use hive_manifests::FunctionSpec;
use hive_manifests::rollout::RolloutPhase;

use crate::reconcile::rollout::Standing;

/// A version of a function: what its revision is called, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub name: String,
    pub template: FunctionSpec,
    /// What it refers to and is not there, in words: no node can be sent it.
    pub missing: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// What the newest version is called; empty before there are revisions.
    pub newest: String,
    /// What new copies run instead, and copies that try a version: the one that had begun to roll out before
    /// the newest was written, which waits.
    pub held: Option<Version>,
    /// What all copies that are wanted run instead, and go back to.
    pub kept: Option<Version>,
    /// How many copies try the newest version, or the one that is held, beside those that are wanted.
    pub trials: u32,
}

impl Course {
    /// `replicas` is how many copies are wanted. `own` is what the newest version is called unless it is known by another name; `named` reads a revision.
    pub fn of(
        spec: &FunctionSpec,
        replicas: u32,
        own: String,
        standing: &Standing,
        named: impl Fn(&str) -> Option<Version>,
    ) -> Self {
        if standing.update.is_empty() {
            return Self {
                newest: own,
                ..Self::default()
            };
        }
        let template = spec.template();
        let rolling = named(&standing.update);
        let is_rolling = rolling
            .as_ref()
            .is_some_and(|rolling| rolling.template == template);
        let newest = match is_rolling {
            true => standing.update.clone(),
            false => own,
        };
        // What is to be tried first reaches no copy before it was taken up.
        let waits = !is_rolling && (spec.paused || !spec.canary_steps().is_empty());
        let rollout = standing.rollout.as_ref().filter(|_| is_rolling || waits);
        let canary = rollout.and_then(|rollout| rollout.canary.as_ref());
        let is_tried = canary.is_some_and(|it| (it.step as usize) < spec.canary_steps().len());
        let is_back = rollout.is_some_and(|it| it.phase == RolloutPhase::RolledBack);
        let kept = match is_tried || is_back {
            true => named(&standing.current),
            false if spec.paused => None,
            false => rolling.clone().filter(|_| waits),
        };
        Self {
            newest,
            held: rolling.filter(|_| waits),
            kept: kept.filter(|kept| kept.template != template),
            trials: canary.map_or(0, |canary| spec.canary_copies(canary, replicas)),
        }
    }

    /// Nothing but that version.
    pub fn only(name: &str) -> Self {
        Self {
            newest: name.to_owned(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_manifests::rollout::{CanaryStatus, RolloutStatus};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn spec(timeout: &str, canary: bool, paused: bool) -> FunctionSpec {
        let mut spec = json!({
            "artifact": { "sha256": "00" }, "timeout": timeout, "paused": paused,
        });
        if canary {
            let steps = json!([{ "setWeight": 30 }, { "pause": {} }]);
            spec["strategy"] = json!({ "type": "Canary", "canary": { "steps": steps } });
        }
        serde_json::from_value(spec).unwrap()
    }

    /// The versions are "1s" and "2s" by their timeouts; "2s" is to reach all copies.
    fn course(spec: &FunctionSpec, phase: RolloutPhase, step: Option<u32>) -> Course {
        let time = || Time(Timestamp::UNIX_EPOCH);
        let standing = Standing {
            current: "1s".into(),
            update: "2s".into(),
            rollout: Some(RolloutStatus {
                observed_generation: 1,
                phase,
                start_time: time(),
                phase_time: time(),
                before: None,
                canary: step.map(|step| CanaryStatus {
                    step,
                    weight: 0,
                    step_time: time(),
                }),
            }),
            condition: None,
        };
        Course::of(spec, 4, "own".into(), &standing, |name| {
            Some(Version {
                name: name.to_owned(),
                template: self::spec(name, false, false).template(),
                missing: None,
            })
        })
    }

    #[test]
    fn each_copy_runs_what_the_status_makes_of_the_newest_version() {
        use RolloutPhase::{Complete, Observing, Paused, Progressing, RolledBack};
        // Timeout of the newest, canary, paused, phase, step; newest, held, kept, trials.
        let cases = [
            (("2s", false, false, Progressing, None), ("2s", "", "", 0)),
            (("2s", false, false, RolledBack, None), ("2s", "", "1s", 0)),
            (("2s", true, false, Observing, None), ("2s", "", "", 0)),
            (("3s", true, false, Observing, None), ("own", "2s", "2s", 0)),
            (
                ("2s", true, false, Progressing, Some(0)),
                ("2s", "", "1s", 2),
            ),
            (("2s", true, true, Paused, Some(1)), ("2s", "", "1s", 2)),
            // All steps are done.
            (("2s", true, false, Progressing, Some(2)), ("2s", "", "", 1)),
            // Its steps were taken away.
            (
                ("2s", false, false, Progressing, Some(1)),
                ("2s", "", "", 0),
            ),
            // Not taken up yet.
            (("3s", false, false, RolledBack, None), ("own", "", "", 0)),
            (("3s", false, false, Progressing, None), ("own", "", "", 0)),
            (("3s", true, false, Complete, None), ("own", "2s", "2s", 0)),
            (
                ("3s", true, false, RolledBack, None),
                ("own", "2s", "1s", 0),
            ),
            (
                ("3s", true, false, Progressing, Some(1)),
                ("own", "2s", "1s", 2),
            ),
            (("3s", false, true, Paused, None), ("own", "2s", "", 0)),
            (
                ("3s", false, true, RolledBack, None),
                ("own", "2s", "1s", 0),
            ),
            (
                ("1s", true, false, Progressing, Some(1)),
                ("own", "2s", "", 2),
            ),
        ];
        for (given, expected) in cases {
            let (timeout, canary, paused, phase, step) = given;
            let found = course(&spec(timeout, canary, paused), phase, step);
            let name =
                |version: &Option<Version>| version.as_ref().map_or("", |it| &it.name).to_owned();
            let shown = (
                &*found.newest,
                &*name(&found.held),
                &*name(&found.kept),
                found.trials,
            );
            assert_eq!(shown, expected, "{given:?}");
        }
    }
}
