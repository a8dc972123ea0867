//! Controllers are broken in every way that the sandbox knows, while clients read, write, swap, make
//! and remove objects; what they saw must be what one shared object would have shown.
//!
//! `HIVE_FAULT_RUNS=200` makes as many runs, `HIVE_FAULT_AT_ONCE=3` three clusters at a time, and
//! `HIVE_SEED=n` begins with that seed: with one run, it repeats it.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime};

use hive_e2e::Turn;
use hive_e2e::faults::nemesis::Fault;
use hive_e2e::faults::report::{Run, Summary, run};
use hive_e2e::faults::{Cluster, sandbox};

/// In `cargo test`: a few mixed ones.
const RUNS: u64 = 3;

/// A cluster is used for as many runs; then for a fresh one.
const RUNS_A_CLUSTER: u64 = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: a number is needed")),
    )
}

/// Runs begin with consecutive seeds, so that each kind of fault gets its turn.
struct Batch {
    first: u64,
    child: Child,
    report: std::path::PathBuf,
}

#[tokio::test]
async fn no_fault_breaks_linearizability() {
    if !sandbox::is_permitted("linearizability under faults") {
        return;
    }
    let asked = number("HIVE_FAULT_RUNS");
    // Long runs are somebody's choice: other tests need not wait for them.
    let _turn = match asked {
        None => Some(Turn::take().await),
        Some(_) => None,
    };
    let runs = asked.unwrap_or(RUNS);
    let at_once = number("HIVE_FAULT_AT_ONCE").unwrap_or(1).max(1) as usize;
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let first = number("HIVE_SEED").unwrap_or(clock.as_secs() % 1_000_000);
    println!(
        "{runs} runs from HIVE_SEED={first}; faults: {}",
        Fault::all().len()
    );
    let started = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let mut summary = Summary::default();
    let mut stopped = Vec::new();
    let mut left: VecDeque<(u64, u64)> = (0..runs)
        .step_by(RUNS_A_CLUSTER as usize)
        .map(|done| (first + done, RUNS_A_CLUSTER.min(runs - done)))
        .collect();
    let mut running: Vec<Batch> = Vec::new();
    loop {
        while running.len() < at_once
            && let Some((first, count)) = left.pop_front()
        {
            running.push(start(dir.path(), first, count));
        }
        if running.is_empty() {
            break;
        }
        let ended = running
            .iter_mut()
            .position(|batch| batch.child.try_wait().unwrap().is_some());
        let Some(ended) = ended else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let mut batch = running.remove(ended);
        let status = batch.child.wait().unwrap();
        let text = std::fs::read_to_string(&batch.report).unwrap_or_default();
        for line in text.lines() {
            let run: Run = serde_json::from_str(line).unwrap();
            println!("{run}");
            summary.add(&run);
        }
        if !status.success() {
            let output = std::fs::read_to_string(batch.report.with_extension("output"));
            println!("{}", output.unwrap_or_default());
            let what = format!(
                "the cluster that began with seed {} failed: {status}",
                batch.first
            );
            println!("{what}");
            // Its runs that ended were checked, and are counted.
            stopped.push(what);
        }
    }
    summary.took = started.elapsed();
    println!("{summary}");
    assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
    assert!(stopped.is_empty(), "{stopped:#?}");
    assert_eq!(summary.runs as u64, runs);
    // A few runs may have had slow disks and wrong clocks only, which leave nobody without an answer.
    if runs >= 3 * Fault::all().len() as u64 {
        assert!(
            summary.unknown > 0,
            "no outcome was unknown: clients were too patient"
        );
        for fault in Fault::all() {
            let times = summary.faults.get(&fault.to_string());
            assert!(times.is_some(), "{fault} never happened");
        }
    }
}

fn start(dir: &std::path::Path, first: u64, count: u64) -> Batch {
    let report = dir.join(format!("{first}.json"));
    let output = std::fs::File::create(report.with_extension("output")).unwrap();
    let child = sandbox::command("runs_in_a_sandbox")
        .env("HIVE_SEED", first.to_string())
        .env("HIVE_FAULT_RUNS", count.to_string())
        .env("HIVE_FAULT_REPORT", &report)
        // What it leaves behind goes with this directory.
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    Batch {
        first,
        child,
        report,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started in its sandbox by the test above"]
async fn runs_in_a_sandbox() {
    use std::io::Write;
    if !sandbox::is_inside() {
        return;
    }
    let first = number("HIVE_SEED").unwrap();
    let count = number("HIVE_FAULT_RUNS").unwrap();
    let path = std::env::var("HIVE_FAULT_REPORT").unwrap();
    let mut report = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut cluster = Cluster::start().await;
    for seed in first..first + count {
        let (run, _) = run(&mut cluster, seed).await;
        writeln!(report, "{}", serde_json::to_string(&run).unwrap()).unwrap();
        if !run.violations.is_empty() {
            cluster.print_logs();
            panic!("{run}");
        }
    }
}
