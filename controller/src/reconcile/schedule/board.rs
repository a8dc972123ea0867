//! The nodes with what is reserved on them while a plan is made: who fits where, and who fits best.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use hive_manifests::function::{CompiledArtifact, FunctionSpec};
use hive_manifests::placement::{DRAIN_FORCED, DRAIN_TAINT, tolerated};
use hive_manifests::{AssignmentSpec, Phase};
use hive_proto::desired::MAX_ASSIGNMENTS;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::node_affinity;
use super::places::Places;
use super::view::{AssignmentView, FunctionView, NodeView, View};
use crate::holdings;
use crate::node_conditions::MEMORY_PRESSURE;

/// Copies on one node, at most: what an agent takes, and some to spare for those that are on their way elsewhere.
const MOST_COPIES: usize = MAX_ASSIGNMENTS - 24;

/// What is not on a node's disk yet weighs as much as this many thousandths of its memory. Kubernetes' ImageLocality
/// is one weighted score among others, too: were it asked first, single copies of one component would gather on who
/// had it first until nothing fits there, and a download of some megabytes is worth no more than this.
const FETCH: u64 = 100;

pub struct Board<'a> {
    pub nodes: BTreeMap<&'a str, Seat<'a>>,
    pub functions: &'a [FunctionView],
    /// Those that keep others away from themselves.
    pub repelling: Vec<&'a FunctionView>,
    /// Copies may serve where they were until they do where they go.
    pub overlaps: bool,
}

pub struct Seat<'a> {
    pub view: &'a NodeView,
    /// On its disk, as far as that is known.
    held: &'a [u64],
    memory: u64,
    cpu: u64,
    /// Assignments by function.
    copies: HashMap<String, usize>,
    total: usize,
}

