//! Power is cut while clients write: what was acknowledged is there afterwards. And a bit that turned
//! on a disk is found, named, and never served.
//!
//! `HIVE_POWER_CUTS=100` makes as many cuts, `HIVE_SEED=n` repeats their choices.
#![allow(clippy::unwrap_used)]

#[path = "power/key_value.rs"]
mod key_value;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use hive_e2e::Turn;
use hive_e2e::faults::report::Run;
use hive_e2e::faults::workload::Workload;
use hive_e2e::faults::{Cluster, Seed, sandbox};
use hive_e2e::swarm::CONFIG_MAPS;
use hive_e2e::wait::{PATIENCE, holds, until};

/// In `cargo test`.
const CUTS: u64 = 4;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: a number is needed")),
    )
}

#[tokio::test]
async fn no_power_cut_loses_what_was_acknowledged() {
    if !sandbox::is_permitted("power cuts") {
        return;
    }
    let asked = number("HIVE_POWER_CUTS");
    let _turn = match asked {
        None => Some(Turn::take().await),
        Some(_) => None,
    };
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = number("HIVE_SEED").unwrap_or(clock.as_secs() % 1_000_000);
    let cuts = asked.unwrap_or(CUTS);
    println!("{cuts} cuts, HIVE_SEED={seed}");
    sandbox::run(
        "cuts_in_a_sandbox",
        &[
            ("HIVE_SEED", seed.to_string()),
            ("HIVE_POWER_CUTS", cuts.to_string()),
        ],
    );
}

#[tokio::test]
async fn a_turned_bit_is_found_and_named_and_another_controller_takes_over() {
    if !sandbox::is_permitted("turned bits") {
        return;
    }
    let _turn = Turn::take().await;
    sandbox::run("a_bit_in_a_sandbox", &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started in its sandbox by a test above"]
async fn cuts_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let number_of_seed = number("HIVE_SEED").unwrap();
    let mut seed = Seed::new(number_of_seed);
    let cuts = number("HIVE_POWER_CUTS").unwrap();
    let mut cluster = Cluster::start().await;
    let started = Instant::now();
    let mut total = Run {
        seed: number_of_seed,
        ..Run::default()
    };
    for cut in 0..cuts {
        let workload = Workload::start(&cluster, &format!("cut-{number_of_seed}-{cut}"), &mut seed);
        // In the middle of things, at a moment of the seed's choice.
        let enough = seed.between(60, 160) as usize;
        until("clients are at work", PATIENCE, async || {
            let done = workload.operations();
            holds(done >= enough, format!("{done} operations"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(seed.below(40))).await;

        // All at once every other time: then nobody else has what one of them lost.
        let all: Vec<usize> = (0..cluster.nodes.len()).collect();
        let one = seed.below(all.len() as u64) as usize;
        let hit = match seed.chance(60) {
            true => all,
            false => vec![one],
        };
        workload.is_dark.store(true, Ordering::SeqCst);
        for index in &hit {
            cluster.nodes[*index].disk.power_off();
        }
        for index in &hit {
            cluster.nodes[*index].member.kill9().await;
        }
        for index in &hit {
            cluster.nodes[*index].disk.power_on().await;
        }
        workload.is_dark.store(false, Ordering::SeqCst);
        cluster.revive().await;
        let back = workload.elapsed();
        until("clients succeed again", PATIENCE, async || {
            let last = workload.last_success();
            holds(
                last.is_some_and(|last| last > back),
                format!("the last did at {last:?}"),
            )
        })
        .await;
        let seen = workload.finish(&cluster).await;
        let mut run = Run {
            seed: number_of_seed,
            ..Run::default()
        };
        run.judge(&seen);
        let names: Vec<String> = hit.iter().map(|index| (index + 1).to_string()).collect();
        println!(
            "cut {:>3}: power of controller {} lost after {} operations, {} unknown",
            cut + 1,
            names.join(", "),
            run.succeeded,
            run.unknown
        );
        total.succeeded += run.succeeded;
        total.failed += run.failed;
        total.unknown += run.unknown;
        total.violations.append(&mut run.violations);
        if !total.violations.is_empty() {
            cluster.print_logs();
            panic!("{total}");
        }
    }
    total.seconds = started.elapsed().as_secs_f64();
    println!("{cuts} power cuts, nothing acknowledged was lost; {total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started in its sandbox by a test above"]
async fn a_bit_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let mut cluster = Cluster::start().await;
    let mut seed = Seed::new(1);
    let workload = Workload::start(&cluster, "bit", &mut seed);
    until("clients have written", PATIENCE, async || {
        let done = workload.operations();
        holds(done >= 200, format!("{done} operations"))
    })
    .await;
    let seen = workload.finish(&cluster).await;
    let mut run = Run::default();
    run.judge(&seen);
    assert!(run.violations.is_empty(), "{run}");

    // Down, a bit in the middle of its log turns, and it is started again.
    let victim = 2;
    cluster.nodes[victim].member.stop().await;
    let raft = cluster.nodes[victim].member.dir.join("raft");
    let log = largest(&raft);
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&log, &bytes).unwrap();
    let member = &mut cluster.nodes[victim].member;
    member.start();
    let status = member.ended(PATIENCE).await;
    let said = member.log_of_this_run();
    assert!(!status.success(), "it started: {said}");
    let name = log.file_name().unwrap().to_string_lossy();
    for part in [
        &*name,
        "is damaged at byte",
        "remove its data directory and join it again",
    ] {
        assert!(said.contains(part), "it does not say {part:?}: {said}");
    }
    println!("{}", said.lines().last().unwrap_or_default());

    // The others go on, and another takes its place with all that was written.
    let fresh = cluster.join().await;
    let mut lists = Vec::new();
    for index in [0, fresh] {
        // On a busy machine it may take longer than a door waits.
        let mut door = cluster.door(index);
        let list = until("a list", PATIENCE, async || door.get(CONFIG_MAPS).await).await;
        lists.push(list["items"].clone());
    }
    assert_eq!(lists[0], lists[1]);
    assert!(!lists[0].as_array().unwrap().is_empty());
}

/// The file of a log that holds most.
fn largest(dir: &std::path::Path) -> std::path::PathBuf {
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => files.push(path),
            }
        }
    }
    files.retain(|path| path.to_string_lossy().contains("log"));
    let size = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    files.into_iter().max_by_key(size).expect("there is a log")
}
