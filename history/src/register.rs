//! The register that an object must behave as, and what of a history bears on it.

use std::collections::{HashMap, HashSet};

use crate::operation::{Action, Operation, Outcome, Value};

/// Stands for every value that nobody saw: which of them is there makes no difference to anyone.
pub const UNSEEN: Value = Value::MAX;

/// What an operation does to the register, and in which state it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Observe(Option<Value>),
    Create(Value),
    Update(Value),
    Swap { expected: Value, value: Value },
    Delete,
}

impl Effect {
    /// The state after it; `None` where it is impossible.
    pub fn apply(self, state: Option<Value>) -> Option<Option<Value>> {
        match (self, state) {
            (Self::Observe(found), _) => (found == state).then_some(state),
            (Self::Create(value), None) => Some(Some(value)),
            (Self::Update(value), Some(_)) => Some(Some(value)),
            (Self::Swap { expected, value }, Some(now)) => (expected == now).then_some(Some(value)),
            (Self::Delete, Some(_)) => Some(None),
            (Self::Create(_), Some(_))
            | (Self::Update(_) | Self::Swap { .. } | Self::Delete, None) => None,
        }
    }

    fn of(operation: &Operation) -> Option<Self> {
        match (operation.outcome, operation.action) {
            (Outcome::Failed, _) | (Outcome::Unknown, Action::Read) => None,
            (Outcome::Found(found), _) => Some(Self::Observe(found)),
            // A read that does not say what it found says nothing.
            (Outcome::Done, Action::Read) => None,
            (Outcome::Done | Outcome::Unknown, action) => Some(match action {
                Action::Read => return None,
                Action::Create(value) => Self::Create(value),
                Action::Update(value) => Self::Update(value),
                Action::Swap { expected, value } => Self::Swap { expected, value },
                Action::Delete => Self::Delete,
            }),
        }
    }

    /// What must be there for it.
    pub fn sees(self) -> Option<Value> {
        match self {
            Self::Observe(found) => found,
            Self::Swap { expected, .. } => Some(expected),
            Self::Create(_) | Self::Update(_) | Self::Delete => None,
        }
    }

    /// What is there after it.
    pub fn writes(mut self) -> Option<Value> {
        self.written().map(|value| *value)
    }

    fn written(&mut self) -> Option<&mut Value> {
        match self {
            Self::Create(value) | Self::Update(value) | Self::Swap { value, .. } => Some(value),
            Self::Observe(_) | Self::Delete => None,
        }
    }
}

/// An operation that bears on whether a history is linearizable.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its place in the history it was taken from.
    pub index: usize,
    pub began: u64,
    /// `None`: it may take effect at any time from its beginning on, or never.
    pub ended: Option<u64>,
    pub effect: Effect,
}

/// What bears on one object, in the order in which it began.
pub fn calls(operations: &[Operation]) -> Vec<Call> {
    let mut calls: Vec<Call> = operations
        .iter()
        .enumerate()
        .filter_map(|(index, operation)| {
            Some(Call {
                index,
                began: operation.began,
                ended: (operation.outcome != Outcome::Unknown).then_some(operation.ended),
                effect: Effect::of(operation)?,
            })
        })
        .collect();
    leave_out_the_unseen(&mut calls);
    let seen: HashSet<Value> = calls.iter().filter_map(|call| call.effect.sees()).collect();
    for call in &mut calls {
        if let Some(value) = call.effect.written()
            && !seen.contains(value)
        {
            *value = UNSEEN;
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// An open change to a value that nobody saw may as well not have happened: what it needs (an
/// object) it leaves. Without it, what it expected may be a value that nobody saw.
fn leave_out_the_unseen(calls: &mut Vec<Call>) {
    let mut views: HashMap<Value, usize> = HashMap::new();
    let mut open_writers: HashMap<Value, Vec<usize>> = HashMap::new();
    for (at, call) in calls.iter().enumerate() {
        if let Some(value) = call.effect.sees() {
            *views.entry(value).or_default() += 1;
        }
        if let (None, Effect::Update(value) | Effect::Swap { value, .. }) =
            (call.ended, call.effect)
        {
            open_writers.entry(value).or_default().push(at);
        }
    }
    let mut unseen: Vec<Value> = open_writers
        .keys()
        .filter(|value| !views.contains_key(value))
        .copied()
        .collect();
    let mut left_out = HashSet::new();
    while let Some(value) = unseen.pop() {
        for at in open_writers.remove(&value).into_iter().flatten() {
            left_out.insert(calls[at].index);
            if let Some(expected) = calls[at].effect.sees()
                && let Some(count) = views.get_mut(&expected)
            {
                *count -= 1;
                if *count == 0 {
                    unseen.push(expected);
                }
            }
        }
    }
    calls.retain(|call| !left_out.contains(&call.index));
}

/// Whether open calls of this effect can stand for each other: then the one that began first goes first.
pub fn is_interchangeable(effect: Effect) -> bool {
    matches!(effect, Effect::Delete | Effect::Create(UNSEEN))
}
