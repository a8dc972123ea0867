#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use hive_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::reconcile::observed::OnDisk;
use crate::reconcile::wanted::Refusal;

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

/// Slot `slot` of function `f<function>`, in its state `version`, made from artifact `artifact`.
fn want(slot: &str, function: u8, version: u8, artifact: u8) -> Wanted {
    let name = format!("f{function}");
    Wanted {
        slot: SlotId::new("default", slot),
        function: FunctionId::new("default", &name),
        instance: Digest::of(&[slot.as_bytes(), &[function, version, artifact]].concat()),
        artifact: Ok(Artifact {
            digest: digest(artifact),
            size: 10,
        }),
        assignment: Arc::new(v1::Assignment {
            namespace: "default".into(),
            name: slot.into(),
            uid: slot.into(),
            function: name,
            function_generation: version.into(),
            ..Default::default()
        }),
    }
}

/// Does what the executor would: begins steps, ends everything that is under way.
struct Node {
    observed: Observed,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self {
            observed: Observed {
                linked: true,
                ..Observed::default()
            },
            now: Instant::now(),
        }
    }

    fn begin(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::Fetch(artifact) => {
                observed.set_artifact(artifact.digest, ArtifactState::Fetching, self.now)
            }
            Step::CancelFetch(digest) => {
                observed.set_artifact(*digest, ArtifactState::Stopping, self.now)
            }
            Step::Load { slot, loaded } => observed.start_load(slot, loaded.clone()),
            Step::Probe(slot) => observed.start_probe(slot),
            Step::Swap(slot) => observed.swap(slot),
            Step::Discard(slot) => observed.discard(slot),
            Step::Unload(slot) => observed.unload(slot),
            Step::RemoveArtifact(digest) => {
                observed.artifacts.remove(digest);
            }
        }
    }

    fn finish_fetches(&mut self, fails: impl Fn(Digest) -> bool) {
        for on_disk in self.observed.artifacts.values_mut() {
            if on_disk.state == ArtifactState::Stopping {
                on_disk.state = ArtifactState::Partial;
            }
        }
        let fetching: Vec<Digest> = self
            .observed
            .artifacts
            .iter()
            .filter(|(_, on_disk)| on_disk.state == ArtifactState::Fetching)
            .map(|(digest, _)| *digest)
            .collect();
        for digest in fetching {
            let state = if fails(digest) {
                let previous = self.observed.fetch_failures.get(&digest);
                let failure = Failure::again(previous, self.now, "Cut", String::new());
                self.observed.fetch_failures.insert(digest, failure);
                ArtifactState::Partial
            } else {
                self.observed.fetch_failures.remove(&digest);
                ArtifactState::Held
            };
            self.observed.set_artifact(digest, state, self.now);
        }
    }

    fn finish_loads(&mut self, fails: impl Fn(&Loaded) -> bool) {
        let loading: Vec<(SlotId, Loaded)> = self
            .observed
            .slots
            .iter()
            .filter_map(|(id, slot)| Some((id.clone(), slot.loading.clone()?)))
            .collect();
        for (slot, loaded) in loading {
            if fails(&loaded) {
                self.observed
                    .fail_load(&slot, self.now, "Broken", "it is broken".into());
            } else {
                self.observed.finish_load(&slot);
            }
        }
    }

    fn finish_probes(&mut self, fails: impl Fn(&Loaded) -> bool) {
        let asked: Vec<(SlotId, Loaded)> = self
            .observed
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.probe, Probe::Asked(_)))
            .filter_map(|(id, slot)| Some((id.clone(), slot.prepared.clone()?)))
            .collect();
        for (slot, loaded) in asked {
            let answered = match fails(&loaded) {
                true => Err("it says 503".to_owned()),
                false => Ok(()),
            };
            self.observed
                .finish_probe(&slot, loaded.instance, answered, self.now);
        }
    }

    fn serving(&self) -> BTreeMap<&str, (Digest, u64)> {
        self.observed
            .slots
            .iter()
            .filter_map(|(id, slot)| {
                let serving = slot.serving.as_ref()?;
                Some((id.name.as_str(), (serving.instance, serving.generation)))
            })
            .collect()
    }

    fn serving_functions(&self) -> BTreeSet<FunctionId> {
        self.observed
            .slots
            .values()
            .filter_map(|slot| Some(slot.serving.as_ref()?.function.clone()))
            .collect()
    }

    fn plan(&mut self, wanted: &[Wanted]) -> Plan {
        let needed = needed_artifacts(wanted, &self.observed);
        self.observed.touch(needed, self.now);
        self.observed
            .mark_leaving(&wanted_functions(wanted), self.now);
        plan(wanted, &self.observed, self.now)
    }

    /// Plans and acts until there is nothing left to do; the steps that were taken, as text.
    fn settle(&mut self, wanted: &[Wanted]) -> Vec<String> {
        let mut taken = Vec::new();
        for _ in 0..100 {
            let plan = self.plan(wanted);
            if plan.steps.is_empty() {
                return taken;
            }
            for step in &plan.steps {
                self.begin(step);
                taken.push(told(step));
            }
            self.finish_fetches(|_| false);
            self.finish_loads(|_| false);
            self.finish_probes(|_| false);
        }
        panic!("no end after 100 rounds: {taken:?}");
    }
}

