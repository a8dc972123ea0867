#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use hive_manifests::Resource;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Graph, Step, plan};
use crate::deletion::{self, Propagation};
use crate::objects;
use crate::state::{Command, Key, State};

/// Looks until quiet. A look does one thing to each object; chains here are shorter than this.
const MAX_LOOKS: usize = 200;

#[derive(Default)]
struct World {
    state: State,
    graph: Graph,
    warnings: Vec<String>,
}

fn map(name: &str) -> Key {
    Key::new(Resource::ConfigMap, "default", name)
}

fn node(name: &str) -> Key {
    Key::new(Resource::Node, "", name)
}

fn reference(owner: &Key, uid: &str, blocks: bool) -> Value {
    json!({
        "apiVersion": owner.resource.api_version(),
        "kind": owner.resource.kind(),
        "name": owner.name,
        "uid": uid,
        "blockOwnerDeletion": blocks,
    })
}

impl World {
    fn put(&mut self, key: &Key, references: Vec<Value>) -> String {
        let mut body = objects::fresh(key, json!({}), json!({}));
        if !references.is_empty() {
            body["metadata"]["ownerReferences"] = json!(references);
        }
        let uid = body["metadata"]["uid"].as_str().unwrap().to_owned();
        let key = key.clone();
        let body = body.into();
        self.state.apply(Command::Create { key, body }).unwrap();
        uid
    }

    /// A ConfigMap that these own, each blocking.
    fn owned(&mut self, name: &str, owners: &[(&Key, &str)]) -> String {
        let references = owners.iter().map(|(key, uid)| reference(key, uid, true));
        self.put(&map(name), references.collect())
    }

    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let current = self.state.get(key).unwrap();
        let mut body = current.body().clone();
        change(&mut body);
        let command = deletion::replacement(current, body);
        self.state.apply(command).unwrap();
    }

    fn delete(&mut self, key: &Key, propagation: Option<Propagation>) {
        let Some(current) = self.state.get(key) else {
            return;
        };
        if let Some(command) = deletion::command(current, propagation, SystemTime::UNIX_EPOCH) {
            self.state.apply(command).unwrap();
        }
    }

    /// One look, with the decisions of one state; true when there was something to do.
    fn look(&mut self) -> bool {
        self.graph.follow(&self.state);
        let seen = self.state.clone();
        let mut did = false;
        for (cause, steps) in plan(&self.graph, &seen) {
            self.graph.settle(&cause);
            for step in steps {
                if let Step::Warn { message, .. } = &step {
                    self.warnings.push(message.clone());
                }
                if let Some(command) = step.command(&seen, SystemTime::UNIX_EPOCH) {
                    did = true;
                    if self.state.apply(command).is_err() {
                        self.graph.look_again([cause.clone()]);
                    }
                }
            }
        }
        did
    }

    fn settle(&mut self) {
        for _ in 0..MAX_LOOKS {
            if !self.look() && self.graph.is_settled() {
                return;
            }
        }
        panic!(
            "still collecting after {MAX_LOOKS} looks: {:?}",
            self.names()
        );
    }

    fn names(&self) -> Vec<&str> {
        let all = Resource::ALL.into_iter();
        all.flat_map(|resource| self.state.list(resource, None))
            .map(|object| &*object.key().name)
            .collect()
    }

    fn owners(&self, name: &str) -> usize {
        let object = self.state.get(&map(name)).unwrap();
        let references = object.body()["metadata"]["ownerReferences"].as_array();
        references.map_or(0, Vec::len)
    }
}

/// `b` and `c` are owned by `a`, and `d` by `b`.
fn family() -> World {
    let mut world = World::default();
    let a = world.put(&map("a"), vec![]);
    let b = world.owned("b", &[(&map("a"), &a)]);
    world.owned("c", &[(&map("a"), &a)]);
    world.owned("d", &[(&map("b"), &b)]);
    world.settle();
    assert_eq!(world.names(), ["a", "b", "c", "d"]);
    world
}

