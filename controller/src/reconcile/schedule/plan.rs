//! The scheduler's decisions: a pure function from what is to what should change.
//!
//! A copy of a function is a slot; a slot has one assignment object, whose name follows from the
//! slot. Moving it is one compare-and-swap, so there are never two decisions for one slot.

use std::collections::{BTreeMap, HashMap};

use hive_manifests::function::{CompiledArtifact, FunctionSpec};
use hive_manifests::{AssignmentSpec, Phase, Resource};
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::view::{AssignmentView, FunctionView, NodeView, View};
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
    Delete {
        key: Key,
        expect: u64,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Functions with slots that no node takes, and why, in one sentence.
    pub unplaced: BTreeMap<Key, String>,
}

pub fn plan(view: &View) -> Plan {
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
        plan_function(function, &existing, &mut board, &mut plan);
    }
    // What is left belongs to functions that are gone.
    let mut orphans: Vec<_> = by_function.into_values().flatten().collect();
    orphans.sort_by_key(|orphan| &orphan.key);
    for orphan in orphans {
        plan.steps.push(delete(orphan));
    }
    plan
}

fn plan_function(
    function: &FunctionView,
    existing: &[&AssignmentView],
    board: &mut Board,
    plan: &mut Plan,
) {
    let by_slot: HashMap<&str, &AssignmentView> = existing
        .iter()
        .map(|assignment| (&*assignment.spec.slot, *assignment))
        .collect();
    let slots = wanted_slots(function, board, &by_slot);
    for assignment in existing {
        if !slots.contains(&assignment.spec.slot) {
            board.release(assignment);
            plan.steps.push(delete(assignment));
        }
    }
    let mut outdated = Vec::new();
    for slot in &slots {
        let found = by_slot.get(&**slot).copied();
        let pinned = function.spec.every_node.then_some(&**slot);
        match found {
            Some(assignment) if board.may_stay(function, assignment) => {
                if is_outdated(function, assignment, board) {
                    outdated.push(assignment);
                }
            }
            _ => place(function, slot, pinned, found, board, plan),
        }
    }
    roll(function, existing, &outdated, board, plan);
}

/// Names of the slots that the function should have, sorted.
fn wanted_slots(
    function: &FunctionView,
    board: &Board,
    by_slot: &HashMap<&str, &AssignmentView>,
) -> Vec<String> {
    if !function.spec.every_node {
        let replicas = function.spec.replicas.unwrap_or(1);
        return (0..replicas).map(|slot| slot.to_string()).collect();
    }
    board
        .nodes
        .values()
        .filter(|node| {
            // A copy that is there stays through a cordon, or while its node is lost.
            let stays = by_slot.contains_key(&*node.view.name);
            board.matches(function, node.view)
                && tolerates(&function.spec.tolerations, &node.view.taints, "NoExecute")
                && (stays || node.view.ready)
        })
        .map(|node| node.view.name.clone())
        .collect()
}

