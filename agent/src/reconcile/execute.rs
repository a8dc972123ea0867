//! Takes the plan's steps, and makes no choices. One task owns everything that changes here.
//!
//! Fetches and loads run beside it and come back as results, which it writes down as observed; then
//! it plans again. It publishes what serves to the [`Server`](crate::serve::Server) and what is so
//! to the session.

mod publish;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::holdings::{self, Holdings};
use super::load::Loader;
use super::observed::{ArtifactState, Observed};
use super::plan::Step;
use super::report::Told;
use super::settle::{Executor, settle};
use super::wanted::{Host, Wanted, wanted};
use crate::artifacts::{ArtifactStore, Found};
use crate::desired::DesiredSet;
use crate::events::Events;
use crate::ids::{Digest, SlotId};
use crate::key_value::KeyValues;
use crate::links::Links;
use crate::logs::Logs;
use crate::runtime::LazyRuntime;
use crate::scratch::Scratches;
use crate::serve::Instance;
use crate::serve::table::Table;
use crate::usage::Meters;
use publish::note_the_start;
use work::Done;

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

impl Reconciler {
    /// To be made before there are links: what is desired now is what was here before the start.
    pub fn new(around: Surroundings, found: Found) -> Self {
        note_the_start(&around);
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

    fn drop_if_empty(&mut self, slot: &SlotId) {
        let is_empty = |slot: &Instances| slot.serving.is_none() && slot.prepared.is_none();
        if self.instances.get(slot).is_some_and(is_empty) {
            self.instances.remove(slot);
        }
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
