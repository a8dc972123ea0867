//! Copies that move go on serving where they were until they do where they go. Pure.

use hive_manifests::{Phase, PreviousPlace};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::board::Board;
use super::plan::{Plan, Step};
use super::view::{AssignmentView, FunctionView};

/// Where a copy that goes elsewhere serves meanwhile, if it does; it may also go back there.
pub fn previous(
    function: &FunctionView,
    copy: &AssignmentView,
    board: &Board,
    now: Timestamp,
) -> Option<Box<PreviousPlace>> {
    let spec = &copy.spec;
    // While a version is tried the others answer in its place.
    if !board.overlaps || spec.canary {
        return None;
    }
    let place = match copy.phase == Phase::Ready && board.is_ready(&spec.node_name) {
        true => Box::new(PreviousPlace {
            node_name: spec.node_name.clone(),
            until: Time(now + function.spec.progress_deadline()),
            function_generation: spec.function_generation,
            function: spec.function.clone(),
            revision: spec.revision.clone(),
            artifact: spec.artifact.clone(),
        }),
        // It moves once more before it came.
        false => spec.previous.clone().filter(|it| serves(it, board, now))?,
    };
    Some(place)
}

/// Lets go of the nodes where copies were, as far as nothing is done with them by the steps since `begun`.
pub fn settle(
    copies: &[&AssignmentView],
    begun: usize,
    board: &Board,
    now: Timestamp,
    plan: &mut Plan,
) {
    for copy in copies {
        let Some(previous) = &copy.spec.previous else {
            continue;
        };
        let mut own = plan.steps[begun..].iter();
        if own.any(|step| *step.key() == copy.key) {
            continue;
        }
        if !copy.current && serves(previous, board, now) {
            plan.look_again_at(Some(previous.until.0));
            continue;
        }
        plan.steps.push(Step::Settle {
            key: copy.key.clone(),
            expect: copy.revision,
        });
    }
}

fn serves(place: &PreviousPlace, board: &Board, now: Timestamp) -> bool {
    board.is_ready(&place.node_name) && now < place.until.0
}
