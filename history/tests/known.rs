//! Histories whose verdict is known: those that are in order, and those that never may happen.
#![allow(clippy::unwrap_used)]

use hive_history::{Action, Fault, Operation, Outcome, Value, check};

use Action::{Create, Delete, Read, Swap, Update};
use Outcome::{Done, Failed, Found, Unknown};

/// Beginning, end, what, and what came of it.
type Line = (u64, u64, Action, Outcome);

fn swap(expected: Value, value: Value) -> Action {
    Swap { expected, value }
}

fn history(lines: &[Line]) -> Vec<Operation> {
    let operation = |(client, (began, ended, action, outcome)): (usize, &_)| Operation {
        client: client as u32,
        key: "a".to_owned(),
        began: *began,
        ended: *ended,
        action: *action,
        outcome: *outcome,
    };
    lines.iter().enumerate().map(operation).collect()
}

#[test]
fn what_one_sequence_explains_is_in_order() {
    let cases: [(&str, &[Line]); 8] = [
        ("nothing", &[]),
        (
            "one after the other",
            &[
                (0, 1, Read, Found(None)),
                (2, 3, Create(1), Done),
                (4, 5, Read, Found(Some(1))),
                (6, 7, swap(1, 2), Done),
                (8, 9, Update(3), Done),
                (10, 11, Delete, Done),
                (12, 13, Read, Found(None)),
            ],
        ),
        (
            "a read during a write sees it or not",
            &[
                (0, 1, Create(1), Done),
                (2, 9, Update(2), Done),
                (3, 4, Read, Found(Some(1))),
                (5, 6, Read, Found(Some(2))),
            ],
        ),
        (
            "an unknown write happens late",
            &[
                (0, 1, Create(1), Done),
                (2, 3, Update(2), Unknown),
                (10, 11, Read, Found(Some(1))),
                (20, 21, Read, Found(Some(2))),
            ],
        ),
        (
            "an unknown write never happens",
            &[
                (0, 1, Create(1), Done),
                (2, 3, swap(1, 2), Unknown),
                (10, 11, Read, Found(Some(1))),
            ],
        ),
        (
            "an unknown deletion makes room for a creation",
            &[
                (0, 1, Create(1), Done),
                (2, 3, Delete, Unknown),
                (4, 5, Create(2), Done),
                (6, 7, Read, Found(Some(2))),
            ],
        ),
        (
            "a failure says nothing",
            &[
                (0, 1, Create(1), Done),
                (2, 3, swap(9, 2), Failed),
                (4, 5, Read, Found(Some(1))),
            ],
        ),
        (
            "what touches in time may have overlapped",
            &[
                (0, 1, Create(1), Done),
                (2, 4, Update(2), Done),
                (4, 5, Read, Found(Some(1))),
            ],
        ),
    ];
    for (name, lines) in cases {
        let checked = check(&history(lines));
        assert!(checked.is_ok(), "{name}: {}", checked.unwrap_err());
    }
}

#[test]
fn what_never_may_happen_is_found_and_made_small() {
    // With the number of operations that are needed to see it.
    let cases: [(&str, usize, &[Line]); 9] = [
        (
            "a stale read",
            3,
            &[
                (0, 1, Create(1), Done),
                (2, 3, Update(2), Done),
                (4, 5, Read, Found(Some(1))),
            ],
        ),
        (
            "a lost write",
            2,
            &[(0, 1, Create(1), Done), (2, 3, Read, Found(None))],
        ),
        (
            "two swaps of the same value",
            3,
            &[
                (0, 1, Create(1), Done),
                (2, 10, swap(1, 2), Done),
                (3, 11, swap(1, 3), Done),
            ],
        ),
        (
            "split brain: two sides go on alone",
            4,
            &[
                (0, 1, Create(1), Done),
                (2, 3, swap(1, 2), Done),
                (4, 5, Read, Found(Some(2))),
                (6, 7, swap(1, 3), Done),
                (8, 9, Read, Found(Some(3))),
                (10, 11, Read, Found(Some(2))),
            ],
        ),
        (
            "a read goes back in time",
            4,
            &[
                (0, 1, Create(1), Done),
                (2, 20, Update(2), Done),
                (3, 4, Read, Found(Some(2))),
                (5, 6, Read, Found(Some(1))),
            ],
        ),
        (
            "a value out of nowhere",
            1,
            &[(0, 1, Create(1), Done), (2, 3, Read, Found(Some(7)))],
        ),
        (
            "an unknown write that is undone",
            4,
            &[
                (0, 1, Create(1), Done),
                (2, 3, Update(2), Unknown),
                (4, 5, Read, Found(Some(2))),
                (6, 7, Read, Found(Some(1))),
            ],
        ),
        (
            "a write seen before it began",
            2,
            &[
                (0, 1, Create(1), Done),
                (2, 3, Read, Found(Some(2))),
                (4, 5, Update(2), Done),
            ],
        ),
        (
            "two creations without a deletion",
            2,
            &[(0, 1, Create(1), Done), (2, 3, Create(2), Done)],
        ),
    ];
    for (name, needed, lines) in cases {
        let mut whole = history(lines);
        // Much that is in order, before and after, on this object and on another.
        for (index, operation) in whole.iter_mut().enumerate() {
            operation.began += 1000;
            operation.ended += 1000;
            operation.client = index as u32;
        }
        for turn in 0..100 {
            let mut around = history(&[
                (turn * 8, turn * 8 + 1, Create(1000 + turn), Done),
                (turn * 8 + 2, turn * 8 + 3, Read, Found(Some(1000 + turn))),
                (turn * 8 + 4, turn * 8 + 5, Delete, Done),
            ]);
            whole.append(&mut around.clone());
            for operation in &mut around {
                operation.key = "b".to_owned();
            }
            whole.append(&mut around);
        }
        match check(&whole) {
            Err(Fault::Violation(violation)) => {
                assert_eq!(violation.key, "a", "{name}");
                assert_eq!(violation.of, lines.len() + 300, "{name}");
                let shown = violation.operations.len();
                assert!(
                    shown <= needed + 1,
                    "{name}: {}",
                    Fault::Violation(violation)
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Long histories with many clients at once and many unknown outcomes are decided, and quickly:
/// the steps are bounded, not the time.
#[test]
fn long_histories_are_decided() {
    let mut lines = vec![(0, 1, Create(1), Done)];
    let mut now = 2;
    let mut value = 1;
    for turn in 0..2_500 {
        let next = turn + 2;
        // Four overlap; each sixteenth turn leaves an open change, deletion and creation behind.
        lines.push((now, now + 9, swap(value, next), Done));
        lines.push((now + 1, now + 3, Read, Found(Some(value))));
        lines.push((now + 2, now + 10, Read, Found(Some(next))));
        if turn % 16 == 0 {
            lines.push((now + 2, now + 4, Update(1_000_000 + turn), Unknown));
            lines.push((now + 2, now + 4, Delete, Unknown));
            lines.push((now + 2, now + 4, Create(2_000_000 + turn), Unknown));
        } else {
            lines.push((now + 2, now + 4, swap(value, 1_000_000 + turn), Failed));
        }
        value = next;
        now += 12;
    }
    assert!(lines.len() > 10_000);
    let good = history(&lines);
    let checked = check(&good).unwrap();
    assert!(checked.steps < 200_000, "{checked:?}");
    // One stale read near the end.
    lines.push((now, now + 1, Read, Found(Some(value - 1))));
    assert!(matches!(check(&history(&lines)), Err(Fault::Violation(_))));
}
