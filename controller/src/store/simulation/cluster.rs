//! The simulated machines: their disks, their starts and ends, and what they hold.

mod members;
mod sight;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::faults::Seen;
use super::invariants::acknowledged_is_durable::Durable;
use super::invariants::{Breach, Invariants};
use super::network::Fabric;
use super::planted::{self, Planted};
use super::service::Answering;
use super::world;
use crate::peers::Peers;
use crate::state::Member;
use crate::store::disk::simulated::Simulated;
use crate::store::log::Log;
use crate::store::log::tests::held::LogShape;
use crate::store::machine::Machine;
use crate::store::seal::keys::Keys;
use crate::store::snapshot::Snapshots;
use crate::store::start::{Opened, check_joined};
use crate::store::types::{LeaderId, LogId};
use crate::store::{Bounds, Replica, StartError, Timing};

const TIMING: Timing = Timing {
    heartbeat_ms: 100,
    election_min_ms: 300,
    election_max_ms: 600,
};

/// Small, so that segments end and are removed often.
const SEGMENT_BYTES: u64 = 8 * 1024;

/// Small, so that snapshots are taken and the log is removed while things go wrong.
const BOUNDS: Bounds = Bounds {
    entries: 20,
    bytes: 6 * 1024,
};

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// What was not synced is lost in part.
    Power,
    /// The system goes on, with what it has in its cache.
    Process,
}

struct Machinery {
    disk: Simulated,
    /// What is known to be on it.
    durable: Durable,
    replica: Option<Replica>,
    starts: u64,
    /// Nobody else may start it meanwhile: two processes would write to one disk.
    starting: bool,
    /// Its power went: nothing may read the disk before it is back.
    cut: bool,
    /// No member any more.
    retired: bool,
    /// What it looked like from afar after its last step.
    shape: Option<Shape>,
}

type Shape = (u64, Option<LeaderId>, LogShape, Option<LogId>);

#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Mutex<Inner>>,
    /// Of all machines' disks.
    pub keys: Keys,
    pub fabric: Fabric,
    pub seen: Seen,
    planted: Option<Planted>,
}

struct Inner {
    machines: BTreeMap<u64, Machinery>,
    invariants: Invariants,
}

pub fn member(id: u64) -> Member {
    Member {
        link: format!("controller-{id}:7000"),
        api: format!("controller-{id}:6443"),
        ingress: format!("controller-{id}:8080"),
        ingress_tls: None,
    }
}