fn told(step: &Step) -> String {
    match step {
        Step::Fetch(artifact) => format!("fetch {}", artifact.digest.0[0]),
        Step::CancelFetch(digest) => format!("cancel {}", digest.0[0]),
        Step::Load { slot, loaded } => format!("load {} g{}", slot.name, loaded.generation),
        Step::Probe(slot) => format!("probe {}", slot.name),
        Step::Swap(slot) => format!("swap {}", slot.name),
        Step::Discard(slot) => format!("discard {}", slot.name),
        Step::Unload(slot) => format!("unload {}", slot.name),
        Step::RemoveArtifact(digest) => format!("remove {}", digest.0[0]),
    }
}

#[test]
fn a_new_assignment_is_fetched_loaded_and_served() {
    let mut node = Node::new();
    assert_eq!(
        node.settle(&[want("a", 1, 1, 10)]),
        ["fetch 10", "load a g1", "swap a"]
    );
}

#[test]
fn what_is_on_the_disk_is_not_fetched() {
    let mut node = Node::new();
    node.observed
        .set_artifact(digest(10), ArtifactState::Held, node.now);
    assert_eq!(
        node.settle(&[want("a", 1, 1, 10), want("b", 1, 1, 10)]),
        ["load a g1", "load b g1", "swap a", "swap b"]
    );
}

#[test]
fn one_artifact_is_fetched_once_and_two_at_a_time() {
    let mut node = Node::new();
    let wanted = [
        want("a", 1, 1, 10),
        want("b", 1, 1, 10),
        want("c", 2, 1, 11),
        want("d", 3, 1, 12),
    ];
    let told: Vec<_> = node.plan(&wanted).steps.iter().map(told).collect();
    assert_eq!(told, ["fetch 10", "fetch 11"]);
}

#[test]
fn a_change_loads_beside_the_old_one_and_takes_its_place() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    assert_eq!(
        node.settle(&[want("a", 1, 2, 11)]),
        ["fetch 11", "load a g2", "swap a"]
    );
    assert_eq!(node.serving()["a"].1, 2);
}

#[test]
fn a_change_that_fails_leaves_the_old_one_serving_and_is_tried_again() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    let next = [want("a", 1, 2, 10)];
    for step in node.plan(&next).steps {
        node.begin(&step);
    }
    node.finish_loads(|_| true);

    let waiting = node.plan(&next);
    assert_eq!(waiting.steps, []);
    let due = waiting.wake.unwrap();
    assert_eq!(due, node.now + backoff(1));
    assert_eq!(node.serving()["a"].1, 1);
    node.now = due;
    assert_eq!(node.settle(&next), ["load a g2", "swap a"]);
}

/// As [`want`], and it must show that it is ready.
fn want_probed(slot: &str, function: u8, version: u8, artifact: u8) -> Wanted {
    let mut wanted = want(slot, function, version, artifact);
    Arc::make_mut(&mut wanted.assignment).readiness = Some(v1::Readiness {
        period_ms: 10_000,
        failure_threshold: 2,
        ..Default::default()
    });
    wanted
}

#[test]
fn a_change_is_asked_whether_it_is_ready_before_it_serves() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    let next = [want_probed("a", 1, 2, 10)];
    for expected in ["load a g2", "probe a"] {
        let plan = node.plan(&next);
        let steps: Vec<_> = plan.steps.iter().map(told).collect();
        assert_eq!(steps, [expected]);
        node.begin(&plan.steps[0]);
        node.finish_loads(|_| false);
    }
    assert_eq!(node.plan(&next), Plan::default(), "it waits for the answer");
    node.finish_probes(|_| true);

    // It says that it is not: the old one serves, and it is asked again.
    let waiting = node.plan(&next);
    assert_eq!(waiting.steps, []);
    assert_eq!(waiting.wake, Some(node.now + Duration::from_secs(10)));
    assert_eq!(node.serving()["a"].1, 1);
    node.now += Duration::from_secs(10);
    assert_eq!(node.settle(&next), ["probe a", "swap a"]);
    assert_eq!(node.serving()["a"].1, 2);
}

