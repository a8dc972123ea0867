//! Versions of functions: what each was, which one reaches the copies, and how far it has come.
//!
//! Specs are people's: this looks at them, keeps each version as a ControllerRevision, and says in statuses what
//! becomes of it. Which copy changes when is the scheduler's part.

mod answers;
mod canary;
mod plan;
mod run;
mod standing;
mod verdict;
mod view;
mod words;

pub use canary::Asked;
pub use plan::{Step, Subject, plan};
pub use run::Rollouts;
#[cfg(test)]
pub use run::command;
pub use standing::Standing;
pub use view::{RevisionView, TemplateDigest, proven_artifacts, template_of};
