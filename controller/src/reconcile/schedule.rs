//! Which function runs on which node.

mod board;
mod plan;
mod run;
#[cfg(test)]
mod scenarios;
mod view;

pub use plan::{Plan, Step, plan, template};
pub use run::pass;
pub use view::{AssignmentView, FunctionView, Seen, View, source_sha256};