#[test]
fn in_the_background_dependents_go_after_their_owner() {
    let mut world = family();
    world.delete(&map("a"), Some(Propagation::Background));
    assert_eq!(world.names(), ["b", "c", "d"]);
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn in_the_foreground_they_go_before_it() {
    let mut world = family();
    world.delete(&map("a"), Some(Propagation::Foreground));
    world.edit(&map("c"), |body| {
        body["metadata"]["finalizers"] = json!(["example.com/held"]);
    });
    world.settle();
    // One dependent is held, so its owner is.
    assert_eq!(world.names(), ["a", "c"]);
    world.edit(&map("c"), |body| body["metadata"]["finalizers"] = json!([]));
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn what_does_not_block_holds_nothing_back() {
    let mut world = World::default();
    let a = world.put(&map("a"), vec![]);
    world.put(&map("b"), vec![reference(&map("a"), &a, false)]);
    world.edit(&map("b"), |body| {
        body["metadata"]["finalizers"] = json!(["example.com/held"]);
    });
    world.delete(&map("a"), Some(Propagation::Foreground));
    world.settle();
    assert_eq!(world.names(), ["b"]);
    assert!(world.state.get(&map("b")).unwrap().is_being_deleted());
}

#[test]
fn orphans_stay_and_lose_the_reference() {
    let mut world = family();
    world.delete(&map("a"), Some(Propagation::Orphan));
    world.settle();
    assert_eq!(world.names(), ["b", "c", "d"]);
    assert_eq!(
        (world.owners("b"), world.owners("c"), world.owners("d")),
        (0, 0, 1)
    );
}

#[test]
fn one_living_owner_is_enough() {
    let mut world = World::default();
    let a = world.put(&map("a"), vec![]);
    let b = world.put(&map("b"), vec![]);
    world.owned("c", &[(&map("a"), &a), (&map("b"), &b)]);
    world.settle();
    world.delete(&map("a"), None);
    world.settle();
    assert_eq!(world.names(), ["b", "c"]);
    assert_eq!(world.owners("c"), 1);
    // Also when the other one only waits for its dependents.
    let d = world.put(&map("d"), vec![]);
    world.edit(&map("c"), |body| {
        let references = body["metadata"]["ownerReferences"].as_array_mut().unwrap();
        references.push(reference(&map("d"), &d, true));
    });
    world.delete(&map("d"), Some(Propagation::Foreground));
    world.settle();
    assert_eq!(world.names(), ["b", "c"]);
    assert_eq!(world.owners("c"), 1);
}

#[test]
fn an_owner_made_again_is_another_one() {
    let mut world = family();
    world.delete(&map("a"), None);
    world.put(&map("a"), vec![]);
    world.settle();
    assert_eq!(world.names(), ["a"]);
}

#[test]
fn an_owner_that_never_was_is_gone() {
    let mut world = World::default();
    world.owned("b", &[(&map("a"), "no-such-uid")]);
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn circles_end() {
    for propagation in [Propagation::Foreground, Propagation::Background] {
        let mut world = World::default();
        let a = world.put(&map("a"), vec![]);
        let b = world.owned("b", &[(&map("a"), &a)]);
        let c = world.owned("c", &[(&map("b"), &b)]);
        world.edit(&map("a"), |body| {
            body["metadata"]["ownerReferences"] = json!([reference(&map("c"), &c, true)]);
        });
        world.settle();
        assert_eq!(world.names(), ["a", "b", "c"]);
        world.delete(&map("a"), Some(propagation));
        world.settle();
        assert!(world.names().is_empty(), "{propagation:?}");
    }
}

#[test]
fn who_owns_itself_or_waits_in_a_circle_is_not_stuck() {
    let mut world = World::default();
    let a = world.put(&map("a"), vec![]);
    let b = world.owned("b", &[(&map("a"), &a)]);
    world.edit(&map("a"), |body| {
        body["metadata"]["ownerReferences"] = json!([
            reference(&map("a"), &a, true),
            reference(&map("b"), &b, true)
        ]);
    });
    world.delete(&map("a"), Some(Propagation::Foreground));
    world.delete(&map("b"), Some(Propagation::Foreground));
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn what_cannot_be_told_keeps_an_object_and_what_is_elsewhere_does_not() {
    let mut world = World::default();
    for name in ["default", "other"] {
        world.put(&Key::new(Resource::Namespace, "", name), vec![]);
    }
    let elsewhere = Key::new(Resource::Secret, "other", "elsewhere");
    let uid = world.put(&elsewhere, vec![]);
    let unknown = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "1" });
    world.put(&map("of-a-deployment"), vec![unknown]);
    world.put(
        &node("of-a-secret"),
        vec![reference(&elsewhere, &uid, true)],
    );
    world.settle();
    assert_eq!(world.warnings.len(), 1);
    assert!(world.warnings[0].ends_with("is namespaced, but its dependent is cluster-scoped"));
    world.put(
        &map("of-another-namespace"),
        vec![reference(&elsewhere, &uid, true)],
    );
    world.settle();
    assert!(
        world.warnings[1].ends_with("does not exist in namespace \"default\""),
        "{:?}",
        world.warnings
    );
    assert_eq!(
        world.names(),
        [
            "default",
            "other",
            "elsewhere",
            "of-a-deployment",
            "of-a-secret"
        ]
    );
}

#[test]
fn a_protected_namespace_stays_whoever_owned_it() {
    let mut world = World::default();
    let default = Key::new(Resource::Namespace, "", "default");
    world.put(&default, vec![reference(&node("gone"), "gone", true)]);
    world.settle();
    assert_eq!(world.names(), ["default"]);
}

#[test]
fn assignments_hold_their_function_and_are_left_to_the_scheduler() {
    let mut world = World::default();
    let function = Key::new(Resource::Function, "default", "f");
    let assignment = Key::new(Resource::Assignment, "default", "f.0");
    let uid = world.put(&function, vec![]);
    world.put(&assignment, vec![reference(&function, &uid, true)]);
    world.delete(&function, Some(Propagation::Foreground));
    world.settle();
    assert_eq!(world.names(), ["f", "f.0"]);
    // The user thinks better of it.
    world.delete(&function, Some(Propagation::Orphan));
    world.settle();
    assert_eq!(world.names(), ["f.0"]);
    world.delete(&assignment, None);
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn a_change_that_is_about_no_owner_costs_no_look() {
    let mut world = family();
    world.edit(&map("d"), |body| body["data"] = json!({ "a": "b" }));
    world.graph.follow(&world.state);
    assert!(world.graph.is_settled());
}

#[test]
fn a_graph_that_missed_the_history_starts_anew() {
    let mut world = family();
    let seen = world.state.revision();
    world.delete(&map("a"), None);
    // So large that few changes are more than the history takes.
    let large = "x".repeat(1 << 20);
    for round in 0..70 {
        let key = map("busy");
        let data = json!({ "large": large, "round": round.to_string() });
        let body = json!({ "metadata": { "name": "busy" }, "data": data }).into();
        let command = match round {
            0 => Command::Create { key, body },
            _ => Command::Replace {
                key,
                body,
                expect: None,
            },
        };
        world.state.apply(command).unwrap();
    }
    assert!(world.state.changes_since(seen).is_err());
    world.settle();
    assert_eq!(world.names(), ["busy"]);
}

#[derive(Clone, Debug)]
enum Act {
    /// Makes an object that these own: of existing ones by index, or of nobody who ever was.
    Make {
        owners: Vec<(usize, bool)>,
        ghost: bool,
    },
    Delete(usize, Option<Propagation>),
    /// Makes one of the objects own another, so that circles come about.
    Adopt(usize, usize),
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    let policy = proptest::option::of(prop_oneof![
        Just(Propagation::Foreground),
        Just(Propagation::Background),
        Just(Propagation::Orphan),
    ]);
    prop_oneof![
        4 => (
            proptest::collection::vec((any::<usize>(), any::<bool>()), 0..3),
            proptest::bool::weighted(0.1),
        )
            .prop_map(|(owners, ghost)| Act::Make { owners, ghost }),
        2 => (any::<usize>(), policy).prop_map(|(index, policy)| Act::Delete(index, policy)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Act::Adopt(a, b)),
        2 => Just(Act::Look),
    ]
}

impl World {
    fn uids(&self) -> BTreeMap<Key, String> {
        let all = self.state.list(Resource::ConfigMap, None);
        all.map(|object| (object.key().clone(), object.uid().to_owned()))
            .collect()
    }

    /// Owners by uid of each object.
    fn references(&self) -> BTreeMap<Key, BTreeSet<String>> {
        let all = self.state.list(Resource::ConfigMap, None);
        all.map(|object| {
            let entries = object.body()["metadata"]["ownerReferences"].as_array();
            let uids = entries.into_iter().flatten();
            let uids = uids.map(|entry| entry["uid"].as_str().unwrap().to_owned());
            (object.key().clone(), uids.collect())
        })
        .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever was owned by whomever and deleted however: in the end nothing is left that only
    /// dead owners had, nothing that waits, and what was collected had no owner that lives.
    #[test]
    fn in_the_end_what_lives_has_a_living_owner_or_never_had_one(
        acts in proptest::collection::vec(act(), 1..40)
    ) {
        let mut world = World::default();
        let mut made = 0;
        let mut by_people: BTreeSet<Key> = BTreeSet::new();
        for act in acts {
            let known: Vec<(Key, String)> = world.uids().into_iter().collect();
            let pick = |index: usize| (!known.is_empty()).then(|| known[index % known.len()].clone());
            match act {
                Act::Make { owners, ghost } => {
                    let mut references = Vec::new();
                    for (index, blocks) in owners {
                        if let Some((key, uid)) = pick(index) {
                            references.push(reference(&key, &uid, blocks));
                        }
                    }
                    if ghost {
                        references.push(reference(&map("ghost"), "ghost", true));
                    }
                    world.put(&map(&format!("o{made:03}")), references);
                    made += 1;
                }
                Act::Delete(index, policy) => {
                    if let Some((key, _)) = pick(index) {
                        by_people.insert(key.clone());
                        world.delete(&key, policy);
                    }
                }
                Act::Adopt(owner, owned) => {
                    if let (Some((owner, uid)), Some((owned, _))) = (pick(owner), pick(owned)) {
                        world.edit(&owned, |body| {
                            body["metadata"]["ownerReferences"] = json!([reference(&owner, &uid, true)]);
                        });
                    }
                }
                Act::Look => {
                    let (before, references) = (world.uids(), world.references());
                    // Whose end was decided before: an owner that adopts one later cannot save it.
                    let dying: BTreeSet<Key> = before
                        .keys()
                        .filter(|key| world.state.get(key).unwrap().is_being_deleted())
                        .cloned()
                        .collect();
                    world.look();
                    let after = world.uids();
                    let collected = |key: &&Key| !after.contains_key(*key) && !dying.contains(*key);
                    for key in before.keys().filter(collected) {
                        let living = references[key].iter().any(|uid| {
                            before.iter().any(|(owner, known)| {
                                known == uid && !world.state.get(owner).is_none_or(|o| o.is_being_deleted())
                            })
                        });
                        prop_assert!(by_people.contains(key) || !living, "{key} had a living owner");
                    }
                }
            }
        }
        world.settle();
        let uids: BTreeSet<String> = world.uids().into_values().collect();
        for (key, owners) in world.references() {
            prop_assert!(!world.state.get(&key).unwrap().is_being_deleted(), "{key} waits for ever");
            prop_assert!(owners.is_subset(&uids), "{key} refers to what is gone");
        }
        // A new leader, which knows nothing of before, finds nothing to do.
        world.graph = Graph::default();
        prop_assert!(!world.look());
    }
}
