//! What versions answered, as far as one is judged by it: what it is compared with, and since when. Pure.

use std::time::Duration;

use hive_manifests::rollout::{Answered, RolloutPhase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::Subject;
use super::standing::Standing;
use super::verdict::verdict;
use super::view::RevisionView;

impl<'a> Subject<'a> {
    /// What was answered last by a version that was proven, if it is enough to compare another one with.
    pub fn answered_before(&self, standing: &Standing, now: Timestamp) -> Option<Answered> {
        if !self.observes {
            return None;
        }
        let rule = self.function.spec.error_rate();
        let replaced = &self.function.standing;
        let is_proven = replaced.current == replaced.update;
        let time = match &standing.rollout {
            // What is replaced is no measure either; a paused one may be.
            Some(known) if known.phase.goes_on() && !is_proven => return known.before,
            // Until then another version answered.
            Some(known) if known.phase == RolloutPhase::RolledBack => {
                rule.window.min(age(&known.phase_time, now))
            }
            _ => rule.window,
        };
        Some((self.answered)("", time)).filter(|it| it.requests >= rule.min_requests)
    }

    /// There is something to compare it with, and to go back to.
    pub fn can_be_observed(&self, standing: &Standing) -> bool {
        let rollout = standing.rollout.as_ref();
        rollout.is_some_and(|it| it.before.is_some())
            && self.function.spec.error_rate().percent < 100
            && self.proven(standing).is_some()
    }

    /// Why a version that is tried is to be given up because of what it answers.
    pub fn fails_while_tried(
        &self,
        revision: &str,
        started: &Time,
        now: Timestamp,
    ) -> Option<String> {
        let rule = self.function.spec.error_rate();
        // What it answered when it was tried before is not held against it.
        let time = rule.window.min(age(started, now));
        let (tried, others) = ((self.answered)(revision, time), (self.answered)("", time));
        verdict(tried, others, "elsewhere", &rule, time)
    }

    /// Why a version is to be given up because of what was answered since it came.
    pub fn fails_since(
        &self,
        standing: &Standing,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<String> {
        let rollout = standing.rollout.as_ref()?;
        let rule = self.function.spec.error_rate();
        let since = Time(since.max(rollout.start_time.0));
        let time = rule.window.min(age(&since, now));
        let answered = (self.answered)("", time);
        verdict(answered, rollout.before?, "before", &rule, time)
    }

    /// The version to go back to: the last one that was proven, if that is another.
    pub fn proven(&self, standing: &Standing) -> Option<&'a RevisionView> {
        let mut revisions = self.revisions.iter().copied();
        revisions.find(|it| it.key.name == standing.current && standing.current != standing.update)
    }
}

fn age(time: &Time, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(time.0)).unwrap_or_default()
}
