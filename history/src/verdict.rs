//! Whether a history is linearizable, object by object.

use std::collections::BTreeMap;
use std::fmt;

use crate::operation::Operation;
use crate::register::calls;
use crate::search::{Found, search};
use crate::shrink::shrink;

/// Per object; a valid history of 10,000 operations takes about twice as many. Some seconds.
const STEPS_ALLOWED: u64 = 20_000_000;

/// What was found to be in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub keys: usize,
    pub operations: usize,
    pub steps: u64,
}

/// No sequence of operations on one object explains what its clients saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub key: String,
    /// Those that contradict each other, as they began. Nothing that is left out could explain them.
    pub operations: Vec<Operation>,
    /// How many there were of this object.
    pub of: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Violation(Violation),
    /// The search was given up: too many operations at once, or with unknown outcomes.
    Undecided {
        key: String,
        of: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => {
                writeln!(
                    f,
                    "{} is not linearizable; of {} operations these contradict each other:",
                    violation.key, violation.of
                )?;
                writeln!(f, "{:>14} {:>14}", "began", "ended")?;
                for operation in &violation.operations {
                    writeln!(f, "{operation}")?;
                }
                Ok(())
            }
            Self::Undecided { key, of } => write!(
                f,
                "{key}: whether its {of} operations are linearizable was not found out within {STEPS_ALLOWED} steps"
            ),
        }
    }
}

impl std::error::Error for Fault {}

/// Checks each object that is named in a history. Objects are absent at first.
pub fn check(history: &[Operation]) -> Result<Checked, Fault> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key)
            .or_default()
            .push(operation.clone());
    }
    let mut checked = Checked::default();
    for (key, operations) in keys {
        let of = operations.len();
        match search(&calls(&operations), None, STEPS_ALLOWED) {
            Found::Sequence { steps } => {
                checked.keys += 1;
                checked.operations += of;
                checked.steps += steps;
            }
            Found::Nothing => {
                return Err(Fault::Violation(Violation {
                    key: key.to_owned(),
                    operations: shrink(operations),
                    of,
                }));
            }
            Found::Undecided => {
                let key = key.to_owned();
                return Err(Fault::Undecided { key, of });
            }
        }
    }
    Ok(checked)
}
