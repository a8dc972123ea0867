//! Which function runs on which node.

mod board;
mod copies;
mod plan;
mod roll;
mod run;
#[cfg(test)]
mod scenarios;
pub mod view;

pub use copies::{Copies, copies};
pub use plan::{Plan, Step, plan};
pub use run::pass;
pub use view::{AssignmentView, FunctionView, Seen, View, follow, source_sha256};
