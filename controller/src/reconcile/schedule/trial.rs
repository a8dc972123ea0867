//! Copies that try a version beside those that are wanted. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;

use super::board::Board;
use super::plan::{Plan, Slot, delete, place};
use super::roll;
use super::view::{AssignmentView, FunctionView};

/// `existing` are all copies of the function, of which some are trials.
pub fn plan_trials(
    function: &FunctionView,
    existing: &[&AssignmentView],
    board: &mut Board,
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted = match function.ending {
        None => function.course.trials,
        Some(_) => 0,
    };
    let wanted: Vec<String> = (0..wanted).map(|number| format!("c{number}")).collect();
    let mut by_slot: HashMap<&str, &AssignmentView> = existing
        .iter()
        .filter(|copy| copy.spec.canary)
        .map(|copy| (&*copy.spec.slot, *copy))
        .collect();
    let version = match &function.course.held {
        None => Cow::Borrowed(function),
        Some(held) => Cow::Owned(roll::at(function, held, existing)),
    };
    let template = version.spec.template();
    for name in &wanted {
        let slot = Slot {
            name,
            pinned: None,
            canary: true,
            last: false,
        };
        match by_slot.remove(&**name) {
            Some(trial) if board.may_stay(&version, trial) => {
                if !function.spec.paused
                    && roll::is_outdated(&version, &template, trial, board)
                    && version.missing.is_none()
                    && let Some(step) = roll::change(&version, &template, trial, board, now, plan)
                {
                    plan.steps.push(step);
                }
            }
            None if version.missing.is_some() => {}
            found => place(&version, &slot, found, board, now, plan),
        }
    }
    let mut surplus: Vec<_> = by_slot.into_values().collect();
    surplus.sort_by_key(|trial| &trial.key);
    for trial in surplus {
        board.release(trial);
        plan.steps.push(delete(trial));
    }
}
