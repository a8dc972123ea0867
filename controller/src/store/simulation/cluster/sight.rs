//! A look at the simulated machines after each of their steps, for the invariants.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::super::faults::Fault;
use super::super::invariants::Sight;
use super::{Cluster, Crash};

impl Cluster {
    /// Looks at a machine after one of its tasks ran, and takes it down if its power went.
    pub fn observe(&self, id: u64) {
        let Some((replica, start, off)) = ({
            let inner = self.inner();
            inner.machines.get(&id).and_then(|machine| {
                Some((
                    machine.replica.clone()?,
                    machine.starts,
                    machine.disk.is_off(),
                ))
            })
        }) else {
            self.power_gone_while_starting(id);
            return;
        };
        if off {
            self.seen.happened(Fault::TornWrite);
            self.crash(id, Crash::Power);
            return;
        }
        let leads = {
            let metrics = replica.shared.raft.metrics();
            let metrics = metrics.borrow_watched();
            let vote = &metrics.vote;
            let own = vote.committed && vote.leader_id.node_id == id;
            (own && metrics.state == ServerState::Leader).then_some(vote.leader_id)
        };
        // Most steps change nothing that is looked at.
        let last = replica.shared.published.applied.borrow().last;
        let shape = (start, leads, replica.shared.log.shape(), last);
        {
            let mut inner = self.inner();
            let machine = inner.machines.get_mut(&id).expect("it runs");
            if machine.shape.replace(shape) == Some(shape) {
                return;
            }
        }
        let (purged, log) = replica.shared.log.held();
        let applied = replica.shared.published.applied.borrow().clone();
        let sight = Sight {
            id,
            incarnation: start,
            leads,
            purged,
            log,
            applied,
        };
        let broken = self.inner().invariants.observe(&sight).err();
        if let Some(breach) = broken {
            std::panic::resume_unwind(Box::new(breach));
        }
    }

    /// The tasks that opened it are to end like those of a machine that ran.
    fn power_gone_while_starting(&self, id: u64) {
        let off = self
            .inner()
            .machines
            .get(&id)
            .is_some_and(|m| !m.cut && m.disk.is_off());
        if off {
            self.seen.happened(Fault::TornWrite);
            self.crash(id, Crash::Power);
        }
    }

    /// A write is about to be acknowledged.
    pub fn acknowledge(&self, revision: u64) {
        let broken = {
            let mut inner = self.inner();
            for machine in inner.machines.values_mut() {
                machine.durable.look(&machine.disk, &self.keys);
            }
            let disks = inner
                .machines
                .iter()
                .map(|(id, machine)| (*id, &machine.durable))
                .collect();
            inner.invariants.acknowledge(revision, &disks).err()
        };
        if let Some(breach) = broken {
            std::panic::resume_unwind(Box::new(breach));
        }
    }

    /// Checks, leaders, committed entries.
    pub fn figures(&self) -> (u64, usize, usize) {
        let inner = self.inner();
        (
            inner.invariants.checks,
            inner.invariants.terms(),
            inner.invariants.committed(),
        )
    }
}