impl Cluster {
    pub fn new(planted: Option<Planted>, keys: Keys) -> Self {
        let seen = Seen::default();
        Self {
            inner: Arc::new(Mutex::new(Inner {
                machines: BTreeMap::new(),
                invariants: Invariants::default(),
            })),
            keys,
            fabric: Fabric::new(seen.clone(), planted),
            seen,
            planted,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a breach ends the simulation")
    }

    /// Members, running or not.
    pub fn ids(&self) -> Vec<u64> {
        let inner = self.inner();
        let members = inner.machines.iter().filter(|(_, m)| !m.retired);
        members.map(|(id, _)| *id).collect()
    }

    pub fn replica(&self, id: u64) -> Option<Replica> {
        self.inner().machines.get(&id)?.replica.clone()
    }

    pub fn disk(&self, id: u64) -> Simulated {
        self.inner().machines[&id].disk.clone()
    }

    pub fn leader(&self) -> Option<u64> {
        let inner = self.inner();
        let mut running = inner
            .machines
            .iter()
            .filter_map(|(id, m)| Some((id, m.replica.as_ref()?)));
        let leads = |replica: &Replica| replica.leadership().borrow().is_leader;
        running
            .find(|(_, replica)| leads(replica))
            .map(|(id, _)| *id)
    }

    /// Does something on a machine; nothing comes back if it goes down meanwhile.
    pub async fn on<T, F>(&self, id: u64, act: impl FnOnce(Replica) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let work = act(self.replica(id)?);
        world::spawn_on(id, async move {
            let _ = done.send(work.await);
        });
        result.await.ok()
    }

    /// Starts a machine, with a new disk if it never ran. False if its power went meanwhile.
    pub async fn start(&self, id: u64) -> bool {
        self.try_start(id).await.unwrap_or_else(|what| {
            let invariant = "a_member_starts_again";
            std::panic::resume_unwind(Box::new(Breach { invariant, what }))
        })
    }

    /// # Errors
    /// Why it does not start although its disk works.
    pub async fn try_start(&self, id: u64) -> Result<bool, String> {
        let (disk, start) = {
            let mut inner = self.inner();
            let machine = inner.machines.entry(id).or_insert_with(|| Machinery {
                disk: Simulated::new(world::below(u64::MAX)),
                durable: Durable::default(),
                replica: None,
                starts: 0,
                starting: false,
                cut: false,
                retired: false,
                shape: None,
            });
            if machine.cut {
                machine.disk.power_cycle();
                machine.cut = false;
            }
            assert!(
                !machine.starting && machine.replica.is_none(),
                "started twice"
            );
            machine.starts += 1;
            machine.starting = true;
            (machine.disk.clone(), machine.starts)
        };
        self.inner().invariants.restarted(id);
        disk.skip_syncs(self.planted == Some(Planted::SkipSync));
        let refused = disk.refused();
        let (done, started) = oneshot::channel();
        let peers = Peers::connecting(self.fabric.connect(id), id);
        let (planted, opening, keys) = (self.planted, disk.clone(), self.keys.clone());
        world::spawn_on(id, async move {
            let result = match open(&opening, keys) {
                Ok(opened) => {
                    let log = planted::log(opened.log.clone(), planted);
                    let dir = PathBuf::from("/simulated");
                    Replica::assemble(id, dir, opened, log, peers, BOUNDS).await
                }
                Err(error) => Err(error),
            };
            let _ = done.send(result);
        });
        let started = started.await;
        let mut inner = self.inner();
        let machine = inner.machines.get_mut(&id).expect("just there");
        if !(machine.starting && machine.starts == start) {
            // It went down meanwhile, even if it had come so far.
            return Ok(false);
        }
        machine.starting = false;
        let replica = match started {
            Ok(Ok(replica)) => replica,
            // Its disk failed: whoever broke it starts the machine again.
            Err(_) => return Ok(false),
            Ok(Err(_)) if disk.refused() > refused => return Ok(false),
            Ok(Err(_)) if disk.is_off() => {
                machine.cut = true;
                return Ok(false);
            }
            Ok(Err(error)) => {
                let error = anyhow::Error::new(error);
                return Err(format!("machine {id} on start {start}: {error:#}"));
            }
        };
        machine.replica = Some(replica.clone());
        drop(inner);
        let seen = self.seen.clone();
        let replica = Some(replica);
        self.fabric.serve(id, Answering { replica, seen });
        Ok(true)
    }

    /// Takes a machine down between two of its steps.
    pub fn crash(&self, id: u64, how: Crash) {
        self.fabric.stop_serving(id);
        let replica = {
            let mut inner = self.inner();
            let Some(machine) = inner.machines.get_mut(&id) else {
                return;
            };
            machine.starting = false;
            // What the dying tasks still do does not reach the disk.
            machine.disk.turn_off();
            if how == Crash::Power {
                machine.cut = true;
            }
            machine.replica.take()
        };
        world::kill(id);
        drop(replica);
        if how == Crash::Process {
            let disk = self.disk(id);
            if !self.inner().machines[&id].cut {
                disk.turn_on();
            }
        }
    }

    pub fn retire(&self, id: u64) {
        self.crash(id, Crash::Power);
        self.inner()
            .machines
            .get_mut(&id)
            .expect("a member")
            .retired = true;
    }

    /// A member that does not run.
    pub fn is_down(&self, id: u64) -> bool {
        let inner = self.inner();
        let machine = &inner.machines[&id];
        !machine.retired && !machine.starting && machine.replica.is_none()
    }

    /// Everything is let go of, so that a simulation leaves nothing behind.
    pub fn end(&self) {
        let ids: Vec<u64> = self.inner().machines.keys().copied().collect();
        for id in ids {
            self.crash(id, Crash::Power);
        }
    }
}

fn open(disk: &Simulated, keys: Keys) -> Result<Opened, StartError> {
    let snapshots = Snapshots::on(Arc::new(disk.clone()), keys.clone())?;
    let (machine, published) = Machine::open(snapshots.clone())?;
    let log = Log::open_with(Arc::new(disk.clone()), SEGMENT_BYTES, keys)?;
    check_joined(Path::new("/simulated"), &log, &published)?;
    Ok(Opened {
        lock: None,
        log,
        snapshots,
        machine,
        published,
        timing: TIMING,
        disk: None,
    })
}
