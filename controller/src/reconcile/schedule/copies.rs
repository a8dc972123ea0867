//! The copies of each function, counted: what statuses and rollouts are made of. Pure.

use std::collections::HashMap;
use std::time::Duration;

use hive_manifests::FunctionSpec;
use jiff::Timestamp;

use super::plan::{Plan, Step};
use super::view::{AssignmentView, FunctionView, View};

pub struct Copies<'a> {
    pub own: Vec<&'a AssignmentView>,
    /// Beside them, those that try a version.
    pub trials: Vec<&'a AssignmentView>,
    /// How many there should be.
    pub wanted: usize,
}

/// All functions with their copies, by a view and the plan for it.
pub fn copies<'a>(
    view: &'a View,
    plan: &Plan,
) -> impl Iterator<Item = (&'a FunctionView, Copies<'a>)> {
    let mut coming: HashMap<&str, usize> = HashMap::new();
    for step in &plan.steps {
        if let Step::Create { spec, .. } = step {
            *coming.entry(&spec.function_uid).or_default() += 1;
        }
    }
    let mut by_function: HashMap<&str, Vec<&AssignmentView>> = HashMap::new();
    for assignment in &view.assignments {
        by_function
            .entry(&assignment.spec.function_uid)
            .or_default()
            .push(assignment);
    }
    let counted = view.functions.iter().map(|function| {
        let all = by_function.remove(&*function.uid).unwrap_or_default();
        let (trials, own): (Vec<_>, Vec<_>) = all.into_iter().partition(|copy| copy.spec.canary);
        let wanted = match function.spec.every_node {
            true => own.len() + coming.get(&*function.uid).copied().unwrap_or(0),
            false => function.wanted_replicas() as usize,
        };
        let copies = Copies {
            own,
            trials,
            wanted,
        };
        (function, copies)
    });
    // The plan is borrowed no longer than this.
    counted.collect::<Vec<_>>().into_iter()
}

impl Copies<'_> {
    /// Those that run a version and answer.
    pub fn updated<'s>(
        &'s self,
        template: &'s FunctionSpec,
    ) -> impl Iterator<Item = &'s AssignmentView> {
        running(&self.own, template)
    }

    /// Those that try a version and answer.
    pub fn trying<'s>(
        &'s self,
        template: &'s FunctionSpec,
    ) -> impl Iterator<Item = &'s AssignmentView> {
        running(&self.trials, template)
    }
}

fn running<'s>(
    copies: &'s [&AssignmentView],
    template: &'s FunctionSpec,
) -> impl Iterator<Item = &'s AssignmentView> {
    let copies = copies.iter().copied();
    copies.filter(move |copy| copy.current && copy.spec.function == *template)
}

/// When the first of some copies began to answer, if any did and that is known.
pub fn began_at<'s>(copies: impl Iterator<Item = &'s AssignmentView>) -> Option<Timestamp> {
    copies.filter_map(|copy| copy.ready_since).min()
}

/// When the last of some copies began to answer, if any did.
pub fn moved_on_at<'s>(copies: impl Iterator<Item = &'s AssignmentView>) -> Option<Timestamp> {
    copies.filter_map(|copy| copy.ready_since).max()
}

/// When `wanted` of some copies will have answered for `min_ready`; `None` while one does not answer.
pub fn settled_at<'s>(
    copies: impl Iterator<Item = &'s AssignmentView>,
    wanted: usize,
    min_ready: Duration,
) -> Option<Timestamp> {
    let due: Vec<_> = copies
        .filter_map(|copy| copy.settled_at(min_ready))
        .collect();
    match due.len() >= wanted {
        true => Some(due.into_iter().max().unwrap_or(Timestamp::MIN)),
        false => None,
    }
}
