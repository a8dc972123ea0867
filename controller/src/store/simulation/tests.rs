//! Seeds that must hold, faults that must be found.

mod damage;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::faults::Fault;
use super::planted::Planted;
use super::{Breach, PANICKED, Report, run};

/// Enough that every kind of fault happens many times; half a minute in a debug build on two cores.
const SEEDS: u64 = 40;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
    )
}

fn held(seed: u64) -> Report {
    run(seed, None).unwrap_or_else(|Breach { invariant, what }| {
        panic!("{invariant} does not hold: {what}\nreplay with HIVE_SEED={seed}")
    })
}

/// What all runs saw together.
#[derive(Default)]
struct Total {
    steps: u64,
    checks: u64,
    leaders: usize,
    committed: usize,
    known: u64,
    unknown: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Total {
    fn add(&mut self, report: Report) {
        self.steps += report.steps;
        self.checks += report.checks;
        self.leaders += report.leaders;
        self.committed += report.committed;
        self.known += report.ends.known;
        self.unknown += report.ends.unknown;
        for (fault, count) in report.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

#[test]
fn the_invariants_hold_whatever_goes_wrong() {
    let seeds: Vec<u64> = match setting("HIVE_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("HIVE_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let begun = Instant::now();
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let report = held(*seed);
                    total.lock().expect("no panics inside").add(report);
                }
            });
        }
    });
    let total = total.into_inner().expect("no panics inside");
    println!(
        "{} runs in {:.1} s: {} steps, {} checks, {} leaders, {} entries committed, {} operations \
         with known and {} with unknown outcome; {:?}",
        seeds.len(),
        begun.elapsed().as_secs_f32(),
        total.steps,
        total.checks,
        total.leaders,
        total.committed,
        total.known,
        total.unknown,
        total.faults,
    );
    if seeds.len() as u64 >= SEEDS {
        for fault in Fault::ALL {
            assert!(
                total.faults.contains_key(&fault),
                "{fault:?} never happened"
            );
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    let traces: Vec<u64> = [1, 2, 3].map(|seed| held(seed).trace).into();
    let again: Vec<u64> = [1, 2, 3].map(|seed| held(seed).trace).into();
    assert_eq!(traces, again);
    assert_ne!(traces[0], traces[1]);
}

/// Seeds until a planted fault must have been found.
const SEEDS_TO_FIND: u64 = 40;

fn found(planted: Planted, by: &[&str]) {
    for seed in 0..SEEDS_TO_FIND {
        if let Err(breach) = run(seed, Some(planted)) {
            println!(
                "{planted:?}: seed {seed}, {}: {}",
                breach.invariant, breach.what
            );
            assert!(
                by.contains(&breach.invariant),
                "found by {}: {}",
                breach.invariant,
                breach.what
            );
            return;
        }
    }
    panic!("{planted:?} was not found in {SEEDS_TO_FIND} seeds");
}

#[test]
fn a_skipped_sync_is_found() {
    found(Planted::SkipSync, &["acknowledged_is_durable"]);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    found(
        Planted::AcknowledgeBeforeCommit,
        &["acknowledged_is_durable", "leader_completeness"],
    );
}

#[test]
fn a_quorum_minus_one_is_found() {
    found(Planted::QuorumMinusOne, &["acknowledged_is_durable"]);
}

#[test]
fn applying_twice_is_found() {
    found(Planted::ApplyTwice, &["state_machine_safety"]);
}

#[test]
fn a_forgotten_vote_is_found() {
    found(
        Planted::ForgetVote,
        &[
            "election_safety",
            "log_matching",
            "leader_completeness",
            PANICKED,
        ],
    );
}

#[test]
fn a_read_without_the_leader_is_found() {
    found(Planted::StaleRead, &["linearizable"]);
}
