//! What runs the store's tasks, timers and blocking work: Tokio, with threads for what blocks.
//!
//! The one seam at which the tests' simulated machines take their place: nothing else in the store
//! may name a clock, spawn, or leave its thread.

mod real;
#[cfg(test)]
mod seam;

#[cfg(not(test))]
pub use self::real::*;
#[cfg(test)]
pub use self::seam::*;
