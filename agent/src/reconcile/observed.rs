//! What is so on this node: what each slot serves, which artifacts are on the disk, what is under
//! way, what failed and when. Only the executor writes it, as steps begin and end; no I/O here.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use crate::ids::{Digest, FunctionId, SlotId};

#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether a controller is there to fetch from.
    pub linked: bool,
    pub slots: BTreeMap<SlotId, Slot>,
    /// What is on the disk or coming.
    pub artifacts: BTreeMap<Digest, OnDisk>,
    /// By artifact.
    pub fetch_failures: BTreeMap<Digest, Failure>,
    /// By instance.
    pub load_failures: BTreeMap<Digest, Failure>,
}

/// A place for one instance, with up to one more that is to follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub serving: Option<Loaded>,
    /// Loaded, and not serving yet.
    pub prepared: Option<Loaded>,
    /// Whether it has shown that it is ready.
    pub probe: Probe,
    pub loading: Option<Loaded>,
    /// Since when the function that serves in it is not wanted on this node.
    pub leaving: Option<Instant>,
}

/// What came of asking an instance whether it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    #[default]
    Unasked,
    /// The answer is on its way; what was so before is kept.
    Asked(Option<Failure>),
    Passed,
    Failed(Failure),
}

impl Probe {
    /// The last of the failures in a row.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Asked(failure) => failure.as_ref(),
            Self::Failed(failure) => Some(failure),
            Self::Unasked | Self::Passed => None,
        }
    }
}

/// An instance of a function, and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub instance: Digest,
    pub artifact: Digest,
    pub function: FunctionId,
    pub uid: String,
    pub generation: u64,
    /// As its assignment calls it; may be empty.
    pub revision: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    pub state: ArtifactState,
    /// When the plan last had a use for it.
    pub last_wanted: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactState {
    /// The first part, from an attempt that was cut off.
    Partial,
    Fetching,
    /// Told to stop fetching, and not done with it yet.
    Stopping,
    Held,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub attempts: u32,
    pub at: Instant,
    /// CamelCase, for machines.
    pub reason: &'static str,
    pub message: String,
}

/// Reason of a fetch that failed for lack of space; what is not needed is then removed at once.
pub const DISK_FULL: &str = "DiskFull";

/// Reason of an instance that does not show that it is ready.
pub const PROBE_FAILED: &str = "ReadinessProbeFailed";

impl Slot {
    pub fn is_empty(&self) -> bool {
        self.serving.is_none() && self.prepared.is_none() && self.loading.is_none()
    }

    pub fn occupants(&self) -> impl Iterator<Item = &Loaded> {
        [&self.serving, &self.prepared, &self.loading]
            .into_iter()
            .flatten()
    }
}

impl Failure {
    /// The failure after `previous`, if that was the same thing failing.
    pub fn again(
        previous: Option<&Self>,
        at: Instant,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self {
            attempts: previous
                .map_or(0, |failure| failure.attempts)
                .saturating_add(1),
            at,
            reason,
            message,
        }
    }
}

impl Observed {
    pub fn state_of(&self, artifact: Digest) -> Option<ArtifactState> {
        self.artifacts.get(&artifact).map(|on_disk| on_disk.state)
    }

    pub fn set_artifact(&mut self, artifact: Digest, state: ArtifactState, now: Instant) {
        self.artifacts.insert(
            artifact,
            OnDisk {
                state,
                last_wanted: now,
            },
        );
    }

    /// Notes that these artifacts are of use now. The others grow old.
    pub fn touch(&mut self, artifacts: impl IntoIterator<Item = Digest>, now: Instant) {
        for digest in artifacts {
            if let Some(on_disk) = self.artifacts.get_mut(&digest) {
                on_disk.last_wanted = now;
            }
        }
    }

    /// Notes which functions are wanted on this node now.
    pub fn mark_leaving(&mut self, wanted: &HashSet<&FunctionId>, now: Instant) {
        for slot in self.slots.values_mut() {
            let serving = slot.serving.as_ref();
            if serving.is_some_and(|serving| !wanted.contains(&serving.function)) {
                slot.leaving.get_or_insert(now);
            } else {
                slot.leaving = None;
            }
        }
    }

    pub fn start_load(&mut self, slot: &SlotId, loaded: Loaded) {
        self.slots.entry(slot.clone()).or_default().loading = Some(loaded);
    }

    /// What was loading is ready. `None` if nothing was loading.
    pub fn finish_load(&mut self, slot: &SlotId) -> Option<&Loaded> {
        let slot = self.slots.get_mut(slot)?;
        let loaded = slot.loading.take()?;
        self.load_failures.remove(&loaded.instance);
        slot.prepared = Some(loaded);
        slot.probe = Probe::Unasked;
        slot.prepared.as_ref()
    }

    pub fn fail_load(&mut self, slot: &SlotId, at: Instant, reason: &'static str, message: String) {
        let Some(loaded) = self
            .slots
            .get_mut(slot)
            .and_then(|slot| slot.loading.take())
        else {
            return;
        };
        let previous = self.load_failures.get(&loaded.instance);
        let failure = Failure::again(previous, at, reason, message);
        self.load_failures.insert(loaded.instance, failure);
        self.drop_if_empty(slot);
    }

    pub fn start_probe(&mut self, slot: &SlotId) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let before = slot.probe.failure().cloned();
            slot.probe = Probe::Asked(before);
        }
    }

    /// What an instance answered, or why that is none. It may have been discarded meanwhile. The failure, if it
    /// is one.
    pub fn finish_probe(
        &mut self,
        slot: &SlotId,
        instance: Digest,
        answered: Result<(), String>,
        at: Instant,
    ) -> Option<&Failure> {
        let slot = self.slots.get_mut(slot)?;
        if slot.prepared.as_ref()?.instance != instance {
            return None;
        }
        slot.probe = match answered {
            Ok(()) => Probe::Passed,
            Err(message) => {
                let before = slot.probe.failure();
                Probe::Failed(Failure::again(before, at, PROBE_FAILED, message))
            }
        };
        slot.probe.failure()
    }

    pub fn swap(&mut self, slot: &SlotId) {
        if let Some(slot) = self.slots.get_mut(slot)
            && let Some(prepared) = slot.prepared.take()
        {
            slot.serving = Some(prepared);
            slot.probe = Probe::Unasked;
        }
    }

    pub fn discard(&mut self, slot: &SlotId) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.prepared = None;
            slot.probe = Probe::Unasked;
        }
        self.drop_if_empty(slot);
    }

    pub fn unload(&mut self, slot: &SlotId) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.serving = None;
        }
        self.drop_if_empty(slot);
    }

    fn drop_if_empty(&mut self, slot: &SlotId) {
        if self.slots.get(slot).is_some_and(Slot::is_empty) {
            self.slots.remove(slot);
        }
    }
}
