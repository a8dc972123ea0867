//! Which steps lead from what is so to what is wanted. Pure: equal arguments, equal plan.
//!
//! A new instance is loaded beside the old one and takes its place when it is ready; until then, and
//! if it never is, the old one serves. A function that is wanted here and serves here is never
//! without an instance that serves; one that is wanted here no more serves until nobody asks for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::backoff::backoff;
use super::observed::{ArtifactState, DISK_FULL, Failure, Loaded, Observed, Probe};
use super::wanted::{Artifact, Wanted};
use crate::ids::{Digest, FunctionId, SlotId};

/// Fetches at once. Two keep a link busy while one waits for the disk; more would only make each
/// artifact later on a home's uplink.
pub const MAX_FETCHES: usize = 2;

/// How long an artifact that nothing uses stays on the disk: a roll back on the same day costs a
/// metered link nothing.
pub const ARTIFACT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How long a function serves on after its last assignment here is gone. The controllers' ingresses
/// hear of that at about the same time as this node, and what they sent by what they knew before may
/// have waited 5 s for a link. This is twice as long. A request whose body streams can't be sent again.
pub const LINGER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Get the artifact, or the rest of it, onto the disk.
    Fetch(Artifact),
    /// Stop fetching what nobody needs any more; the part that came is kept for a while.
    CancelFetch(Digest),
    /// Make an instance ready in the slot, beside the one that may be serving.
    Load { slot: SlotId, loaded: Loaded },
    /// Ask the instance that is prepared whether it is ready.
    Probe(SlotId),
    /// Let the ready instance serve in place of the other, which ends with its last request.
    Swap(SlotId),
    /// Drop a ready instance that is not wanted after all.
    Discard(SlotId),
    /// Stop serving.
    Unload(SlotId),
    /// Delete the artifact, or what came of it.
    RemoveArtifact(Digest),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When to look again though nothing may have happened: a retry or a removal is due then.
    pub wake: Option<Instant>,
}

/// The artifacts that something on this node needs.
pub fn needed_artifacts(wanted: &[Wanted], observed: &Observed) -> BTreeSet<Digest> {
    let for_slots = observed.slots.values().flat_map(|slot| slot.occupants());
    wanted
        .iter()
        .filter_map(|wanted| wanted.artifact.as_ref().ok())
        .map(|artifact| artifact.digest)
        .chain(for_slots.map(|loaded| loaded.artifact))
        .collect()
}

pub fn wanted_functions(wanted: &[Wanted]) -> HashSet<&FunctionId> {
    wanted.iter().map(|wanted| &wanted.function).collect()
}

pub fn plan(wanted: &[Wanted], observed: &Observed, now: Instant) -> Plan {
    let mut plan = Plan::default();
    let mut fetching: BTreeSet<Digest> = observed
        .artifacts
        .iter()
        .filter(|(_, on_disk)| on_disk.state == ArtifactState::Fetching)
        .map(|(digest, _)| *digest)
        .collect();
    for wanted in wanted {
        plan.fill(wanted, observed, &mut fetching, now);
    }
    plan.empty_unwanted_slots(wanted, observed, now);
    plan.remove_artifacts(wanted, observed, now);
    plan
}

impl Plan {
    fn fill(
        &mut self,
        wanted: &Wanted,
        observed: &Observed,
        fetching: &mut BTreeSet<Digest>,
        now: Instant,
    ) {
        let current = observed.slots.get(&wanted.slot);
        let slot = || wanted.slot.clone();
        let is_wanted = |loaded: &Loaded| loaded.instance == wanted.instance;

        if let Some(prepared) = current.and_then(|slot| slot.prepared.as_ref()) {
            if is_wanted(prepared) {
                let probe = current.map(|slot| &slot.probe);
                return self.bring_in(wanted, probe.unwrap_or(&Probe::Unasked), now);
            }
            self.steps.push(Step::Discard(slot()));
        }
        if current.is_some_and(|slot| slot.serving.as_ref().is_some_and(is_wanted)) {
            return;
        }
        // Whatever is loading must end first: loads can't be interrupted.
        if current.is_some_and(|slot| slot.loading.is_some()) {
            return;
        }
        let Ok(artifact) = wanted.artifact else {
            return;
        };
        match observed.state_of(artifact.digest) {
            Some(ArtifactState::Fetching | ArtifactState::Stopping) => {}
            Some(ArtifactState::Held) => {
                if self.may_try(observed.load_failures.get(&wanted.instance), now) {
                    self.steps.push(Step::Load {
                        slot: slot(),
                        loaded: loaded(wanted, artifact.digest),
                    });
                }
            }
            Some(ArtifactState::Partial) | None => {
                let failure = observed.fetch_failures.get(&artifact.digest);
                // One that must wait its turn starts when another ends, which wakes us.
                if observed.linked
                    && self.may_try(failure, now)
                    && fetching.len() < MAX_FETCHES
                    && fetching.insert(artifact.digest)
                {
                    self.steps.push(Step::Fetch(artifact));
                }
            }
        }
    }

