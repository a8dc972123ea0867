//! A copy, as scheduling sees it.

use std::time::Duration;

use hive_manifests::{Assignment, AssignmentSpec, Phase};
use jiff::Timestamp;

use crate::state::{Key, Object};

#[derive(Clone, Debug)]
pub struct AssignmentView {
    pub key: Key,
    pub revision: u64,
    pub spec: AssignmentSpec,
    pub phase: Phase,
    /// The node answers requests for it, at the generation of its spec.
    pub current: bool,
    /// Since when it does, if that is known: it is not of those that did before this was noted.
    pub ready_since: Option<Timestamp>,
    /// What its status says to people; empty where all is well.
    pub message: String,
}

impl AssignmentView {
    pub(super) fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }

    pub(super) fn of(object: &Object) -> Option<Self> {
        let assignment: Assignment = object.parse().ok()?;
        let status = assignment.status.unwrap_or_default();
        Some(Self {
            key: object.key().clone(),
            revision: object.revision(),
            phase: status.phase,
            // Agents before revisions report none.
            current: status.phase == Phase::Ready
                && status.observed_generation == Some(assignment.spec.function_generation)
                && (status.observed_revision.is_empty()
                    || status.observed_revision == assignment.spec.revision),
            ready_since: status.ready_since.map(|time| time.0),
            spec: assignment.spec,
            message: status.message,
        })
    }

    /// When it will have answered for `min_ready`; `None` while it does not answer.
    pub fn settled_at(&self, min_ready: Duration) -> Option<Timestamp> {
        let since = self.ready_since.unwrap_or(Timestamp::MIN);
        self.current.then(|| since + min_ready)
    }
}
