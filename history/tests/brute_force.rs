//! The checker says what trying every order says, on histories small enough to try them all.
#![allow(clippy::unwrap_used)]

use hive_history::{Action, Fault, Operation, Outcome, Value, check};
use proptest::prelude::*;

/// Tries each order of what is left that respects time; open operations may be left out.
fn explained(left: &[&Operation], state: Option<Value>) -> bool {
    if left.iter().all(|o| o.outcome == Outcome::Unknown) {
        return true;
    }
    left.iter().enumerate().any(|(index, next)| {
        let follows_another = left
            .iter()
            .any(|other| other.outcome != Outcome::Unknown && other.ended < next.began);
        if follows_another {
            return false;
        }
        let Some(after) = apply(next, state) else {
            return false;
        };
        let mut rest = left.to_vec();
        rest.remove(index);
        explained(&rest, after)
    })
}

fn apply(operation: &Operation, state: Option<Value>) -> Option<Option<Value>> {
    if let Outcome::Found(found) = operation.outcome {
        return (found == state).then_some(state);
    }
    match (operation.action, state) {
        (Action::Create(value), None) | (Action::Update(value), Some(_)) => Some(Some(value)),
        (Action::Swap { expected, value }, Some(now)) if now == expected => Some(Some(value)),
        (Action::Delete, Some(_)) => Some(None),
        _ => None,
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let action = prop_oneof![
        Just(Action::Read),
        (1..4_u64).prop_map(Action::Create),
        (1..4_u64).prop_map(Action::Update),
        (1..4_u64, 1..4_u64).prop_map(|(expected, value)| Action::Swap { expected, value }),
        Just(Action::Delete),
    ];
    let found = prop_oneof![Just(None), (1..4_u64).prop_map(Some)];
    let outcome = prop_oneof![3 => Just(None), 1 => Just(Some(Outcome::Unknown))];
    (0..12_u64, 0..6_u64, action, found, outcome).prop_map(
        |(began, length, action, found, outcome)| Operation {
            client: 0,
            key: "a".to_owned(),
            began,
            ended: began + length,
            action,
            outcome: match (action, outcome) {
                (Action::Read, _) => Outcome::Found(found),
                (_, Some(unknown)) => unknown,
                _ => Outcome::Done,
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_verdict_is_that_of_trying_every_order(history in prop::collection::vec(operation(), 0..7)) {
        let all: Vec<&Operation> = history.iter().collect();
        match check(&history) {
            Ok(_) => prop_assert!(explained(&all, None), "accepted"),
            Err(Fault::Violation(violation)) => {
                prop_assert!(!explained(&all, None), "refused");
                // What is shown contradicts itself, too.
                let shown: Vec<&Operation> = violation.operations.iter().collect();
                prop_assert!(!explained(&shown, None), "shown: {:#?}", violation.operations);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