    /// What is loaded takes its place when it has answered as it should.
    fn bring_in(&mut self, wanted: &Wanted, probe: &Probe, now: Instant) {
        let slot = wanted.slot.clone();
        let Some(readiness) = &wanted.assignment.readiness else {
            return self.steps.push(Step::Swap(slot));
        };
        match probe {
            Probe::Passed => self.steps.push(Step::Swap(slot)),
            Probe::Unasked => self.steps.push(Step::Probe(slot)),
            Probe::Asked(_) => {}
            Probe::Failed(failure) => {
                let due = failure.at + Duration::from_millis(readiness.period_ms);
                match due <= now {
                    true => self.steps.push(Step::Probe(slot)),
                    false => self.wake_at(due),
                }
            }
        }
    }

    fn empty_unwanted_slots(&mut self, wanted: &[Wanted], observed: &Observed, now: Instant) {
        let slots: HashSet<&SlotId> = wanted.iter().map(|wanted| &wanted.slot).collect();
        let functions = functions_served(wanted, observed);
        for (id, slot) in &observed.slots {
            if slots.contains(id) {
                continue;
            }
            if slot.prepared.is_some() {
                self.steps.push(Step::Discard(id.clone()));
            }
            let Some(serving) = &slot.serving else {
                continue;
            };
            let until = match functions.get(&serving.function) {
                // Another slot answers in its place.
                Some(true) => now,
                // Until another slot does.
                Some(false) => continue,
                None => slot.leaving.unwrap_or(now) + LINGER,
            };
            if until <= now {
                self.steps.push(Step::Unload(id.clone()));
            } else {
                self.wake_at(until);
            }
        }
    }

    fn remove_artifacts(&mut self, wanted: &[Wanted], observed: &Observed, now: Instant) {
        let needed = needed_artifacts(wanted, observed);
        let disk_is_full = needed.iter().any(|digest| {
            let failure = observed.fetch_failures.get(digest);
            failure.is_some_and(|failure| failure.reason == DISK_FULL)
        });
        for (digest, on_disk) in &observed.artifacts {
            if needed.contains(digest) {
                continue;
            }
            match on_disk.state {
                ArtifactState::Fetching => {
                    self.steps.push(Step::CancelFetch(*digest));
                    continue;
                }
                ArtifactState::Stopping => continue,
                ArtifactState::Partial | ArtifactState::Held => {}
            }
            let until = on_disk.last_wanted + ARTIFACT_GRACE;
            if disk_is_full || until <= now {
                self.steps.push(Step::RemoveArtifact(*digest));
            } else {
                self.wake_at(until);
            }
        }
    }

    /// Whether what failed may be tried again; if not yet, the plan wakes when it may.
    fn may_try(&mut self, failure: Option<&Failure>, now: Instant) -> bool {
        let Some(failure) = failure else {
            return true;
        };
        let due = failure.at + backoff(failure.attempts);
        if due <= now {
            return true;
        }
        self.wake_at(due);
        false
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// The functions that are wanted on this node, and whether they serve in one of the slots for them.
fn functions_served<'a>(
    wanted: &'a [Wanted],
    observed: &Observed,
) -> HashMap<&'a FunctionId, bool> {
    let mut served = HashMap::new();
    for wanted in wanted {
        let slot = observed.slots.get(&wanted.slot);
        *served.entry(&wanted.function).or_default() |=
            slot.is_some_and(|slot| slot.serving.is_some());
    }
    served
}

fn loaded(wanted: &Wanted, artifact: Digest) -> Loaded {
    Loaded {
        instance: wanted.instance,
        artifact,
        function: wanted.function.clone(),
        uid: wanted.assignment.uid.clone(),
        generation: wanted.assignment.function_generation,
        revision: wanted.assignment.revision.clone(),
    }
}

#[cfg(test)]
mod tests;
