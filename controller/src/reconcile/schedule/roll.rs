//! How copies go over to another version. Pure.
//!
//! Copies that serve nothing change at once, the others so that no more than a few are on their way at a time.
//! While a function is paused none changes, and none to a version that no node can be sent: what it refers to is
//! missing, and a copy without it would stop.

use std::collections::HashSet;

use hive_manifests::{AssignmentSpec, FunctionSpec, Phase};
use jiff::Timestamp;

use super::board::Board;
use super::course::{Course, Version};
use super::overlap;
use super::plan::{Plan, Step};
use super::view::{AssignmentView, FunctionView, digest_of};
use crate::state::Key;

/// The function as if `version` was its newest one, with the compiled forms that are known of it: from its
/// status, or those that copies have.
pub fn at(
    function: &FunctionView,
    version: &Version,
    existing: &[&AssignmentView],
) -> FunctionView {
    let template = &version.template;
    let mut artifacts = function.artifacts.clone();
    if template.artifact != function.spec.artifact {
        let source = digest_of(&template.artifact);
        let older = function.older.iter();
        artifacts = older
            .filter(|artifact| Some(&artifact.source_sha256) == source.as_ref())
            .cloned()
            .collect();
        let held = existing
            .iter()
            .filter(|copy| copy.spec.function.artifact == template.artifact);
        artifacts.extend(held.map(|copy| copy.spec.artifact.clone()));
    }
    FunctionView {
        spec: function.spec.with_template(template),
        course: Course::only(&version.name),
        missing: version.missing.clone(),
        artifacts,
        ..function.clone()
    }
}

/// Whether a copy runs something else than the function's newest version.
pub fn is_outdated(
    function: &FunctionView,
    template: &FunctionSpec,
    assignment: &AssignmentView,
    board: &Board,
) -> bool {
    let spec = &assignment.spec;
    spec.function != *template
        || board
            .artifact_for(function, &spec.node_name)
            .is_some_and(|artifact| artifact.sha256 != spec.artifact.sha256)
}

/// Brings the next copies to the function's newest version.
pub fn roll(
    function: &FunctionView,
    wanted: usize,
    existing: &[&AssignmentView],
    outdated: &[&AssignmentView],
    board: &mut Board,
    now: Timestamp,
    plan: &mut Plan,
) {
    if outdated.is_empty() || function.spec.paused || function.missing.is_some() {
        return;
    }
    let old: HashSet<&Key> = outdated.iter().map(|assignment| &assignment.key).collect();
    let mut settling = 0;
    for copy in existing {
        if old.contains(&copy.key) || copy.phase == Phase::Unknown {
            continue;
        }
        match copy.settled_at(function.spec.min_ready()) {
            Some(due) if due <= now => {}
            due => {
                settling += 1;
                plan.look_again_at(due);
            }
        }
    }
    let template = function.spec.template();
    let (serving, others): (Vec<_>, Vec<_>) = outdated.iter().partition(|copy| copy.current);
    // These serve nothing, or are about to change to what is outdated by now.
    for assignment in others {
        if let Some(step) = change(function, &template, assignment, board, now, plan) {
            plan.steps.push(step);
            settling += 1;
        }
    }
    let may_change = function.spec.max_unavailable(wanted);
    for assignment in serving {
        if settling >= may_change {
            break;
        }
        if let Some(step) = change(function, &template, assignment, board, now, plan) {
            plan.steps.push(step);
            settling += 1;
        }
    }
}

/// Where the new version is loaded: on the same node, or on another one if it needs more than there is left.
pub fn change(
    function: &FunctionView,
    template: &FunctionSpec,
    assignment: &AssignmentView,
    board: &mut Board,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<Step> {
    let node = &assignment.spec.node_name;
    // Until it is compiled for that kind of node, what runs there runs on.
    let artifact = board.artifact_for(function, node)?.clone();
    let (key, expect) = (assignment.key.clone(), assignment.revision);
    let version = |node_name: String, artifact| {
        Box::new(AssignmentSpec {
            function_generation: function.generation,
            function: template.clone(),
            revision: function.course.newest.clone(),
            node_name,
            artifact,
            ..assignment.spec.clone()
        })
    };
    board.release(assignment);
    if board.has_room(function, assignment) {
        board.reserve(function, node);
        let spec = version(node.clone(), artifact);
        return Some(Step::Update { key, expect, spec });
    }
    let pinned = function.spec.every_node.then_some(&**node);
    match board.choose(function, pinned) {
        Ok((node, artifact)) => {
            board.reserve(function, &node);
            let previous = overlap::previous(function, assignment, board, now);
            let mut spec = version(node, artifact);
            spec.previous = previous;
            Some(Step::Move { key, expect, spec })
        }
        Err(unfit) => {
            board.restore(assignment);
            plan.unplaced
                .entry(function.key.clone())
                .or_insert_with(|| unfit.to_string());
            None
        }
    }
}
