//! A cluster of real replicas on simulated machines: one thread, a virtual clock, disks that lose
//! power, a network that loses and delays, and Raft's invariants checked after each step.
//!
//! A run follows from its seed alone. `HIVE_SEED=n` replays one, `HIVE_SIM_SEEDS=n` runs so many.

mod clients;
mod cluster;
mod faults;
mod invariants;
mod network;
mod planted;
mod schedule;
mod service;
mod stream;
mod tests;
pub mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::clients::{Ends, History};
use self::cluster::Cluster;
use self::faults::Fault;
use self::invariants::Breach;
use self::planted::Planted;
use crate::store::seal::keys::Keys;

const CLIENTS: u64 = 4;

/// Of trouble, in virtual time.
const TROUBLE: Duration = Duration::from_secs(12);

/// For the cluster to work again once nothing is wrong any more: a few elections, and what waits
/// for timeouts of its own.
const RECOVERY: Duration = Duration::from_secs(90);

/// Nothing in the store, nor an assertion in Raft, fails.
const PANICKED: &str = "no_panic";

/// What a run saw.
#[derive(Debug)]
struct Report {
    trace: u64,
    steps: u64,
    checks: u64,
    leaders: usize,
    committed: usize,
    ends: Ends,
    faults: BTreeMap<Fault, u64>,
}

/// Two of three seeds begin with sealed disks.
fn keys_of(seed: u64) -> Keys {
    match seed % 3 {
        0 => Keys::default(),
        _ => Keys::of(1),
    }
}

fn run(seed: u64, planted: Option<Planted>) -> Result<Report, Breach> {
    let keys = keys_of(seed);
    let cluster = Cluster::new(planted, keys);
    let (watching, history) = (cluster.clone(), History::default());
    let (ran, kept) = (cluster.clone(), history.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let story = async move {
            trouble(&ran, planted, kept).await;
            world::steps()
        };
        world::run(seed, story, |host| watching.observe(host))
    }));
    let (steps, trace) = match outcome {
        Ok(ended) => ended,
        Err(panic) => match panic.downcast::<Breach>() {
            Ok(breach) => return Err(*breach),
            // Raft has checks of its own.
            Err(panic) => {
                let text = panic
                    .downcast::<String>()
                    .map_or_else(|_| String::new(), |t| *t);
                return Err(Breach {
                    invariant: PANICKED,
                    what: text,
                });
            }
        },
    };
    let ends = history.check().map_err(|what| Breach {
        invariant: "linearizable",
        what,
    })?;
    let (checks, leaders, committed) = cluster.figures();
    Ok(Report {
        trace,
        steps,
        checks,
        leaders,
        committed,
        ends,
        faults: cluster.seen.counts(),
    })
}

async fn trouble(cluster: &Cluster, planted: Option<Planted>, history: History) {
    let size = if world::chance(25) { 5 } else { 3 };
    cluster.found(size).await;
    let stop = Arc::new(Mutex::new(false));
    for client in 1..=CLIENTS {
        let work = clients::work(
            cluster.clone(),
            client,
            planted,
            history.clone(),
            stop.clone(),
        );
        world::spawn_on(world::OUTSIDE, work);
    }
    schedule::run(cluster.clone(), TROUBLE).await;
    cluster.recover(RECOVERY).await;
    *stop.lock().expect("no panics inside") = true;
    // The last answers.
    world::Sleep::of(Duration::from_secs(12)).await;
    cluster.end();
}
