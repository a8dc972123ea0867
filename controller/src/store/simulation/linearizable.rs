//! Is there an order of a key's operations, within their times, that one register would show?
//!
//! The search of Wing and Gong with Lowe's memory of what was tried. An operation of unknown
//! outcome may take effect at any time after its call, or never.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Every write writes a value of its own, so a value says which write it came from.
pub type Value = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Read(Option<Value>),
    /// Done only where nothing was.
    Create(Value),
    /// Done only where something was.
    Replace(Value),
    /// Done only where the first was what is stored.
    Swap(Value, Value),
    Delete,
    /// Refused: something is there.
    Present,
    /// Refused: nothing is there.
    Absent,
    /// Refused: something else is there.
    Other(Value),
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub action: Action,
    pub called: Duration,
    /// Empty: unknown whether it was done, or when.
    pub returned: Option<Duration>,
    /// Of what it wrote or read, where that was said. Writes are ordered by it, which also spares
    /// the search most of its ways.
    pub revision: Option<u64>,
}

impl Action {
    /// What is stored afterwards; `Err` where the outcome is not what a register would have said.
    fn perform(&self, stored: Option<Value>) -> Result<Option<Value>, ()> {
        let (possible, after) = match self {
            Action::Read(seen) => (*seen == stored, stored),
            Action::Create(value) => (stored.is_none(), Some(*value)),
            Action::Replace(value) => (stored.is_some(), Some(*value)),
            Action::Swap(expected, value) => (stored == Some(*expected), Some(*value)),
            Action::Delete => (stored.is_some(), None),
            Action::Present => (stored.is_some(), stored),
            Action::Absent => (stored.is_none(), stored),
            Action::Other(expected) => (stored.is_some_and(|s| s != *expected), stored),
        };
        possible.then_some(after).ok_or(())
    }
}

impl Operation {
    fn writes(&self) -> bool {
        match self.action {
            Action::Create(_) | Action::Replace(_) | Action::Swap(..) | Action::Delete => true,
            Action::Read(_) | Action::Present | Action::Absent | Action::Other(_) => false,
        }
    }

    fn value(&self) -> Option<Value> {
        match self.action {
            Action::Create(value) | Action::Replace(value) | Action::Swap(_, value) => Some(value),
            Action::Read(value) => value,
            Action::Delete | Action::Present | Action::Absent | Action::Other(_) => None,
        }
    }
}

/// # Errors
/// The operations for which no order was found, as far as they are near where the search ended.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let mut operations: Vec<Operation> = operations.to_vec();
    // Whoever read what an unknown write wrote also tells its revision.
    let known: HashMap<Value, u64> = operations
        .iter()
        .filter_map(|operation| Some((operation.value()?, operation.revision?)))
        .collect();
    for operation in &mut operations {
        let value = operation.value();
        operation.revision = operation.revision.or_else(|| known.get(&value?).copied());
    }
    // What is of no known place is tried last.
    operations.sort_by_key(|o| (o.returned.is_none() && o.revision.is_none(), o.called));
    let end = |at: usize| operations[at].returned.unwrap_or(Duration::MAX);
    let mut tried = HashSet::new();
    // Each level: what is done, what is stored, and the next candidate.
    let mut done = vec![false; operations.len()];
    let mut stack: Vec<(usize, Option<Value>)> = Vec::new();
    let mut stored = None;
    let mut candidate = 0;
    let mut furthest = 0;
    loop {
        // All that is known to have happened has its place.
        let open = (0..operations.len()).filter(|at| !done[*at]);
        let earliest = open.map(end).min().unwrap_or(Duration::MAX);
        if earliest == Duration::MAX {
            return Ok(());
        }
        let open = (0..operations.len()).filter(|at| !done[*at] && operations[*at].writes());
        let oldest = open.filter_map(|at| operations[at].revision).min();
        let next = (candidate..operations.len()).find(|at| {
            let revision = operations[*at]
                .revision
                .filter(|_| operations[*at].writes());
            !done[*at]
                && revision.is_none_or(|revision| Some(revision) == oldest)
                && operations[*at].called <= earliest
                && operations[*at].action.perform(stored).is_ok()
        });
        if let Some(at) = next {
            let after = operations[at].action.perform(stored).unwrap_or(stored);
            done[at] = true;
            if tried.insert((done.clone(), after)) {
                stack.push((at, stored));
                furthest = furthest.max(stack.len());
                stored = after;
                candidate = 0;
            } else {
                done[at] = false;
                candidate = at + 1;
            }
            continue;
        }
        let Some((at, before)) = stack.pop() else {
            let mut text = format!(
                "no order explains it ({furthest} of {} placed):",
                done.len()
            );
            for operation in operations {
                text.push_str(&format!("\n  {operation:?}"));
            }
            return Err(text);
        };
        done[at] = false;
        stored = before;
        candidate = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, called: u64, returned: u64) -> Operation {
        Operation {
            action,
            called: Duration::from_secs(called),
            returned: (returned > 0).then(|| Duration::from_secs(returned)),
            revision: None,
        }
    }

    #[test]
    fn histories_are_told_apart() {
        use Action::*;
        let cases = [
            (true, vec![(Create(1), 0, 1), (Read(Some(1)), 2, 3)]),
            (false, vec![(Create(1), 0, 1), (Read(None), 2, 3)]),
            (false, vec![(Replace(1), 0, 1)]),
            (false, vec![(Create(1), 0, 1), (Create(2), 2, 3)]),
            // At the same time: either.
            (
                true,
                vec![(Create(1), 0, 5), (Read(None), 1, 2), (Read(Some(1)), 3, 4)],
            ),
            (
                false,
                vec![(Create(1), 0, 5), (Read(Some(1)), 1, 2), (Read(None), 3, 4)],
            ),
            // Unknown: late, or never.
            (
                true,
                vec![(Create(1), 0, 0), (Read(None), 1, 2), (Read(Some(1)), 3, 4)],
            ),
            (
                true,
                vec![(Create(1), 0, 0), (Read(None), 1, 2), (Read(None), 3, 4)],
            ),
            (
                false,
                vec![(Create(1), 0, 0), (Read(Some(1)), 1, 2), (Read(None), 3, 4)],
            ),
            (
                true,
                vec![(Create(1), 0, 1), (Swap(1, 2), 2, 3), (Read(Some(2)), 4, 5)],
            ),
            (
                false,
                vec![(Create(1), 0, 1), (Swap(1, 2), 2, 3), (Swap(1, 3), 4, 5)],
            ),
            (
                true,
                vec![(Create(1), 0, 1), (Replace(2), 2, 3), (Other(1), 4, 5)],
            ),
            (false, vec![(Create(1), 0, 1), (Other(1), 4, 5)]),
            (
                true,
                vec![(Create(1), 0, 1), (Delete, 2, 3), (Absent, 4, 5)],
            ),
            (
                false,
                vec![(Create(1), 0, 1), (Delete, 2, 3), (Present, 4, 5)],
            ),
        ];
        for (expected, operations) in cases {
            let history: Vec<Operation> = operations
                .iter()
                .map(|(action, called, returned)| operation(action.clone(), *called, *returned))
                .collect();
            assert_eq!(check(&history).is_ok(), expected, "{operations:?}");
        }
    }
}
