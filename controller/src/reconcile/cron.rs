//! Functions' schedules: a call at each of their times, once in the whole swarm.
//!
//! A call is claimed in the function's status before it is sent, by compare-and-swap: whoever
//! claims it makes it. One whose leader was lost while it was under way is not made again: nobody knows
//! how far it came.

mod agenda;
mod plan;
mod run;

pub use agenda::Agenda;
pub use run::Cron;

use hive_manifests::Resource;

use crate::state::Change;

/// True for a change that can give something to do here.
pub fn concerns(change: &Change) -> bool {
    change.key.resource == Resource::Function
}
