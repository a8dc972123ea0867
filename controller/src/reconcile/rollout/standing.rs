//! Where a rollout stands.

use hive_manifests::FunctionStatus;
use hive_manifests::rollout::{RolloutPhase, RolloutStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::reconcile::schedule::FunctionView;

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

    /// From now on it is in this phase, of the same rollout unless that `is_new`.
    pub fn enter(
        &mut self,
        function: &FunctionView,
        phase: RolloutPhase,
        is_new: bool,
        now: Timestamp,
    ) {
        let now = Time(now);
        let known = self.rollout.take().filter(|_| !is_new);
        let start_time = match &known {
            Some(known) => known.start_time.clone(),
            None => now.clone(),
        };
        let known = known.filter(|_| phase.goes_on());
        let before = known.as_ref().and_then(|known| known.before);
        // Copies that try it are for as long as the others do not run it.
        let canary = known.and_then(|known| known.canary);
        self.rollout = Some(RolloutStatus {
            observed_generation: function.generation,
            phase,
            start_time,
            phase_time: now,
            before,
            canary: canary.filter(|_| phase != RolloutPhase::Observing),
        });
    }
}