/// Why no node takes a slot: how many fell out at each filter.
#[derive(Default)]
pub struct Unfit {
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
    pub fn of(view: &'a View) -> Self {
        let seat = |node: &'a NodeView| Seat {
            view: node,
            held: match view.held.is_empty() {
                true => &[],
                false => view.held.of(&node.name).map_or(&[], |held| held),
            },
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
            functions: &view.functions,
            repelling: view.functions.iter().filter(|it| repels(it)).collect(),
            overlaps: view.overlaps,
        };
        for assignment in &view.assignments {
            board.restore(assignment);
        }
        board
    }

    pub fn restore(&mut self, assignment: &AssignmentView) {
        for (node, spec) in held_by(assignment) {
            if let Some(seat) = self.nodes.get_mut(node) {
                seat.add(&assignment.spec.function_uid, spec);
            }
        }
    }

    pub fn release(&mut self, assignment: &AssignmentView) {
        for (node, spec) in held_by(assignment) {
            if let Some(seat) = self.nodes.get_mut(node) {
                seat.remove(&assignment.spec.function_uid, spec);
            }
        }
    }

    /// A node that is there and heard of.
    pub fn is_ready(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|seat| seat.view.ready)
    }

    /// Whether a copy answers requests: where it is to be, or where it was before.
    pub fn serves(&self, copy: &AssignmentView) -> bool {
        let previous = copy.spec.previous.as_ref();
        copy.phase == Phase::Ready && self.is_ready(&copy.spec.node_name)
            || previous.is_some_and(|it| self.is_ready(&it.node_name))
    }

    pub fn reserve(&mut self, function: &FunctionView, node: &str) {
        if let Some(seat) = self.nodes.get_mut(node) {
            seat.add(&function.uid, &function.spec);
        }
    }

    /// The component for a node, if the node can load it.
    pub fn artifact_for<'f>(
        &self,
        function: &'f FunctionView,
        node: &str,
    ) -> Option<&'f CompiledArtifact> {
        let node = self.nodes.get(node)?.view;
        let mut artifacts = function.artifacts.iter();
        artifacts.find(|artifact| loads(node, artifact))
    }

    pub fn matches(&self, function: &FunctionView, node: &NodeView) -> bool {
        function
            .spec
            .node_selector
            .iter()
            .all(|(label, value)| node.label(label) == Some(value))
    }

    pub fn may_stay(&self, function: &FunctionView, assignment: &AssignmentView) -> bool {
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
    pub fn choose(
        &self,
        function: &FunctionView,
        pinned: Option<&str>,
    ) -> Result<(String, CompiledArtifact), Unfit> {
        let places = Places::of(function, self);
        let mut unfit = Unfit::default();
        let mut best: Option<(Score, &Seat<'a>, &CompiledArtifact)> = None;
        let among: Box<dyn Iterator<Item = &Seat<'a>>> = match pinned {
            None => Box::new(self.nodes.values()),
            Some(name) => Box::new(self.nodes.get(name).into_iter()),
        };
        for seat in among {
            unfit.nodes += 1;
            match self.fits(function, &places, seat) {
                Err(reason) => *unfit.reasons.entry(reason).or_default() += 1,
                Ok(artifact) => {
                    let score = seat.score(function, &places, artifact);
                    // Of equals the first in order of name.
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

    /// Whether a copy's node, from which it was released, has room for the function's newest version. What needs
    /// no more than before always stays: a node that has become smaller drives nothing away.
    pub fn has_room(&self, function: &FunctionView, assignment: &AssignmentView) -> bool {
        let (need, had) = (
            &function.spec.resources,
            &assignment.spec.function.resources,
        );
        let Some(seat) = self.nodes.get(&*assignment.spec.node_name) else {
            return false;
        };
        (need.memory.0 <= had.memory.0 || seat.memory + need.memory.0 <= seat.view.memory)
            && (need.cpu.0 <= had.cpu.0 || seat.cpu + need.cpu.0 <= seat.view.cpu)
    }

    /// Whether a node is one for copies of the function, whatever else runs on it.
    pub fn admits(&self, function: &FunctionView, node: &NodeView) -> Result<(), &'static str> {
        let tolerations = &function.spec.tolerations;
        if !node.ready {
            return Err("not ready");
        }
        if node.unschedulable {
            return Err("cordoned");
        }
        if !self.matches(function, node) {
            return Err("without the labels of nodeSelector");
        }
        if !node_affinity::admits(function, node) {
            return Err("that nodeAffinity does not allow");
        }
        let driven_off = node
            .taints
            .iter()
            .filter(|taint| taint.effect == "NoSchedule");
        let mut driven_off = driven_off.filter(|taint| !tolerated(tolerations, taint));
        if driven_off.any(|taint| taint.key == MEMORY_PRESSURE) {
            return Err("short of memory");
        }
        if !tolerates(tolerations, &node.taints, "NoSchedule")
            || !tolerates(tolerations, &node.taints, "NoExecute")
        {
            return Err("with a taint that is not tolerated");
        }
        Ok(())
    }

    fn fits<'f>(
        &self,
        function: &'f FunctionView,
        places: &Places<'_>,
        seat: &Seat<'_>,
    ) -> Result<&'f CompiledArtifact, &'static str> {
        let (node, need) = (seat.view, &function.spec.resources);
        self.admits(function, node)?;
        places.fits(node)?;
        if seat.total >= MOST_COPIES {
            return Err("with as many copies as an agent takes");
        }
        if seat.memory + need.memory.0 > node.memory {
            return Err("without enough free memory");
        }
        if seat.cpu + need.cpu.0 > node.cpu {
            return Err("without enough free CPU");
        }
        let artifacts = || function.artifacts.iter();
        artifacts()
            .find(|artifact| loads(node, artifact))
            .ok_or_else(
                || match artifacts().any(|artifact| artifact.target == node.target) {
                    true => "whose agent is of another version than the controllers",
                    false => "for whose processor the component is not compiled yet",
                },
            )
    }
}

/// The nodes that a copy takes room on, and what it is there.
fn held_by(assignment: &AssignmentView) -> impl Iterator<Item = (&str, &FunctionSpec)> {
    let AssignmentSpec {
        node_name,
        function,
        previous,
        ..
    } = &assignment.spec;
    let previous = previous.iter().map(|it| (&*it.node_name, &it.function));
    previous.chain([(&**node_name, function)])
}

fn loads(node: &NodeView, artifact: &CompiledArtifact) -> bool {
    artifact.target == node.target && artifact.wasmtime_version == node.wasmtime_version
}

/// Whether a function says near which others no copy of it may be.
fn repels(function: &FunctionView) -> bool {
    let affinity = function.spec.affinity.as_ref();
    let away = affinity.and_then(|affinity| affinity.function_anti_affinity.as_ref());
    away.is_some_and(|away| away.terms().any(|(_, weight)| weight.is_none()))
}

/// Lower is better, and what comes first decides.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Copies in the same place, where they are to be spread.
    crowd: usize,
    /// Of the same function on the node.
    copies: usize,
    /// Taints that new copies should keep off, if they can.
    avoided: usize,
    /// What of its wishes is met.
    wishes: Reverse<i64>,
    /// Thousandths of the memory that are used, and what must be fetched first, as far as is known.
    load: u64,
}

impl Seat<'_> {
    /// How many copies of some functions it has.
    pub fn copies_of(&self, uids: &HashSet<&str>) -> usize {
        let copies = |uid: &str| self.copies.get(uid).copied().unwrap_or_default();
        match uids.len() < self.copies.len() {
            true => uids.iter().map(|uid| copies(uid)).sum(),
            false => {
                let chosen = self.copies.iter().filter(|(uid, _)| uids.contains(&***uid));
                chosen.map(|(_, count)| count).sum()
            }
        }
    }

    fn add(&mut self, uid: &str, spec: &FunctionSpec) {
        self.memory += spec.resources.memory.0;
        self.cpu += spec.resources.cpu.0;
        self.total += 1;
        *self.copies.entry(uid.to_owned()).or_default() += 1;
    }

    fn remove(&mut self, uid: &str, spec: &FunctionSpec) {
        self.memory = self.memory.saturating_sub(spec.resources.memory.0);
        self.cpu = self.cpu.saturating_sub(spec.resources.cpu.0);
        self.total = self.total.saturating_sub(1);
        if let Some(copies) = self.copies.get_mut(uid) {
            *copies = copies.saturating_sub(1);
        }
    }

    fn score(
        &self,
        function: &FunctionView,
        places: &Places<'_>,
        artifact: &CompiledArtifact,
    ) -> Score {
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
        let holds = !self.held.is_empty() && holdings::contains(self.held, &artifact.sha256);
        let (crowd, weight) = places.score(self.view);
        Score {
            crowd,
            copies,
            avoided,
            wishes: Reverse(weight + node_affinity::preference(function, self.view)),
            load: used + if holds { 0 } else { FETCH },
        }
    }
}

/// True when every taint with `effect` is tolerated.
pub fn tolerates(tolerations: &[Toleration], taints: &[Taint], effect: &str) -> bool {
    taints
        .iter()
        .filter(|taint| taint.effect == effect)
        .all(|taint| tolerated(tolerations, taint))
}

/// Whether who drives a function's copies off a node waits for them: it is drained, and not by force.
pub fn waits(tolerations: &[Toleration], node: &NodeView) -> bool {
    let driving = |taint: &&Taint| taint.effect == "NoExecute" && !tolerated(tolerations, taint);
    let mut driving = node.taints.iter().filter(driving);
    driving.all(|taint| taint.key == DRAIN_TAINT && taint.value.as_deref() != Some(DRAIN_FORCED))
}
