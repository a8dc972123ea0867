//! What must hold after each step, one file each; a breach names its invariant.
//!
//! They look at what the machines hold, not at what they say, and remember all they have seen.

pub mod acknowledged_is_durable;
pub mod election_safety;
pub mod leader_completeness;
pub mod log_matching;
pub mod monotonic_revisions;
pub mod state_machine_safety;

use std::collections::BTreeMap;

use self::acknowledged_is_durable::Durable;
use self::election_safety::ElectionSafety;
use self::log_matching::LogMatching;
use self::monotonic_revisions::MonotonicRevisions;
use self::state_machine_safety::StateMachineSafety;
use crate::store::log::tests::held::Entries;
use crate::store::machine::Applied;
use crate::store::types::{LeaderId, LogId};

/// An invariant that does not hold.
#[derive(Debug)]
pub struct Breach {
    pub invariant: &'static str,
    pub what: String,
}

pub fn breach<T>(invariant: &'static str, what: String) -> Result<T, Breach> {
    Err(Breach { invariant, what })
}

/// What a machine holds after a step.
pub struct Sight {
    pub id: u64,
    /// Counts its starts.
    pub incarnation: u64,
    pub leads: Option<LeaderId>,
    pub purged: Option<LogId>,
    pub log: Entries,
    pub applied: Applied,
}

#[derive(Default)]
pub struct Invariants {
    election_safety: ElectionSafety,
    log_matching: LogMatching,
    state_machine_safety: StateMachineSafety,
    monotonic_revisions: MonotonicRevisions,
    /// Leaders whose log was looked at when they were first seen.
    leaders: BTreeMap<LeaderId, u64>,
    pub checks: u64,
}

impl Invariants {
    pub fn observe(&mut self, sight: &Sight) -> Result<(), Breach> {
        self.checks += 1;
        self.election_safety.observe(sight)?;
        self.log_matching.observe(sight)?;
        self.state_machine_safety
            .observe(sight, &self.log_matching)?;
        self.monotonic_revisions.observe(sight)?;
        if let Some(leader) = sight.leads
            && self.leaders.insert(leader, sight.id).is_none()
        {
            leader_completeness::check(sight, leader, self.state_machine_safety.committed())?;
        }
        Ok(())
    }

    pub fn restarted(&mut self, id: u64) {
        self.log_matching.restarted(id);
        self.state_machine_safety.restarted(id);
    }

    /// A write of this revision is about to be acknowledged.
    pub fn acknowledge(
        &self,
        revision: u64,
        disks: &BTreeMap<u64, &Durable>,
    ) -> Result<(), Breach> {
        let machines = &self.state_machine_safety;
        acknowledged_is_durable::check(revision, machines, &self.log_matching, disks)
    }

    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    pub fn committed(&self) -> usize {
        self.state_machine_safety.committed().len()
    }
}
