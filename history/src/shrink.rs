//! Makes a contradiction small enough to read.
//!
//! Only such changes are made as weaken what a history claims: an observation is left out, an
//! outcome becomes unknown, a swap no longer expects anything, the end is cut off, or the beginning,
//! and the object may be as it likes then. What still contradicts itself did so before.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::operation::{Action, Operation, Outcome};
use crate::register::{Effect, UNSEEN, calls, is_interchangeable};
use crate::search::{Found, search};

/// For each attempt: a contradiction that is hard to see is no good example.
const STEPS_ALLOWED: u64 = 200_000;

/// The smallest part found of a history that is not linearizable, in the order of its beginnings.
pub fn shrink(operations: Vec<Operation>) -> Vec<Operation> {
    let mut left = shortest(&operations);
    let start = match contradicts(&left, Start::Anything) {
        true => Start::Anything,
        false => Start::Nothing,
    };
    if let Start::Anything = start {
        left = without_the_beginning(left);
    }
    let mut size = left.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < left.len() {
            let end = (at + size).min(left.len());
            match weaken(&left, at..end) {
                Some(weaker) if contradicts(&weaker, start) => {
                    at = end - (left.len() - weaker.len());
                    left = weaker;
                }
                _ => at = end,
            }
        }
        if size <= 1 {
            break;
        }
        size /= 2;
    }
    let weakened: Vec<Operation> = left
        .iter()
        .map(|(_, operation)| operation.clone())
        .collect();
    let mut shown: Vec<Operation> = calls(&weakened)
        .into_iter()
        .filter_map(|call| {
            let original = &operations[left[call.index].0];
            // Open now, and of no use to explain the rest: it need not have happened at all.
            let is_idle = call.ended.is_none()
                && original.outcome != Outcome::Unknown
                && is_interchangeable(call.effect);
            (!is_idle).then(|| original.clone())
        })
        .collect();
    shown.sort_by_key(|operation| operation.began);
    shown
}

/// Of what is left of a history: which operation it was, and what is claimed of it now.
type Part = (usize, Operation);

#[derive(Clone, Copy)]
enum Start {
    Nothing,
    /// Absent, or any value.
    Anything,
}

fn contradicts(part: &[Part], start: Start) -> bool {
    let operations: Vec<Operation> = part.iter().map(|(_, o)| o.clone()).collect();
    let calls = calls(&operations);
    let mut starts = BTreeSet::from([None]);
    if let Start::Anything = start {
        starts.insert(Some(UNSEEN));
        starts.extend(calls.iter().filter_map(|call| call.effect.sees()).map(Some));
    }
    let mut starts = starts.into_iter();
    starts.all(|start| search(&calls, start, STEPS_ALLOWED) == Found::Nothing)
}

/// Cut off before the last beginning that leaves it contradictory, whatever there was then.
fn without_the_beginning(part: Vec<Part>) -> Vec<Part> {
    let mut beginnings: Vec<u64> = part.iter().map(|(_, operation)| operation.began).collect();
    beginnings.sort_unstable();
    beginnings.dedup();
    let good =
        beginnings.partition_point(|time| contradicts(&since(&part, *time), Start::Anything));
    match good.checked_sub(1) {
        Some(last) => since(&part, beginnings[last]),
        None => part,
    }
}

/// What ended earlier is left out; what was under way may have happened before, or not.
fn since(part: &[Part], time: u64) -> Vec<Part> {
    let kept = part.iter().filter_map(|(index, operation)| {
        let is_open = operation.outcome == Outcome::Unknown;
        if operation.began >= time || is_open {
            return Some((*index, operation.clone()));
        }
        let outcome = match operation.outcome {
            Outcome::Done if operation.ended >= time => Outcome::Unknown,
            _ => return None,
        };
        let open = Operation {
            outcome,
            ..operation.clone()
        };
        Some((*index, open))
    });
    kept.collect()
}

/// Cut off right after the end that makes it contradict itself.
fn shortest(operations: &[Operation]) -> Vec<Part> {
    let mut ends: Vec<u64> = operations.iter().map(|operation| operation.ended).collect();
    ends.sort_unstable();
    ends.dedup();
    let enough = ends.partition_point(|end| !contradicts(&until(operations, *end), Start::Nothing));
    until(operations, ends.get(enough).copied().unwrap_or(u64::MAX))
}

/// What was known at a time.
fn until(operations: &[Operation], time: u64) -> Vec<Part> {
    operations
        .iter()
        .enumerate()
        .filter(|(_, operation)| operation.began <= time)
        .map(|(index, operation)| {
            let outcome = match operation.ended > time {
                true => Outcome::Unknown,
                false => operation.outcome,
            };
            let known = Operation {
                outcome,
                ..operation.clone()
            };
            (index, known)
        })
        .collect()
}

/// Without the observations among some, and with the changes open; `None` if that is as it was.
fn weaken(operations: &[Part], range: Range<usize>) -> Option<Vec<Part>> {
    let plain: Vec<Operation> = operations.iter().map(|(_, o)| o.clone()).collect();
    let bearing = calls(&plain).into_iter();
    let bearing: HashMap<usize, Effect> = bearing.map(|c| (c.index, c.effect)).collect();
    let mut changed = false;
    let mut weaker = Vec::with_capacity(operations.len());
    for (at, (index, operation)) in operations.iter().enumerate() {
        let mut operation = operation.clone();
        if range.contains(&at) {
            match bearing.get(&at) {
                None | Some(Effect::Observe(_)) => {
                    changed = true;
                    continue;
                }
                Some(_) => {
                    changed |= operation.outcome != Outcome::Unknown;
                    operation.outcome = Outcome::Unknown;
                    if let Action::Swap { value, .. } = operation.action {
                        changed = true;
                        operation.action = Action::Update(value);
                    }
                }
            }
        }
        weaker.push((*index, operation));
    }
    changed.then_some(weaker)
}
