//! What clients saw of replicated objects, and whether one true sequence of operations explains it.
//!
//! A test records operations with the times at which they began and ended; [`check`] says whether
//! each object behaved as one register that everybody shares. Pure: no clock, no I/O, no tasks.

mod operation;
mod register;
mod search;
mod shrink;
mod verdict;

pub use operation::{Action, Operation, Outcome, Value};
pub use verdict::{Checked, Fault, Violation, check};
