//! How many copies functions with `spec.autoscaling` have, by what the ingresses are asked for.
//!
//! What was found goes into the function's status, which the scheduler reads; specs are people's. While
//! nothing is known, as when another controller begins to lead, there are never fewer copies than before.

mod count;
mod plan;
mod run;
#[cfg(test)]
mod scenarios;

pub use plan::{Change, Demand, Scaling, Subject, plan};
pub use run::pass;