#[test]
fn one_that_is_not_ready_gives_way_to_the_next_change() {
    let mut node = Node::new();
    let first = [want_probed("a", 1, 1, 10)];
    for _ in 0..2 {
        for step in node.plan(&first).steps {
            node.begin(&step);
        }
        node.finish_fetches(|_| false);
        node.finish_loads(|_| false);
    }
    for step in node.plan(&first).steps {
        node.begin(&step);
    }
    // It is being asked when another is wanted.
    let second = [want_probed("a", 1, 2, 10)];
    assert_eq!(
        node.settle(&second),
        ["discard a", "load a g2", "probe a", "swap a"]
    );
    assert_eq!(node.serving()["a"].1, 2);
}

#[test]
fn a_refused_assignment_leaves_the_old_one_serving() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    let mut refused = want("a", 1, 2, 11);
    refused.artifact = Err(Refusal::Signature);
    assert_eq!(node.settle(&[refused]), Vec::<String>::new());
    assert_eq!(node.serving()["a"].1, 1);
}

#[test]
fn a_change_of_mind_while_loading_ends_in_what_was_wanted_last() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    for step in node.plan(&[want("a", 1, 2, 10)]).steps {
        node.begin(&step);
    }
    // Back to what serves, before the other was ready.
    let first = [want("a", 1, 1, 10)];
    assert_eq!(node.plan(&first).steps, []);
    node.finish_loads(|_| false);
    assert_eq!(node.settle(&first), ["discard a"]);
    assert_eq!(node.serving()["a"].1, 1);
}

#[test]
fn an_assignment_that_is_gone_stops_serving() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    node.now += Duration::from_secs(3600);
    assert_eq!(node.settle(&[]), Vec::<String>::new());
    assert_eq!(node.plan(&[]).wake, Some(node.now + LINGER));
    node.now += LINGER;
    assert_eq!(node.settle(&[]), ["unload a"]);
    assert!(node.observed.slots.is_empty());
}

#[test]
fn an_assignment_that_comes_back_serves_on_for_good() {
    let mut node = Node::new();
    let wanted = [want("a", 1, 1, 10)];
    node.settle(&wanted);
    node.settle(&[]);
    node.now += LINGER / 2;
    assert_eq!(node.settle(&wanted), Vec::<String>::new());
    node.now += LINGER;
    assert_eq!(node.plan(&wanted), Plan::default());
    // It leaves anew, and has all of its time again.
    assert_eq!(node.settle(&[]), Vec::<String>::new());
    node.now += LINGER / 2;
    assert_eq!(node.settle(&[]), Vec::<String>::new());
    assert_eq!(node.serving().len(), 1);
}

#[test]
fn one_of_two_copies_goes_at_once() {
    let mut node = Node::new();
    let both = [want("a", 1, 1, 10), want("b", 1, 1, 10)];
    node.settle(&both);
    assert_eq!(node.settle(&both[..1]), ["unload b"]);
}

#[test]
fn a_function_that_moves_to_another_slot_is_served_throughout() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    assert_eq!(
        node.settle(&[want("b", 1, 2, 11)]),
        ["fetch 11", "load b g2", "swap b", "unload a"]
    );
}

#[test]
fn what_nobody_uses_is_removed_after_its_grace() {
    let mut node = Node::new();
    node.settle(&[want("a", 1, 1, 10)]);
    node.settle(&[]);
    node.now += LINGER;
    node.settle(&[]);
    let waiting = node.plan(&[]);
    assert_eq!(waiting.steps, []);
    assert_eq!(waiting.wake, Some(node.now + ARTIFACT_GRACE));
    node.now += ARTIFACT_GRACE;
    assert_eq!(
        plan(&[], &node.observed, node.now).steps,
        [Step::RemoveArtifact(digest(10))]
    );
}

#[test]
fn a_full_disk_ends_the_grace() {
    let mut node = Node::new();
    node.observed
        .set_artifact(digest(9), ArtifactState::Held, node.now);
    let failure = Failure::again(None, node.now, DISK_FULL, "full".into());
    node.observed.fetch_failures.insert(digest(10), failure);
    let plan = node.plan(&[want("a", 1, 1, 10)]);
    assert_eq!(plan.steps, [Step::RemoveArtifact(digest(9))]);
}