/// Finds a node for a slot that has none, or a bad one.
fn place(
    function: &FunctionView,
    slot: &str,
    pinned: Option<&str>,
    found: Option<&AssignmentView>,
    board: &mut Board,
    plan: &mut Plan,
) {
    if let Some(assignment) = found {
        board.release(assignment);
    }
    let chosen = board.choose(function, pinned);
    match (chosen, found) {
        (Ok((node, artifact)), found) => {
            board.reserve(function, &node);
            let spec = Box::new(AssignmentSpec {
                function_name: function.key.name.clone(),
                function_uid: function.uid.clone(),
                function_generation: function.generation,
                node_name: node,
                slot: slot.to_owned(),
                function: template(&function.spec),
                artifact,
            });
            plan.steps.push(match found {
                None => Step::Create {
                    key: assignment_key(function, slot),
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
            plan.unplaced
                .entry(function.key.clone())
                .or_insert_with(|| reason.to_string());
            let Some(assignment) = found else {
                return;
            };
            let node = board
                .nodes
                .get(&*assignment.spec.node_name)
                .map(|seat| seat.view);
            match node {
                // Driven away, or the node was removed: nothing may run there any more.
                None => plan.steps.push(delete(assignment)),
                Some(node) if !tolerates(&function.spec.tolerations, &node.taints, "NoExecute") => {
                    plan.steps.push(delete(assignment));
                }
                Some(node) => {
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
    }
}

/// Brings assignments to the function's newest spec: those that serve nothing at once, the others
/// one after the other, each when the one before it answers.
fn roll(
    function: &FunctionView,
    existing: &[&AssignmentView],
    outdated: &[&AssignmentView],
    board: &Board,
    plan: &mut Plan,
) {
    let is_old = |a: &&AssignmentView| outdated.iter().any(|old| old.key == a.key);
    let settling = existing
        .iter()
        .filter(|a| !is_old(a) && !a.current && a.phase != Phase::Unknown)
        .count();
    let mut may_update = usize::from(settling == 0);
    for assignment in outdated {
        let serves = assignment.phase == Phase::Ready;
        if serves && may_update == 0 {
            continue;
        }
        let Some(artifact) = board.artifact_for(function, &assignment.spec.node_name) else {
            continue;
        };
        if serves {
            may_update -= 1;
        }
        plan.steps.push(Step::Update {
            key: assignment.key.clone(),
            expect: assignment.revision,
            spec: Box::new(AssignmentSpec {
                function_generation: function.generation,
                function: template(&function.spec),
                artifact: artifact.clone(),
                ..assignment.spec.clone()
            }),
        });
    }
}

fn is_outdated(function: &FunctionView, assignment: &AssignmentView, board: &Board) -> bool {
    let spec = &assignment.spec;
    spec.function != template(&function.spec)
        || board
            .artifact_for(function, &spec.node_name)
            .is_some_and(|artifact| artifact.sha256 != spec.artifact.sha256)
}

/// What of a function's spec reaches the nodes: where and how often it runs is decided here.
pub fn template(spec: &FunctionSpec) -> FunctionSpec {
    FunctionSpec {
        replicas: None,
        every_node: false,
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        ..spec.clone()
    }
}

fn delete(assignment: &AssignmentView) -> Step {
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

/// The nodes with what is reserved on them while a plan is made.
struct Board<'a> {
    nodes: BTreeMap<&'a str, Seat<'a>>,
}

struct Seat<'a> {
    view: &'a NodeView,
    memory: u64,
    cpu: u64,
    /// Assignments by function.
    copies: HashMap<String, usize>,
    total: usize,
}

/// Why no node takes a slot: how many fell out at each filter.
#[derive(Default)]
struct Unfit {
    nodes: usize,
    reasons: BTreeMap<&'static str, usize>,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("the swarm has no nodes yet");
        }
        write!(f, "0/{} nodes fit:", self.nodes)?;
        for (index, (reason, count)) in self.reasons.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {count} {reason}")?;
        }
        Ok(())
    }
}

impl<'a> Board<'a> {
    fn of(view: &'a View) -> Self {
        let seat = |node: &'a NodeView| Seat {
            view: node,
            memory: 0,
            cpu: 0,
            copies: HashMap::new(),
            total: 0,
        };
        let mut board = Self {
            nodes: view
                .nodes
                .iter()
                .map(|node| (&*node.name, seat(node)))
                .collect(),
        };
        for assignment in &view.assignments {
            board.restore(assignment);
        }
        board
    }

    fn restore(&mut self, assignment: &AssignmentView) {
        if let Some(seat) = self.nodes.get_mut(&*assignment.spec.node_name) {
            seat.add(&assignment.spec.function_uid, &assignment.spec.function);
        }
    }

    fn release(&mut self, assignment: &AssignmentView) {
        if let Some(seat) = self.nodes.get_mut(&*assignment.spec.node_name) {
            seat.memory = seat
                .memory
                .saturating_sub(assignment.spec.function.resources.memory.0);
            seat.cpu = seat
                .cpu
                .saturating_sub(assignment.spec.function.resources.cpu.0);
            seat.total = seat.total.saturating_sub(1);
            if let Some(copies) = seat.copies.get_mut(&assignment.spec.function_uid) {
                *copies = copies.saturating_sub(1);
            }
        }
    }

    fn reserve(&mut self, function: &FunctionView, node: &str) {
        if let Some(seat) = self.nodes.get_mut(node) {
            seat.add(&function.uid, &function.spec);
        }
    }

    /// The component for a node, if the node can load it.
    fn artifact_for<'f>(
        &self,
        function: &'f FunctionView,
        node: &str,
    ) -> Option<&'f CompiledArtifact> {
        let node = self.nodes.get(node)?.view;
        let artifact = function.artifacts.get(&node.target)?;
        (artifact.wasmtime_version == node.wasmtime_version).then_some(artifact)
    }

    fn matches(&self, function: &FunctionView, node: &NodeView) -> bool {
        function
            .spec
            .node_selector
            .iter()
            .all(|(label, value)| node.labels.get(label) == Some(value))
    }

    fn may_stay(&self, function: &FunctionView, assignment: &AssignmentView) -> bool {
        let Some(seat) = self.nodes.get(&*assignment.spec.node_name) else {
            return false;
        };
        let stays = seat.view.ready
            && tolerates(&function.spec.tolerations, &seat.view.taints, "NoExecute")
            && self.matches(function, seat.view);
        // A pinned copy has nowhere else to go: it waits for its node.
        stays || (function.spec.every_node && seat.view.ready)
    }

    /// The best node for one more copy, and the component compiled for it.
    fn choose(
        &self,
        function: &FunctionView,
        pinned: Option<&str>,
    ) -> Result<(String, CompiledArtifact), Unfit> {
        let mut unfit = Unfit::default();
        let mut best: Option<(Score, &Seat<'a>, &CompiledArtifact)> = None;
        for seat in self.nodes.values() {
            if pinned.is_some_and(|name| name != seat.view.name) {
                continue;
            }
            unfit.nodes += 1;
            match self.fits(function, seat) {
                Err(reason) => *unfit.reasons.entry(reason).or_default() += 1,
                Ok(artifact) => {
                    let score = seat.score(function);
                    if best.as_ref().is_none_or(|(known, ..)| score < *known) {
                        best = Some((score, seat, artifact));
                    }
                }
            }
        }
        match best {
            Some((_, seat, artifact)) => Ok((seat.view.name.clone(), artifact.clone())),
            None => Err(unfit),
        }
    }

    fn fits<'f>(
        &self,
        function: &'f FunctionView,
        seat: &Seat<'_>,
    ) -> Result<&'f CompiledArtifact, &'static str> {
        let node = seat.view;
        let tolerations = &function.spec.tolerations;
        let need = &function.spec.resources;
        if !node.ready {
            return Err("not ready");
        }
        if node.unschedulable {
            return Err("cordoned");
        }
        if !self.matches(function, node) {
            return Err("without the labels of nodeSelector");
        }
        if !tolerates(tolerations, &node.taints, "NoSchedule")
            || !tolerates(tolerations, &node.taints, "NoExecute")
        {
            return Err("with a taint that is not tolerated");
        }
        if seat.memory + need.memory.0 > node.memory {
            return Err("without enough free memory");
        }
        if seat.cpu + need.cpu.0 > node.cpu {
            return Err("without enough free CPU");
        }
        let artifact = function
            .artifacts
            .get(&node.target)
            .ok_or("for whose processor the component is not compiled yet")?;
        if artifact.wasmtime_version != node.wasmtime_version {
            return Err("whose agent is of another version than the controllers");
        }
        Ok(artifact)
    }
}

