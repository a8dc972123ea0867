//! What the controllers are told about each assignment: a pure function, and the channel that takes its result.
//!
//! While a change is on its way the old instance serves, so it is Ready, at the generation that it
//! has; also when the change has failed: then the reason is told with it. No progress is told: a
//! report is sent on each difference, and a metered link should carry artifacts.

use std::sync::Arc;

use hive_proto::v1::{AssignmentStatus, Phase};
use tokio::sync::watch;

use super::observed::{Failure, Observed};
use super::wanted::Wanted;

/// A message is for one line of a terminal; what a toolchain says can be pages.
const MESSAGE_BYTES: usize = 1024;

/// What the controllers are to be told, and of which desired set it speaks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub epoch: u64,
    pub generation: u64,
    pub statuses: Vec<AssignmentStatus>,
}

impl Told {
    /// Wakes whoever tells them only if there is something new.
    pub fn publish(self, to: &watch::Sender<Arc<Self>>) {
        to.send_if_modified(|before| {
            let changed = **before != self;
            if changed {
                *before = Arc::new(self);
            }
            changed
        });
    }
}

/// One status for each assignment, in their order.
pub fn statuses(wanted: &[Wanted], observed: &Observed) -> Vec<AssignmentStatus> {
    wanted
        .iter()
        .map(|wanted| status(wanted, observed))
        .collect()
}

fn status(wanted: &Wanted, observed: &Observed) -> AssignmentStatus {
    let assignment = &wanted.assignment;
    let serving = observed
        .slots
        .get(&wanted.slot)
        .and_then(|slot| slot.serving.as_ref())
        // A predecessor of the same name is not this assignment.
        .filter(|serving| serving.uid == assignment.uid);
    let status = |phase: Phase, reason: &str, message: String| {
        // What serves if anything does, else what is on its way.
        let (generation, revision) = match serving {
            Some(serving) => (serving.generation, &serving.revision),
            None => (assignment.function_generation, &assignment.revision),
        };
        AssignmentStatus {
            namespace: wanted.slot.namespace.clone(),
            name: wanted.slot.name.clone(),
            uid: assignment.uid.clone(),
            function_generation: generation,
            phase: phase.into(),
            reason: reason.to_owned(),
            message,
            revision: revision.clone(),
        }
    };
    if let Some(serving) = serving
        && serving.instance == wanted.instance
    {
        return status(Phase::Ready, "", String::new());
    }
    if let Some((reason, message)) = failure(wanted, observed) {
        return match serving {
            // It answers requests: the ingress must not pass it over.
            Some(serving) => {
                let message = format!("{message}; generation {} serves on", serving.generation);
                status(Phase::Ready, reason, message)
            }
            None => status(Phase::Failed, reason, message),
        };
    }
    match serving {
        Some(_) => status(Phase::Ready, "", String::new()),
        None => status(Phase::Fetching, "", String::new()),
    }
}

fn failure(wanted: &Wanted, observed: &Observed) -> Option<(&'static str, String)> {
    let artifact = match &wanted.artifact {
        Ok(artifact) => artifact,
        Err(refusal) => return Some((refusal.reason(), refusal.to_string())),
    };
    let told = |failure: &Failure| (failure.reason, cut(&failure.message));
    observed
        .load_failures
        .get(&wanted.instance)
        .or_else(|| observed.fetch_failures.get(&artifact.digest))
        .or_else(|| probe_failure(wanted, observed))
        .map(told)
}

/// That a copy is not ready yet is told when it was asked often enough.
fn probe_failure<'a>(wanted: &Wanted, observed: &'a Observed) -> Option<&'a Failure> {
    let readiness = wanted.assignment.readiness.as_ref()?;
    let slot = observed.slots.get(&wanted.slot)?;
    let prepared = slot.prepared.as_ref()?;
    let failure = slot.probe.failure()?;
    let is_told = failure.attempts >= readiness.failure_threshold;
    (is_told && prepared.instance == wanted.instance).then_some(failure)
}

fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Instant;

    use hive_proto::v1;

    use super::*;
    use crate::ids::{Digest, FunctionId, SlotId};
    use crate::reconcile::observed::{ArtifactState, Loaded};
    use crate::reconcile::wanted::{Artifact, Refusal};

    fn want(generation: u64) -> Wanted {
        Wanted {
            slot: SlotId::new("default", "hello-1"),
            function: FunctionId::new("default", "hello"),
            instance: Digest([generation as u8; 32]),
            artifact: Ok(Artifact {
                digest: Digest([100; 32]),
                size: 1,
            }),
            assignment: Arc::new(v1::Assignment {
                uid: "u1".into(),
                function_generation: generation,
                ..Default::default()
            }),
        }
    }

    fn load(observed: &mut Observed, wanted: &Wanted) {
        let loaded = Loaded {
            instance: wanted.instance,
            artifact: Digest([100; 32]),
            function: wanted.function.clone(),
            uid: wanted.assignment.uid.clone(),
            generation: wanted.assignment.function_generation,
            revision: wanted.assignment.revision.clone(),
        };
        observed.start_load(&wanted.slot, loaded);
    }

    fn told(wanted: &Wanted, observed: &Observed) -> (Phase, u64, String, String) {
        let status = statuses(std::slice::from_ref(wanted), observed).remove(0);
        let phase = status.phase();
        (
            phase,
            status.function_generation,
            status.reason,
            status.message,
        )
    }

    #[test]
    fn an_assignment_is_fetching_then_ready_and_a_failed_change_says_what_serves() {
        let (first, second) = (want(1), want(2));
        let mut observed = Observed::default();
        let now = Instant::now();
        observed.set_artifact(Digest([100; 32]), ArtifactState::Fetching, now);
        let none = String::new;
        assert_eq!(
            told(&first, &observed),
            (Phase::Fetching, 1, none(), none())
        );

        load(&mut observed, &first);
        observed.finish_load(&first.slot);
        observed.swap(&first.slot);
        assert_eq!(told(&first, &observed), (Phase::Ready, 1, none(), none()));
        // The change is on its way: what serves is told.
        assert_eq!(told(&second, &observed), (Phase::Ready, 1, none(), none()));

        load(&mut observed, &second);
        observed.fail_load(&second.slot, now, "LoadFailed", "it is broken".into());
        assert_eq!(
            told(&second, &observed),
            (
                Phase::Ready,
                1,
                "LoadFailed".into(),
                "it is broken; generation 1 serves on".into()
            )
        );
    }

    #[test]
    fn the_version_that_is_told_is_the_one_that_serves() {
        let named = |revision: &str, version: u8| Wanted {
            instance: Digest([version; 32]),
            assignment: Arc::new(v1::Assignment {
                uid: "u1".into(),
                function_generation: 2,
                revision: revision.into(),
                ..Default::default()
            }),
            ..want(2)
        };
        let mut observed = Observed::default();
        let (bad, good) = (named("bad", 1), named("good", 2));
        load(&mut observed, &bad);
        observed.finish_load(&bad.slot);
        observed.swap(&bad.slot);
        // Back to the one before, at the same generation.
        for (serving, now) in [("bad", &bad), ("bad", &good)] {
            let status = statuses(std::slice::from_ref(now), &observed).remove(0);
            assert_eq!(status.revision, serving);
        }
        load(&mut observed, &good);
        observed.finish_load(&good.slot);
        observed.swap(&good.slot);
        let status = statuses(std::slice::from_ref(&good), &observed).remove(0);
        assert_eq!((status.phase(), &*status.revision), (Phase::Ready, "good"));
    }

    #[test]
    fn one_that_is_not_ready_is_told_after_some_tries() {
        let mut wanted = want(1);
        Arc::make_mut(&mut wanted.assignment).readiness = Some(v1::Readiness {
            failure_threshold: 2,
            ..Default::default()
        });
        let (mut observed, now) = (Observed::default(), Instant::now());
        load(&mut observed, &wanted);
        observed.finish_load(&wanted.slot);
        let fail = |observed: &mut Observed| {
            observed.start_probe(&wanted.slot);
            let answered = Err("GET / is answered with 503".to_owned());
            observed.finish_probe(&wanted.slot, wanted.instance, answered, now);
            told(&wanted, observed)
        };
        assert_eq!(fail(&mut observed).0, Phase::Fetching);
        let failed = (
            Phase::Failed,
            1,
            "ReadinessProbeFailed".into(),
            "GET / is answered with 503".into(),
        );
        assert_eq!(fail(&mut observed), failed);
        // While it is asked once more, that is what is known of it.
        observed.start_probe(&wanted.slot);
        assert_eq!(told(&wanted, &observed), failed);
    }

    #[test]
    fn a_refusal_is_a_failure() {
        let mut refused = want(1);
        refused.artifact = Err(Refusal::Signature);
        let (phase, _, reason, message) = told(&refused, &Observed::default());
        assert_eq!((phase, reason.as_str()), (Phase::Failed, "BadSignature"));
        assert!(message.contains("not signed"));
    }

    #[test]
    fn a_namesake_that_serves_is_not_the_new_assignment() {
        let mut observed = Observed::default();
        let old = want(1);
        load(&mut observed, &old);
        observed.finish_load(&old.slot);
        observed.swap(&old.slot);
        let mut anew = want(2);
        anew.assignment = Arc::new(v1::Assignment {
            uid: "u2".into(),
            function_generation: 2,
            ..Default::default()
        });
        assert_eq!(told(&anew, &observed).0, Phase::Fetching);
    }
}