#[test]
fn nothing_is_fetched_while_no_controller_is_there() {
    let mut node = Node::new();
    node.observed.linked = false;
    let wanted = [want("a", 1, 1, 10)];
    assert_eq!(node.plan(&wanted), Plan::default());
    node.observed.linked = true;
    assert_eq!(node.settle(&wanted), ["fetch 10", "load a g1", "swap a"]);
}

#[test]
fn a_fetch_that_nobody_needs_any_more_is_cancelled() {
    let mut node = Node::new();
    for step in node.plan(&[want("a", 1, 1, 10)]).steps {
        node.begin(&step);
    }
    assert_eq!(node.settle(&[]), ["cancel 10"]);
    assert_eq!(
        node.observed.state_of(digest(10)),
        Some(ArtifactState::Partial)
    );
}

/// Any desired set of a few slots. A slot is for one function for good, as assignments are.
fn some_desired() -> impl Strategy<Value = Vec<Wanted>> {
    prop::collection::btree_map(0u8..6, (0u8..3, 0u8..4), 0..6).prop_map(|slots| {
        slots
            .into_iter()
            .map(|(slot, (version, artifact))| match version % 2 {
                0 => want(&format!("s{slot}"), slot % 3, version, artifact),
                _ => want_probed(&format!("s{slot}"), slot % 3, version, artifact),
            })
            .collect()
    })
}

proptest! {
    /// Whatever came before, and whatever failed, the node ends up serving what is wanted and
    /// nothing else; and on the way no function that serves stops serving while it is wanted, or
    /// before it was not for a while.
    #[test]
    fn converges_without_an_outage(
        phases in prop::collection::vec(
            (some_desired(), prop::collection::vec((any::<bool>(), any::<bool>(), any::<u8>(), 0u8..12), 0..6)),
            1..6,
        ),
        last in some_desired(),
    ) {
        let mut node = Node::new();
        let mut last_wanted: BTreeMap<FunctionId, Instant> = BTreeMap::new();
        for (wanted, rounds) in &phases {
            for (fetches_end, loads_end, failing, pause) in rounds {
                let functions = wanted.iter().map(|wanted| wanted.function.clone());
                last_wanted.extend(functions.map(|function| (function, node.now)));
                for step in node.plan(wanted).steps {
                    let before = node.serving_functions();
                    node.begin(&step);
                    let after = node.serving_functions();
                    for lost in before.difference(&after) {
                        prop_assert!(node.now - last_wanted[lost] >= LINGER, "{step:?} ends {lost}");
                    }
                }
                if *fetches_end {
                    node.finish_fetches(|digest| failing & (1 << (digest.0[0] % 8)) != 0);
                }
                if *loads_end {
                    node.finish_loads(|loaded| failing & (1 << (loaded.instance.0[0] % 8)) != 0);
                }
                if *loads_end {
                    node.finish_probes(|loaded| failing & (1 << (loaded.instance.0[1] % 8)) != 0);
                }
                node.now += Duration::from_secs((*pause).into());
            }
        }
        // Past every backoff, with nothing failing any more.
        node.finish_fetches(|_| false);
        node.finish_loads(|_| false);
        node.finish_probes(|_| false);
        node.now += Duration::from_secs(3600);
        node.settle(&last);
        node.now += LINGER;
        node.settle(&last);

        let expected: BTreeMap<_, _> = last
            .iter()
            .map(|wanted| {
                let generation = wanted.assignment.function_generation;
                (wanted.slot.name.as_str(), (wanted.instance, generation))
            })
            .collect();
        prop_assert_eq!(node.serving(), expected);
        prop_assert_eq!(node.plan(&last).steps, vec![]);
    }

    /// What is needed is never removed, and a plan made twice is the same plan.
    #[test]
    fn needed_artifacts_stay(wanted in some_desired(), held in prop::collection::vec(0u8..6, 0..6)) {
        let now = Instant::now();
        let mut observed = Observed::default();
        for artifact in held {
            observed.artifacts.insert(digest(artifact), OnDisk {
                state: ArtifactState::Held,
                last_wanted: now,
            });
        }
        let later = now + 2 * ARTIFACT_GRACE;
        let needed = needed_artifacts(&wanted, &observed);
        let made = plan(&wanted, &observed, later);
        for step in &made.steps {
            if let Step::RemoveArtifact(digest) = step {
                prop_assert!(!needed.contains(digest));
            }
        }
        prop_assert_eq!(&made, &plan(&wanted, &observed, later));
    }
}
