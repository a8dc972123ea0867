//! Takes the steps of the agent's own plan on a machine that is made up: an artifact is there after a
//! moment, an instance at once. It makes no choices either; what is told is what a real node tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::artifacts::ArtifactStore;
use crate::artifacts::fetch::fetch;
use crate::desired::DesiredSet;
use crate::events::{Events, Kind};
use crate::ids::{Digest, SlotId};
use crate::links::Links;
use crate::reconcile::holdings::{self, Holdings};
use crate::reconcile::observed::{ArtifactState, Failure, Observed};
use crate::reconcile::plan::Step;
use crate::reconcile::report::{Told, statuses};
use crate::reconcile::settle::{Executor, settle};
use crate::reconcile::wanted::{Artifact, Host, Wanted, wanted};

/// What the download of a small component takes in a home network.
const FETCH_TIME: Duration = Duration::from_millis(50);

/// Its fields are as those of the reconciler's surroundings.
pub struct Machine {
    pub desired: watch::Receiver<Arc<DesiredSet>>,
    pub host: Host,
    /// Artifacts are really fetched where there is one.
    pub store: Option<ArtifactStore>,
    pub links: Links,
    pub events: Events,
    pub told: watch::Sender<Arc<Told>>,
    pub holdings: watch::Sender<Holdings>,
}

/// An artifact, and why it did not come.
type Fetched = (Digest, Result<(), (&'static str, String)>);

struct Running {
    machine: Machine,
    epoch: u64,
    generation: u64,
    wanted: Vec<Wanted>,
    observed: Observed,
    fetches: JoinSet<Fetched>,
}

impl Machine {
    /// For as long as the node lives.
    pub async fn run(self) {
        let mut desired = self.desired.clone();
        let mut links = self.links.changes();
        let mut running = Running {
            machine: self,
            epoch: 0,
            generation: 0,
            wanted: Vec::new(),
            observed: Observed::default(),
            fetches: JoinSet::new(),
        };
        loop {
            links.mark_unchanged();
            let set = desired.borrow_and_update().clone();
            if (running.epoch, running.generation) != (set.epoch, set.generation) {
                (running.epoch, running.generation) = (set.epoch, set.generation);
                running.wanted = wanted(&set, &running.machine.host);
            }
            running.observed.linked = !running.machine.links.current().is_empty();
            let wake = settle(&mut running);
            running.tell_statuses();
            holdings::publish(&running.observed, &running.machine.holdings);
            let due = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                changed = links.changed() => if changed.is_err() { return },
                Some(Ok(fetched)) = running.fetches.join_next() => running.note(fetched),
                () = due => {}
            }
        }
    }
}

impl Executor for Running {
    fn wanted_and_observed(&mut self) -> (&[Wanted], &mut Observed) {
        (&self.wanted, &mut self.observed)
    }

    fn take(&mut self, step: Step, now: Instant) {
        match step {
            Step::Fetch(artifact) => self.begin_fetch(artifact, now),
            // What is under way here ends soon; then it is removed like any other.
            Step::CancelFetch(digest) => {
                self.observed
                    .set_artifact(digest, ArtifactState::Stopping, now);
            }
            Step::Load { slot, loaded } => {
                self.observed.start_load(&slot, loaded);
                self.observed.finish_load(&slot);
            }
            Step::Probe(slot) => {
                self.observed.start_probe(&slot);
                let prepared = self
                    .observed
                    .slots
                    .get(&slot)
                    .and_then(|slot| slot.prepared.as_ref());
                if let Some(instance) = prepared.map(|prepared| prepared.instance) {
                    self.observed.finish_probe(&slot, instance, Ok(()), now);
                }
            }
            Step::Swap(slot) => {
                self.observed.swap(&slot);
                self.tell_of_swap(&slot);
            }
            Step::Discard(slot) => self.observed.discard(&slot),
            Step::Unload(slot) => self.observed.unload(&slot),
            Step::RemoveArtifact(digest) => {
                self.observed.artifacts.remove(&digest);
                if let Some(store) = &self.machine.store {
                    // The directory goes with the benchmark.
                    let _ = store.remove(digest);
                }
            }
        }
    }
}

impl Running {
    fn tell_statuses(&self) {
        let told = Told {
            epoch: self.epoch,
            generation: self.generation,
            statuses: statuses(&self.wanted, &self.observed),
        };
        told.publish(&self.machine.told);
    }

    fn begin_fetch(&mut self, artifact: Artifact, now: Instant) {
        let digest = artifact.digest;
        self.observed
            .set_artifact(digest, ArtifactState::Fetching, now);
        let Some(store) = self.machine.store.clone() else {
            self.fetches.spawn(async move {
                tokio::time::sleep(FETCH_TIME).await;
                (digest, Ok(()))
            });
            return;
        };
        let failures = self.observed.fetch_failures.get(&digest);
        let attempt = failures.map_or(0, |failure| failure.attempts);
        let links = self.machine.links.current();
        let links = links.into_iter().map(|(_, link)| link).collect();
        self.fetches.spawn(async move {
            let never = CancellationToken::new();
            let outcome = fetch(&store, artifact, links, attempt, &never).await;
            let told =
                |error: crate::artifacts::fetch::FetchError| (error.reason(), error.to_string());
            (digest, outcome.result.map_err(told))
        });
    }

    fn note(&mut self, (digest, result): Fetched) {
        let now = Instant::now();
        let state = match result {
            Ok(()) => {
                self.observed.fetch_failures.remove(&digest);
                ArtifactState::Held
            }
            Err((reason, message)) => {
                let previous = self.observed.fetch_failures.remove(&digest);
                let failure = Failure::again(previous.as_ref(), now, reason, message);
                self.observed.fetch_failures.insert(digest, failure);
                ArtifactState::Partial
            }
        };
        self.observed.set_artifact(digest, state, now);
    }

    fn tell_of_swap(&self, slot: &SlotId) {
        let slots = &self.observed.slots;
        let Some(serving) = slots.get(slot).and_then(|slot| slot.serving.as_ref()) else {
            return;
        };
        let message = format!("generation {} serves", serving.generation);
        self.machine
            .events
            .push(Kind::Normal, slot, &serving.function, "Serving", message);
    }
}
