//! Which function runs on which node.

mod board;
mod copies;
mod course;
mod node_affinity;
mod overlap;
mod places;
mod plan;
mod roll;
mod run;
#[cfg(test)]
mod scenarios;
mod seen;
mod trial;
pub mod view;

pub use copies::{Copies, began_at, copies, moved_on_at, settled_at};
pub use course::Version;
pub use plan::{Plan, Step, plan};
pub use run::pass;
pub use seen::Seen;
pub use view::{AssignmentView, FunctionView, View, digest_of, follow, source_sha256};
