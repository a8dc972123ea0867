//! The copies of each function, counted: what statuses and rollouts are made of. Pure.

use std::collections::HashMap;
use std::time::Duration;

use hive_manifests::FunctionSpec;
use jiff::Timestamp;

use super::plan::{Plan, Step};
use super::view::{AssignmentView, FunctionView, View};

pub struct Copies<'a> {
    pub own: Vec<&'a AssignmentView>,
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
        let own = by_function.remove(&*function.uid).unwrap_or_default();
        let wanted = match function.spec.every_node {
            true => own.len() + coming.get(&*function.uid).copied().unwrap_or(0),
            false => function.spec.replicas.unwrap_or(1) as usize,
        };
        (function, Copies { own, wanted })
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
        let own = self.own.iter().copied();
        own.filter(move |copy| copy.current && copy.spec.function == *template)
    }

    /// When the last of them began to, if any did.
    pub fn moved_on_at(&self, template: &FunctionSpec) -> Option<Timestamp> {
        self.updated(template)
            .filter_map(|copy| copy.ready_since)
            .max()
    }

    /// When all that are wanted will have answered for `min_ready`; `None` while one does not answer.
    pub fn settled_at(&self, template: &FunctionSpec, min_ready: Duration) -> Option<Timestamp> {
        let due: Vec<_> = self
            .updated(template)
            .filter_map(|copy| copy.settled_at(min_ready))
            .collect();
        match due.len() >= self.wanted {
            true => Some(due.into_iter().max().unwrap_or(Timestamp::MIN)),
            false => None,
        }
    }
}