/// Lower is better: spread copies, then load, then a stable order.
type Score = (usize, usize, u64, String);

impl Seat<'_> {
    fn add(&mut self, uid: &str, spec: &FunctionSpec) {
        self.memory += spec.resources.memory.0;
        self.cpu += spec.resources.cpu.0;
        self.total += 1;
        *self.copies.entry(uid.to_owned()).or_default() += 1;
    }

    fn score(&self, function: &FunctionView) -> Score {
        let copies = self.copies.get(&function.uid).copied().unwrap_or_default();
        let avoided = self
            .view
            .taints
            .iter()
            .filter(|taint| {
                taint.effect == "PreferNoSchedule" && !tolerated(&function.spec.tolerations, taint)
            })
            .count();
        let used = self.memory.saturating_mul(1000) / self.view.memory.max(1);
        (copies, avoided, used, self.view.name.clone())
    }
}

/// True when every taint with `effect` is tolerated.
fn tolerates(tolerations: &[Toleration], taints: &[Taint], effect: &str) -> bool {
    taints
        .iter()
        .filter(|taint| taint.effect == effect)
        .all(|taint| tolerated(tolerations, taint))
}

/// Kubernetes' rule: an empty key with Exists matches all, an empty effect any effect.
fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists
                || toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests;
