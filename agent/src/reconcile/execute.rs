//! Takes the plan's steps, and makes no choices. One task owns everything that changes here.
//!
//! Fetches and loads run beside it and come back as results, which it writes down as observed; then
//! it plans again. It publishes what serves to the [`Server`](crate::serve::Server) and what is so
//! to the session.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::holdings::{self, Holdings};
use super::load::{LoadFailure, Loader};
use super::observed::{ArtifactState, Failure, Loaded, Observed};
use super::plan::Step;
use super::probe::{ProbeFailure, probe};
use super::report::{Told, statuses};
use super::settle::{Executor, settle};
use super::wanted::{Artifact, Host, Wanted, wanted};
use crate::artifacts::fetch::{FetchError, Outcome, fetch};
use crate::artifacts::{ArtifactStore, Found};
use crate::desired::DesiredSet;
use crate::events::{Events, Kind};
use crate::ids::{Digest, FunctionId, SlotId};
use crate::key_value::KeyValues;
use crate::links::Links;
use crate::logs::{Logs, Version};
use crate::runtime::LazyRuntime;
use crate::scratch::Scratches;
use crate::serve::Instance;
use crate::serve::table::Table;
use crate::usage::Meters;

/// What the reconciler works with, and where it says what it did.
pub struct Surroundings {
    pub desired: watch::Receiver<Arc<DesiredSet>>,
    pub host: Host,
    pub runtime: LazyRuntime,
    /// After which a function gives back the memory of its code.
    pub idle_after: Duration,
    pub store: ArtifactStore,
    pub links: Links,
    pub logs: Logs,
    pub key_values: KeyValues,
    pub scratches: Scratches,
    pub events: Events,
    pub meters: Meters,
    pub table: watch::Sender<Arc<Table<Instance>>>,
    pub told: watch::Sender<Arc<Told>>,
    pub holdings: watch::Sender<Holdings>,
}

pub struct Reconciler {
    around: Surroundings,
    loader: Loader,
    /// In order of slots, as desired sets are.
    wanted: Vec<Wanted>,
    epoch: u64,
    generation: u64,
    observed: Observed,
    instances: BTreeMap<SlotId, Instances>,
    /// Whether the table that was published last says something else than what serves.
    is_stale: bool,
    under_way: JoinSet<Done>,
    fetches: BTreeMap<Digest, CancellationToken>,
    lost: mpsc::Receiver<Arc<Instance>>,
}

/// Looks for functions that are idle, in the time after which one is.
const LOOKS_FOR_IDLE: u32 = 4;

/// Instances that told that they are lost, and wait to be heard.
const LOST_AT_MOST: usize = 64;

/// The instances behind an observed slot.
#[derive(Default)]
struct Instances {
    serving: Option<Arc<Instance>>,
    prepared: Option<Arc<Instance>>,
}

enum Done {
    Fetched(Digest, Outcome),
    Loaded(SlotId, Digest, Result<Arc<Instance>, LoadFailure>),
    /// The instance, and why it is not ready.
    Probed(SlotId, Digest, Result<(), ProbeFailure>),
}

impl Reconciler {
    pub fn new(around: Surroundings, found: Found) -> Self {
        let now = Instant::now();
        let (tell_lost, lost) = mpsc::channel(LOST_AT_MOST);
        let mut observed = Observed::default();
        for digest in found.parts {
            observed.set_artifact(digest, ArtifactState::Partial, now);
        }
        for digest in found.whole {
            observed.set_artifact(digest, ArtifactState::Held, now);
        }
        Self {
            loader: Loader::new(
                around.runtime.clone(),
                around.logs.clone(),
                around.events.clone(),
                around.key_values.clone(),
                around.scratches.clone(),
                around.meters.clone(),
                tell_lost,
            ),
            around,
            wanted: Vec::new(),
            epoch: 0,
            generation: 0,
            observed,
            instances: BTreeMap::new(),
            is_stale: false,
            under_way: JoinSet::new(),
            fetches: BTreeMap::new(),
            lost,
        }
    }

