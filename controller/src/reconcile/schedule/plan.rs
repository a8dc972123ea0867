//! The scheduler's decisions: a pure function from what is to what should change.
//!
//! A copy of a function is a slot; a slot has one assignment object, whose name follows from the
//! slot. Moving it is one compare-and-swap, so there are never two decisions for one slot.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use hive_manifests::{AssignmentSpec, Phase, Resource};
use jiff::Timestamp;

use super::board::{Board, tolerates, waits};
use super::course::Version;
use super::trial::plan_trials;
use super::view::{AssignmentView, Ending, FunctionView, NodeView, View};
use super::{node_affinity, overlap, roll};
use crate::state::Key;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create {
        key: Key,
        spec: Box<AssignmentSpec>,
    },
    /// To another node; the status starts anew.
    Move {
        key: Key,
        expect: u64,
        spec: Box<AssignmentSpec>,
    },
    /// To a later generation on the same node.
    Update {
        key: Key,
        expect: u64,
        spec: Box<AssignmentSpec>,
    },
    /// Its node was lost and no other takes it.
    MarkUnknown {
        key: Key,
        expect: u64,
    },
    /// Answers at its node: where it was before it is let go of.
    Settle {
        key: Key,
        expect: u64,
    },
    Delete {
        key: Key,
        expect: u64,
    },
}

impl Step {
    /// Of the assignment.
    pub fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. }
            | Self::Move { key, .. }
            | Self::Update { key, .. }
            | Self::MarkUnknown { key, .. }
            | Self::Settle { key, .. }
            | Self::Delete { key, .. } => key,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Functions with slots that no node takes, and why, in one sentence.
    pub unplaced: BTreeMap<Key, String>,
    /// When to plan again although nothing changed, if time alone brings something up.
    pub again: Option<Timestamp>,
}

impl Plan {
    /// Nothing to do where the time is not known: then a change will bring it up.
    pub(super) fn look_again_at(&mut self, due: Option<Timestamp>) {
        self.again = [self.again, due].into_iter().flatten().min();
    }
}

/// A place for one copy of a function.
pub struct Slot<'a> {
    pub name: &'a str,
    /// The only node that will do.
    pub pinned: Option<&'a str>,
    /// It is for one that tries a version.
    pub canary: bool,
    /// Without the copy that is there nothing would serve.
    pub last: bool,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut board = Board::of(view);
    let mut by_function: HashMap<(&str, &str), Vec<&AssignmentView>> = HashMap::new();
    for assignment in &view.assignments {
        by_function
            .entry((&assignment.key.namespace, &assignment.spec.function_uid))
            .or_default()
            .push(assignment);
    }
    for function in &view.functions {
        let existing = by_function
            .remove(&(&*function.key.namespace, &*function.uid))
            .unwrap_or_default();
        let wanted = match &function.course.kept {
            None => Cow::Borrowed(function),
            Some(kept) => Cow::Owned(roll::at(function, kept, &existing)),
        };
        plan_function(&wanted, &existing, &mut board, now, &mut plan);
        if function.ending != Some(Ending::CopiesStay) {
            plan_trials(function, &existing, &mut board, now, &mut plan);
        }
    }
    // What is left belongs to functions that are gone.
    let mut orphans: Vec<_> = by_function
        .into_values()
        .flatten()
        .filter(|orphan| {
            let owner = (
                orphan.key.namespace.clone(),
                orphan.spec.function_uid.clone(),
            );
            !view.unreadable.contains(&owner)
        })
        .collect();
    orphans.sort_by_key(|orphan| &orphan.key);
    for orphan in orphans {
        plan.steps.push(delete(orphan));
    }
    plan
}

/// The copies that are wanted of a function; trials are no business of this.
fn plan_function(
    function: &FunctionView,
    all: &[&AssignmentView],
    board: &mut Board,
    now: Timestamp,
    plan: &mut Plan,
) {
    let begun = plan.steps.len();
    let copies = all.iter().copied().filter(|copy| !copy.spec.canary);
    let existing: &[&AssignmentView] = &copies.collect::<Vec<_>>();
    let by_slot: HashMap<&str, &AssignmentView> = existing
        .iter()
        .map(|assignment| (&*assignment.spec.slot, *assignment))
        .collect();
    let slots = wanted_slots(function, board, &by_slot);
    let wanted: HashSet<&str> = slots.iter().map(String::as_str).collect();
    for assignment in existing {
        if !wanted.contains(&*assignment.spec.slot) {
            board.release(assignment);
            plan.steps.push(delete(assignment));
        }
    }
    // What new copies run: with a function that is paused not yet its newest version.
    let version = match &function.course.held {
        None => Cow::Borrowed(function),
        Some(held) => Cow::Owned(roll::at(function, held, existing)),
    };
    let template = function.spec.template();
    let mut outdated = Vec::new();
    for name in &slots {
        let found = by_slot.get(&**name).copied();
        let stays = found.is_some_and(|copy| board.may_stay(function, copy));
        let goes = found.filter(|_| !stays);
        let slot = &Slot {
            name,
            pinned: function.spec.every_node.then_some(&**name),
            canary: false,
            last: goes
                .is_some_and(|copy| serves_alone(copy, existing, &plan.steps[begun..], board)),
        };
        match found {
            Some(assignment) if stays => {
                if roll::is_outdated(function, &template, assignment, board) {
                    outdated.push(assignment);
                }
            }
            // It goes elsewhere as it is.
            Some(assignment) if function.spec.paused || function.missing.is_some() => {
                let is_newest = assignment.spec.function == template;
                let own = Version {
                    name: assignment.spec.revision.clone(),
                    template: assignment.spec.function.clone(),
                    missing: function.missing.clone().filter(|_| is_newest),
                };
                let own = roll::at(function, &own, existing);
                place(&own, slot, found, board, now, plan);
            }
            _ => place(&version, slot, found, board, now, plan),
        }
    }
    if function.ending.is_none() {
        roll::roll(function, slots.len(), existing, &outdated, board, now, plan);
    }
    overlap::settle(existing, begun, board, now, plan);
}

