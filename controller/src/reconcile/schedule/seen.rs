//! What was read and planned last, for all reconcilers.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::plan::{Plan, plan};
use super::view::View;
use crate::holdings;
use crate::state::State;

/// The view as it was seen last, and the plan for it. A clone is the same: what one reconciler has read and
/// planned, others need not. Ten thousand nodes and assignments take a third of a second to read, and little
/// changes between two looks.
#[derive(Clone, Default)]
pub struct Seen {
    look: Arc<Mutex<Look>>,
    holdings: holdings::Heard,
}

#[derive(Default)]
struct Look {
    /// Of the state.
    revision: u64,
    view: View,
    plan: Plan,
}

impl Seen {
    /// Plans heed what nodes are heard to hold.
    pub fn heeding(holdings: holdings::Heard) -> Self {
        Self {
            holdings,
            ..Self::default()
        }
    }

    /// Brings view and plan up to a state, and lets `look` at them, while others wait.
    pub fn at<T>(&self, state: &State, now: Timestamp, look: impl FnOnce(&View, &Plan) -> T) -> T {
        let mut seen = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = seen.plan.again.is_some_and(|due| due <= now);
        if seen.revision != state.revision() || is_due {
            seen.view.follow(state);
            // It decides where copies go that go anyway: that it is otherwise wakes nobody.
            seen.view.held = self.holdings.now();
            seen.plan = plan(&seen.view, now);
            seen.revision = state.revision();
        }
        look(&seen.view, &seen.plan)
    }
}
