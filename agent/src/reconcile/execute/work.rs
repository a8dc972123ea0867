//! Fetches, loads and probes: how they begin beside the reconciler, and what is written down when they end.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::artifacts::fetch::{FetchError, Outcome, fetch};
use crate::ids::{Digest, SlotId};
use crate::reconcile::load::LoadFailure;
use crate::reconcile::observed::{ArtifactState, Failure, Loaded};
use crate::reconcile::plan::Step;
use crate::reconcile::probe::{ProbeFailure, probe};
use crate::reconcile::settle::Executor;
use crate::reconcile::wanted::{Artifact, Wanted};
use crate::serve::Instance;

/// What has ended.
pub(super) enum Done {
    Fetched(Digest, Outcome),
    Loaded(SlotId, Digest, Result<Arc<Instance>, LoadFailure>),
    /// The instance, and why it is not ready.
    Probed(SlotId, Digest, Result<(), ProbeFailure>),
}

impl Reconciler {
    pub(super) fn begin_fetch(&mut self, artifact: Artifact, now: Instant) {
        let digest = artifact.digest;
        self.observed
            .set_artifact(digest, ArtifactState::Fetching, now);
        let failures = self.observed.fetch_failures.get(&digest);
        let attempt = failures.map_or(0, |failure| failure.attempts);
        let cancel = CancellationToken::new();
        self.fetches.insert(digest, cancel.clone());
        let store = self.around.store.clone();
        let links = self.around.links.current();
        let links = links.into_iter().map(|(_, link)| link).collect();
        self.under_way.spawn(async move {
            let outcome = fetch(&store, artifact, links, attempt, &cancel).await;
            Done::Fetched(digest, outcome)
        });
    }

    pub(super) fn begin_load(&mut self, slot: SlotId, loaded: Loaded) {
        let Some(wanted) = self.wanted_in(&slot) else {
            return;
        };
        let assignment = wanted.assignment.clone();
        let artifact = loaded.artifact;
        let load = self.loader.load(
            &slot,
            self.around.store.path(artifact),
            artifact,
            assignment,
        );
        self.observed.start_load(&slot, loaded);
        self.under_way
            .spawn(async move { Done::Loaded(slot, artifact, load.await) });
    }

    pub(super) fn begin_probe(&mut self, slot: SlotId) {
        let prepared = self.instances.get(&slot).and_then(|it| it.prepared.clone());
        let (Some(instance), Some(wanted)) = (prepared, self.wanted_in(&slot)) else {
            return;
        };
        let (digest, assignment) = (wanted.instance, wanted.assignment.clone());
        let Some(readiness) = assignment.readiness.clone() else {
            return;
        };
        self.observed.start_probe(&slot);
        self.under_way.spawn(async move {
            let answered = probe(&instance, &assignment, &readiness).await;
            Done::Probed(slot, digest, answered)
        });
    }

    pub(super) fn note_end(&mut self, ended: Result<Done, JoinError>) {
        match ended {
            Ok(done) => self.note(done),
            Err(error) => tracing::error!(%error, "a fetch or load broke off"),
        }
    }

    fn note(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Fetched(digest, outcome) => self.note_fetch(digest, outcome, now),
            Done::Loaded(slot, _, Ok(instance)) => {
                self.observed.finish_load(&slot);
                self.instances.entry(slot).or_default().prepared = Some(instance);
            }
            Done::Loaded(slot, artifact, Err(failure)) => {
                if failure.is_of_the_file() {
                    // It is not what it was when it got its name: it has to come again.
                    self.take(Step::RemoveArtifact(artifact), now);
                }
                self.tell(&slot, failure.reason(), failure.to_string());
                self.observed
                    .fail_load(&slot, now, failure.reason(), failure.to_string());
            }
            Done::Probed(slot, instance, answered) => {
                self.note_probe(&slot, instance, answered, now)
            }
        }
    }

    /// It cannot answer any more: to load it again finds out what its file lacks, and sees to that.
    pub(super) fn note_lost(&mut self, instance: &Arc<Instance>) {
        let mut instances = self.instances.iter();
        let found = instances.find(|(_, slot)| {
            let serving = slot.serving.as_ref();
            serving.is_some_and(|serving| Arc::ptr_eq(serving, instance))
        });
        if let Some((slot, _)) = found {
            self.take(Step::Unload(slot.clone()), Instant::now());
        }
    }

    fn note_probe(
        &mut self,
        slot: &SlotId,
        instance: Digest,
        answered: Result<(), ProbeFailure>,
        now: Instant,
    ) {
        let answered = answered.map_err(|failure| failure.to_string());
        let failure = self
            .observed
            .finish_probe(slot, instance, answered, now)
            .cloned();
        let readiness = self
            .wanted_in(slot)
            .and_then(|wanted| wanted.assignment.readiness.clone());
        if let (Some(failure), Some(readiness)) = (failure, readiness)
            && failure.attempts == readiness.failure_threshold
        {
            self.tell(slot, failure.reason, failure.message);
        }
    }

    fn note_fetch(&mut self, digest: Digest, outcome: Outcome, now: Instant) {
        self.fetches.remove(&digest);
        let state = match outcome.result {
            Ok(()) => {
                self.observed.fetch_failures.remove(&digest);
                ArtifactState::Held
            }
            Err(FetchError::Cancelled) => ArtifactState::Partial,
            Err(error) => {
                // Bytes came, so the way is good: the wait starts from the first.
                let previous = self.observed.fetch_failures.remove(&digest);
                let previous = previous.filter(|_| !outcome.progress);
                let (reason, message) = (error.reason(), error.to_string());
                let failure = Failure::again(previous.as_ref(), now, reason, message.clone());
                self.observed.fetch_failures.insert(digest, failure);
                tracing::warn!(artifact = %digest, reason, message, "cannot fetch");
                for slot in self.slots_that_want(digest) {
                    self.tell(&slot, reason, message.clone());
                }
                ArtifactState::Partial
            }
        };
        self.observed.set_artifact(digest, state, now);
    }

    fn slots_that_want(&self, artifact: Digest) -> Vec<SlotId> {
        let wants = |wanted: &&Wanted| wanted.artifact.as_ref().is_ok_and(|a| a.digest == artifact);
        let slots = self.wanted.iter().filter(wants);
        slots.map(|wanted| wanted.slot.clone()).collect()
    }
}
