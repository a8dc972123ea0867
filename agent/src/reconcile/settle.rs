//! Plans and acts until nothing is left to do but wait, for whoever takes the plan's steps: the
//! reconciler, or a simulated machine. It makes no choices, and knows nothing of how a step is taken.

use std::time::Instant;

use super::observed::Observed;
use super::plan::{Step, needed_artifacts, plan, wanted_functions};
use super::wanted::Wanted;

/// Who takes the steps, and writes down in what is observed that it did.
pub trait Executor {
    fn wanted_and_observed(&mut self) -> (&[Wanted], &mut Observed);

    fn take(&mut self, step: Step, now: Instant);
}

/// Until when to wait is returned; `None` if only for something to happen.
pub fn settle(executor: &mut impl Executor) -> Option<Instant> {
    loop {
        let now = Instant::now();
        let (wanted, observed) = executor.wanted_and_observed();
        let needed = needed_artifacts(wanted, observed);
        observed.touch(needed, now);
        observed.mark_leaving(&wanted_functions(wanted), now);
        let plan = plan(wanted, observed, now);
        if plan.steps.is_empty() {
            return plan.wake;
        }
        for step in plan.steps {
            executor.take(step, now);
        }
    }
}
