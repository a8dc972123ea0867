//! What others are told: whoever serves, the session, and people by logs and events.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Reconciler, Surroundings};
use crate::events::Kind;
use crate::ids::{FunctionId, SlotId};
use crate::logs::Version;
use crate::reconcile::report::{Told, statuses};
use crate::serve::table::Table;

/// Logs are not kept over restarts: whoever reads one must not take its begin for the function's.
/// Of what is declared from now on nothing was logged before.
pub(super) fn note_the_start(around: &Surroundings) {
    for encoded in &around.desired.borrow().assignments {
        let assignment = encoded.assignment();
        around.logs.note(
            &FunctionId::of(assignment),
            &SlotId::of(assignment),
            Version::of(assignment),
            "the agent started; what was logged before is gone",
        );
    }
}

impl Reconciler {
    pub(super) fn tell_statuses(&self) {
        let told = Told {
            epoch: self.epoch,
            generation: self.generation,
            statuses: statuses(&self.wanted, &self.observed),
        };
        told.publish(&self.around.told);
    }

    pub(super) fn tell(&self, slot: &SlotId, reason: &'static str, message: String) {
        if let Some(wanted) = self.wanted_in(slot) {
            self.around
                .events
                .push(Kind::Warning, slot, &wanted.function, reason, message);
        }
    }

    pub(super) fn tell_of_swap(&self, slot: &SlotId) {
        let serving = self
            .observed
            .slots
            .get(slot)
            .and_then(|slot| slot.serving.as_ref());
        let Some(serving) = serving else { return };
        tracing::info!(
            function = %serving.function,
            assignment = %slot,
            generation = serving.generation,
            "function serves"
        );
        self.around.events.push(
            Kind::Normal,
            slot,
            &serving.function,
            "Serving",
            format!("generation {} serves", serving.generation),
        );
    }

    /// Once for all the steps that were taken: a table names everything, so one for each step would
    /// cost the square of what there is.
    pub(super) fn publish_what_changed(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.publish_table();
        self.forget_functions_that_left();
    }

    fn publish_table(&self) {
        let mut table = Table::default();
        for instance in self
            .instances
            .values()
            .filter_map(|slot| slot.serving.as_ref())
        {
            table.serve(
                instance.id.clone(),
                instance.trial.as_deref(),
                instance.clone(),
            );
        }
        for wanted in &self.wanted {
            for route in &wanted.assignment.routes {
                table.add_route(&wanted.function, route);
            }
        }
        self.around.table.send_replace(Arc::new(table));
    }

    fn forget_functions_that_left(&self) {
        let slots = self.observed.slots.values();
        let here: HashSet<&FunctionId> = slots
            .flat_map(|slot| slot.occupants())
            .map(|loaded| &loaded.function)
            .chain(self.wanted.iter().map(|wanted| &wanted.function))
            .collect();
        self.around.logs.retain(|function| here.contains(function));
        self.around
            .meters
            .retain(|function| here.contains(function));
    }
}
