//! Garbage collection: what is owned goes with its owners, as `metadata.ownerReferences` say.
//!
//! [`Graph`] follows the changes of the state, [`plan`] says what to do about the objects whose
//! owners or dependents changed, [`Collection`] does it. Everything is decided from one state of
//! the log, in which an owner always comes before what refers to its uid: an owner that is absent
//! there never was, or is gone for good, and need not be asked for again before its dependents go.
//!
//! Assignments are the scheduler's own. Here they only hold their Function back when it is deleted
//! in the foreground.

mod graph;
mod plan;
mod run;

pub use graph::{Graph, concerns};
pub use plan::{Step, plan};
pub use run::Collection;

#[cfg(test)]
mod tests;
