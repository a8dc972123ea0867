//! One run: a plan of faults, clients, the verdict; and what many runs add up to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hive_history::{Outcome, check};
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::nemesis::{Active, plan};
use super::seed::Seed;
use super::workload::{Seen, Workload};
use crate::wait::{PATIENCE, holds, until};

/// Faults of one run, one after the other.
const STEPS: usize = 2;

/// Operations before the first fault, and more after the last.
const ENOUGH: usize = 150;

/// What happened in a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub seed: u64,
    pub seconds: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Each fault with its proof.
    pub faults: Vec<(String, String)>,
    /// Each that could not be seen to have happened, and what was seen instead.
    pub unseen: Vec<(String, String)>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Run {
    fn count(&mut self, seen: &Seen) {
        for operation in &seen.history {
            match operation.outcome {
                Outcome::Done | Outcome::Found(_) => self.succeeded += 1,
                Outcome::Failed => self.failed += 1,
                Outcome::Unknown => self.unknown += 1,
            }
        }
    }

    /// Judges what clients saw.
    pub fn judge(&mut self, seen: &Seen) {
        self.count(seen);
        self.violations.extend(seen.scandals.iter().cloned());
        if let Err(fault) = check(&seen.history) {
            self.violations.push(fault.to_string());
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {:.1} s, {} operations succeeded, {} failed, {} unknown",
            self.seed, self.seconds, self.succeeded, self.failed, self.unknown
        )?;
        for (fault, proof) in &self.faults {
            write!(f, "; {fault} ({proof})")?;
        }
        for (fault, why) in &self.unseen {
            write!(f, "; NOT SEEN: {fault} ({why})")?;
        }
        for violation in &self.violations {
            write!(f, "\nVIOLATION, seed {}: {violation}", self.seed)?;
        }
        Ok(())
    }
}

/// Works on a cluster that is well, breaks it as the seed says, and leaves it well.
pub async fn run(cluster: &mut Cluster, number: u64) -> (Run, Seen) {
    let started = Instant::now();
    let mut seed = Seed::new(number);
    let mut run = Run {
        seed: number,
        ..Run::default()
    };
    let steps = plan(&mut seed, number as usize, STEPS);
    let workload = Workload::start(cluster, &format!("run-{number}"), &mut seed);
    more(&workload, ENOUGH).await;
    for step in steps {
        let mut active = Vec::new();
        for fault in step.faults {
            active.push(Active::start(fault, cluster, &mut seed).await);
        }
        tokio::time::sleep(step.hold).await;
        // The network's first: what is wrong with a process is seen by what it is asked to do.
        for fault in active {
            let name = fault.fault.to_string();
            match fault.proof(cluster).await {
                Ok(proof) => run.faults.push((name, proof)),
                Err(why) => run.unseen.push((name, why)),
            }
            fault.end(cluster).await;
        }
        cluster.revive().await;
        let healed = workload.elapsed();
        until("clients succeed again", PATIENCE, async || {
            let last = workload.last_success();
            holds(
                last.is_some_and(|last| last > healed),
                format!("the last did at {last:?}"),
            )
        })
        .await;
    }
    more(&workload, ENOUGH).await;
    let seen = workload.finish(cluster).await;
    run.judge(&seen);
    run.seconds = started.elapsed().as_secs_f64();
    (run, seen)
}

async fn more(workload: &Workload, count: usize) {
    let wanted = workload.operations() + count;
    until("clients have done enough", PATIENCE, async || {
        let done = workload.operations();
        holds(done >= wanted, format!("{done} of {wanted} operations"))
    })
    .await;
}

/// What many runs add up to.
#[derive(Debug, Default)]
pub struct Summary {
    pub runs: usize,
    pub succeeded: u64,
    pub failed: u64,
    pub unknown: u64,
    pub faults: BTreeMap<String, usize>,
    pub unseen: usize,
    pub violations: Vec<String>,
    pub took: Duration,
}

impl Summary {
    pub fn add(&mut self, run: &Run) {
        self.runs += 1;
        self.succeeded += run.succeeded;
        self.failed += run.failed;
        self.unknown += run.unknown;
        for (fault, _) in &run.faults {
            *self.faults.entry(fault.clone()).or_default() += 1;
        }
        self.unseen += run.unseen.len();
        let named = |violation: &String| format!("seed {}: {violation}", run.seed);
        self.violations.extend(run.violations.iter().map(named));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs in {:.0} s: {} operations succeeded, {} failed, {} unknown; {} violations",
            self.runs,
            self.took.as_secs_f64(),
            self.succeeded,
            self.failed,
            self.unknown,
            self.violations.len()
        )?;
        for (fault, times) in &self.faults {
            writeln!(f, "  {times:>5} x {fault}")?;
        }
        if self.unseen > 0 {
            writeln!(f, "  {:>5} that were not seen to happen", self.unseen)?;
        }
        Ok(())
    }
}