/// Whether a copy serves, and no other would without it; `steps` are those of its function so far.
fn serves_alone(
    copy: &AssignmentView,
    all: &[&AssignmentView],
    steps: &[Step],
    board: &Board,
) -> bool {
    let goes = |other: &AssignmentView| {
        let mut deleted = steps.iter();
        deleted.any(|step| matches!(step, Step::Delete { key, .. } if *key == other.key))
    };
    let stays = |other: &&&AssignmentView| other.key != copy.key && !goes(other);
    board.serves(copy) && !all.iter().filter(stays).any(|other| board.serves(other))
}

/// Names of the slots that the function should have, sorted.
fn wanted_slots(
    function: &FunctionView,
    board: &Board,
    by_slot: &HashMap<&str, &AssignmentView>,
) -> Vec<String> {
    if function.ending == Some(Ending::CopiesFirst) {
        return Vec::new();
    }
    if !function.spec.every_node {
        let replicas = function.wanted_replicas();
        return (0..replicas).map(|slot| slot.to_string()).collect();
    }
    board
        .nodes
        .values()
        .filter(|node| {
            // A copy that is there stays through a cordon, or while its node is lost.
            let stays = by_slot.contains_key(&*node.view.name);
            board.matches(function, node.view)
                && (stays || node_affinity::admits(function, node.view))
                && tolerates(&function.spec.tolerations, &node.view.taints, "NoExecute")
                && (stays || node.view.ready)
        })
        .map(|node| node.view.name.clone())
        .collect()
}

/// Finds a node for a slot that has none, or a bad one.
pub fn place(
    function: &FunctionView,
    slot: &Slot<'_>,
    found: Option<&AssignmentView>,
    board: &mut Board,
    now: Timestamp,
    plan: &mut Plan,
) {
    if let Some(assignment) = found {
        board.release(assignment);
    }
    let chosen = match (function.ending, &function.missing) {
        (Some(_), _) => Err("the function is being deleted".to_owned()),
        // Here it serves, and elsewhere it would wait.
        (None, Some(missing)) if found.is_some_and(|copy| board.serves(copy)) => {
            Err(missing.clone())
        }
        (None, _) => board
            .choose(function, slot.pinned)
            .map_err(|unfit| unfit.to_string()),
    };
    match (chosen, found) {
        (Ok((node, artifact)), found) => {
            board.reserve(function, &node);
            let previous = found.and_then(|copy| overlap::previous(function, copy, board, now));
            let spec = Box::new(AssignmentSpec {
                function_name: function.key.name.clone(),
                function_uid: function.uid.clone(),
                function_generation: function.generation,
                node_name: node,
                previous,
                slot: slot.name.to_owned(),
                function: function.spec.template(),
                revision: function.course.newest.clone(),
                canary: slot.canary,
                artifact,
            });
            plan.steps.push(match found {
                None => Step::Create {
                    key: assignment_key(function, slot.name),
                    spec,
                },
                Some(assignment) => Step::Move {
                    key: assignment.key.clone(),
                    expect: assignment.revision,
                    spec,
                },
            });
        }
        (Err(reason), found) => {
            plan.unplaced.entry(function.key.clone()).or_insert(reason);
            let Some(assignment) = found else {
                return;
            };
            let tolerations = &function.spec.tolerations;
            let node = board
                .nodes
                .get(&*assignment.spec.node_name)
                .map(|seat| seat.view);
            // The node is there still, and lets it stay, or waits for it.
            let stays = |node: &&NodeView| {
                tolerates(tolerations, &node.taints, "NoExecute")
                    || (slot.last && waits(tolerations, node))
            };
            let Some(node) = node.filter(stays) else {
                plan.steps.push(delete(assignment));
                return;
            };
            board.restore(assignment);
            if !node.ready && assignment.phase != Phase::Unknown {
                plan.steps.push(Step::MarkUnknown {
                    key: assignment.key.clone(),
                    expect: assignment.revision,
                });
            }
        }
    }
}

pub fn delete(assignment: &AssignmentView) -> Step {
    Step::Delete {
        key: assignment.key.clone(),
        expect: assignment.revision,
    }
}

/// Functions' names have no dots, so names of slots never meet.
fn assignment_key(function: &FunctionView, slot: &str) -> Key {
    let name = format!("{}.{slot}", function.key.name);
    Key::new(Resource::Assignment, function.key.namespace.clone(), name)
}

#[cfg(test)]
mod tests;