    /// Reconciles until `stop`. Then nothing new is taken up, and no new request finds an instance;
    /// those under way keep theirs.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut links = self.around.links.changes();
        let mut desired = self.around.desired.clone();
        let mut is_new = true;
        let mut idle = tokio::time::interval(self.around.idle_after / LOOKS_FOR_IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.note_the_start(&desired.borrow());
        loop {
            if std::mem::take(&mut is_new) {
                let desired = desired.borrow_and_update().clone();
                self.reread(&desired);
            }
            links.mark_unchanged();
            self.observed.linked = !self.around.links.current().is_empty();
            let wake = settle(&mut self);
            // Before it is told: who hears that a function is ready may ask for it at once.
            self.publish_what_changed();
            self.tell_statuses();
            holdings::publish(&self.observed, &self.around.holdings);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = desired.changed() => match changed {
                    Ok(()) => is_new = true,
                    Err(_) => break,
                },
                changed = links.changed() => if changed.is_err() { break },
                Some(done) = self.under_way.join_next() => {
                    self.note_end(done);
                    // At a start hundreds end within milliseconds: one look serves them all.
                    while let Some(done) = self.under_way.try_join_next() {
                        self.note_end(done);
                    }
                }
                Some(instance) = self.lost.recv() => self.note_lost(&instance),
                _ = idle.tick() => self.loader.unmap_idle(self.around.idle_after),
                () = sleep_until(wake) => {}
            }
        }
        self.around.table.send_replace(Arc::default());
    }

    /// Logs are not kept over restarts: whoever reads one must not take its begin for the function's.
    fn note_the_start(&self, held: &DesiredSet) {
        for encoded in &held.assignments {
            let assignment = encoded.assignment();
            self.around.logs.note(
                &FunctionId::of(assignment),
                &SlotId::of(assignment),
                Version::of(assignment),
                "the agent started; what was logged before is gone",
            );
        }
    }

    fn reread(&mut self, desired: &DesiredSet) {
        self.epoch = desired.epoch;
        self.generation = desired.generation;
        self.wanted = wanted(desired, &self.around.host);
        // What failed and isn't wanted any more is not worth remembering.
        let instances: HashSet<Digest> = self.wanted.iter().map(|one| one.instance).collect();
        let artifacts: HashSet<Digest> = self
            .wanted
            .iter()
            .filter_map(|wanted| Some(wanted.artifact.as_ref().ok()?.digest))
            .collect();
        self.observed
            .load_failures
            .retain(|instance, _| instances.contains(instance));
        self.observed
            .fetch_failures
            .retain(|digest, _| artifacts.contains(digest));
        // Routes are of what is wanted.
        self.is_stale = true;
    }

    fn wanted_in(&self, slot: &SlotId) -> Option<&Wanted> {
        let found = self.wanted.binary_search_by(|one| one.slot.cmp(slot));
        Some(&self.wanted[found.ok()?])
    }

    fn tell_statuses(&self) {
        let told = Told {
            epoch: self.epoch,
            generation: self.generation,
            statuses: statuses(&self.wanted, &self.observed),
        };
        told.publish(&self.around.told);
    }

    fn begin_fetch(&mut self, artifact: Artifact, now: Instant) {
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

    fn begin_load(&mut self, slot: SlotId, loaded: Loaded) {
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

    fn begin_probe(&mut self, slot: SlotId) {
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

    fn note_end(&mut self, ended: Result<Done, JoinError>) {
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
    fn note_lost(&mut self, instance: &Arc<Instance>) {
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

    fn tell(&self, slot: &SlotId, reason: &'static str, message: String) {
        if let Some(wanted) = self.wanted_in(slot) {
            self.around
                .events
                .push(Kind::Warning, slot, &wanted.function, reason, message);
        }
    }

    fn tell_of_swap(&self, slot: &SlotId) {
        let serving = self
            .observed
            .slots
            .get(slot)
            .and_then(|slot| slot.serving.as_ref());
        let Some(serving) = serving else { return };
        tracing::info!(
            function = %serving.function,
            assignment = %slot,
            generation = serving.generation,
            "function serves"
        );
        self.around.events.push(
            Kind::Normal,
            slot,
            &serving.function,
            "Serving",
            format!("generation {} serves", serving.generation),
        );
    }

    fn drop_if_empty(&mut self, slot: &SlotId) {
        let is_empty = |slot: &Instances| slot.serving.is_none() && slot.prepared.is_none();
        if self.instances.get(slot).is_some_and(is_empty) {
            self.instances.remove(slot);
        }
    }

    /// Once for all the steps that were taken: a table names everything, so one for each step would
    /// cost the square of what there is.
    fn publish_what_changed(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.publish_table();
        self.forget_functions_that_left();
    }

    fn publish_table(&self) {
        let mut table = Table::default();
        for instance in self
            .instances
            .values()
            .filter_map(|slot| slot.serving.as_ref())
        {
            table.serve(
                instance.id.clone(),
                instance.trial.as_deref(),
                instance.clone(),
            );
        }
        for wanted in &self.wanted {
            for route in &wanted.assignment.routes {
                table.add_route(&wanted.function, route);
            }
        }
        self.around.table.send_replace(Arc::new(table));
    }

    fn forget_functions_that_left(&self) {
        let slots = self.observed.slots.values();
        let here: HashSet<&FunctionId> = slots
            .flat_map(|slot| slot.occupants())
            .map(|loaded| &loaded.function)
            .chain(self.wanted.iter().map(|wanted| &wanted.function))
            .collect();
        self.around.logs.retain(|function| here.contains(function));
        self.around
            .meters
            .retain(|function| here.contains(function));
    }
}

impl Executor for Reconciler {
    fn wanted_and_observed(&mut self) -> (&[Wanted], &mut Observed) {
        (&self.wanted, &mut self.observed)
    }

    fn take(&mut self, step: Step, now: Instant) {
        tracing::debug!(?step, "step");
        match step {
            Step::Fetch(artifact) => self.begin_fetch(artifact, now),
            Step::CancelFetch(digest) => {
                self.observed
                    .set_artifact(digest, ArtifactState::Stopping, now);
                if let Some(cancel) = self.fetches.get(&digest) {
                    cancel.cancel();
                }
            }
            Step::Load { slot, loaded } => self.begin_load(slot, loaded),
            Step::Probe(slot) => self.begin_probe(slot),
            Step::Swap(slot) => {
                self.observed.swap(&slot);
                let instances = self.instances.entry(slot.clone()).or_default();
                let next = instances.prepared.take();
                if let Some(next) = &next {
                    self.around.logs.serve(&next.id, next.version);
                }
                instances.serving = next;
                self.is_stale = true;
                self.tell_of_swap(&slot);
            }
            Step::Discard(slot) => {
                self.observed.discard(&slot);
                self.instances.entry(slot.clone()).or_default().prepared = None;
                self.drop_if_empty(&slot);
            }
            Step::Unload(slot) => {
                self.observed.unload(&slot);
                let old = self
                    .instances
                    .entry(slot.clone())
                    .or_default()
                    .serving
                    .take();
                self.drop_if_empty(&slot);
                if let Some(old) = old {
                    tracing::info!(function = %old.id, assignment = %slot, "function ends here");
                }
                self.is_stale = true;
            }
            Step::RemoveArtifact(digest) => {
                self.observed.artifacts.remove(&digest);
                if let Err(error) = self.around.store.remove(digest) {
                    tracing::warn!(artifact = %digest, %error, "cannot remove an artifact");
                }
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
