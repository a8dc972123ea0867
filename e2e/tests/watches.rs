//! Watchers on every controller, through reconnects, dead and deposed leaders, restarts and
//! compaction: no event is lost, doubled or out of order, and all end with the same state.
//!
//! `HIVE_WATCH_RUNS=n` makes more runs of faults, `HIVE_SEED=n` repeats their choices.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use hive_e2e::Turn;
use hive_e2e::faults::report::run;
use hive_e2e::faults::watch::{Watchers, judge, object, revision};
use hive_e2e::faults::{Cluster, Door, Heard, Seed, sandbox};
use hive_e2e::swarm::CONFIG_MAPS;
use hive_e2e::wait::{PATIENCE, until};
use http::Method;
use serde_json::{Value, json};

/// In `cargo test`.
const RUNS: u64 = 1;

/// More than the 64 MiB of changes that a controller remembers for watches: before and after of each.
const FLOOD: u64 = 1_000;
const FLOOD_BYTES: usize = 80 << 10;

/// Clients of the flood: enough that the log syncs for many at once.
const FLOODERS: u64 = 8;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: a number is needed")),
    )
}

#[tokio::test]
async fn watchers_are_told_what_happened() {
    if !sandbox::is_permitted("watches under faults") {
        return;
    }
    let asked = number("HIVE_WATCH_RUNS");
    // Long runs are somebody's choice: other tests need not wait for them.
    let _turn = match asked {
        None => Some(Turn::take().await),
        Some(_) => None,
    };
    let runs = asked.unwrap_or(RUNS);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = number("HIVE_SEED").unwrap_or(clock.unwrap().as_secs() % 1_000_000);
    println!("HIVE_SEED={seed}");
    let variables = [
        ("HIVE_SEED", seed.to_string()),
        ("HIVE_WATCH_RUNS", runs.to_string()),
    ];
    sandbox::run("watches_in_a_sandbox", &variables);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started in its sandbox by the test above"]
async fn watches_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let first = number("HIVE_SEED").unwrap();
    let runs = number("HIVE_WATCH_RUNS").unwrap();
    let started = Instant::now();
    let mut cluster = Cluster::start().await;
    let watchers = Watchers::start(&cluster, &mut Seed::new(first));
    let mut seen = Vec::new();
    for seed in first..first + runs {
        let (run, saw) = run(&mut cluster, seed).await;
        println!("{run}");
        assert!(run.violations.is_empty(), "{run}");
        seen.push(saw);
    }
    watchers.reach(newest(&cluster).await).await;
    let lists = watchers.lists();

    // While nobody watches, more happens than is remembered: who comes back is told to list again.
    watchers.send_away().await;
    let flooded = Instant::now();
    flood(&cluster).await;
    println!("{FLOOD} writes in {:.1} s", flooded.elapsed().as_secs_f64());
    watchers.let_back();
    watchers.reach(newest(&cluster).await).await;
    assert!(
        watchers.lists() > lists,
        "nobody had to list again: nothing was compacted"
    );
    // And go on from there.
    let (run, saw) = run(&mut cluster, first + runs).await;
    println!("{run}");
    assert!(run.violations.is_empty(), "{run}");
    seen.push(saw);

    let last = newest(&cluster).await;
    watchers.reach(last).await;
    let segments = watchers.stop().await;
    let wrong = judge(&segments, seen.iter().flat_map(|saw| saw.states()));
    let events: usize = segments.iter().map(|segment| segment.events.len()).sum();
    let resumed: usize = segments.iter().map(|segment| segment.resumed).sum();
    println!(
        "{events} events to 6 watchers, {} lists, {resumed} watches, {:.0} s, {} wrong",
        segments.len(),
        started.elapsed().as_secs_f64(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "HIVE_SEED={first}: {wrong:#?}");
    for index in 0..cluster.nodes.len() {
        let list = list(&cluster, index, CONFIG_MAPS).await;
        let items = list["items"].as_array().unwrap();
        let truth: BTreeMap<String, u64> = items.iter().filter_map(object).collect();
        for watcher in 0..2 * cluster.nodes.len() {
            let own = segments.iter().rfind(|segment| segment.watcher == watcher);
            assert_eq!(own.unwrap().state(), truth, "watcher {watcher}");
        }
    }
}

/// What a controller lists, once it answers: on a busy machine it may take longer than a door waits.
async fn list(cluster: &Cluster, index: usize, path: &str) -> Value {
    let mut door = cluster.door(index);
    until("a list", PATIENCE, async || door.get(path).await).await
}

/// The revision of the newest list.
async fn newest(cluster: &Cluster) -> u64 {
    revision(&list(cluster, 0, &format!("{CONFIG_MAPS}?limit=1")).await)
}

/// Writes until it is known to be written: what was broken before is whole again, but a link or a
/// leader of that time may still go while a write is under way, whose outcome is then unknown.
async fn write(door: &mut Door, method: Method, path: &str, content: &Value) {
    let deadline = Instant::now() + PATIENCE;
    let mut again = false;
    loop {
        let patience = Duration::from_secs(20);
        let heard = door
            .ask(method.clone(), path, Some(content), patience)
            .await;
        let status = match &heard {
            Heard::Answer { status, .. } => *status,
            Heard::NotSent(_) | Heard::Nothing(_) => 0,
        };
        match status {
            200 | 201 => return,
            // Made by the attempt before.
            409 if again && method == Method::POST => return,
            0 | 429 | 503 | 504 if Instant::now() < deadline => again = true,
            _ => panic!("{method} {path}: {heard:?}"),
        }
    }
}

/// Changes a few objects very often.
async fn flood(cluster: &Cluster) {
    let mut flooders = tokio::task::JoinSet::new();
    for flooder in 0..FLOODERS {
        let mut door = cluster.door(flooder as usize % cluster.nodes.len());
        let load = "x".repeat(FLOOD_BYTES);
        flooders.spawn(async move {
            let name = format!("flood-{flooder}");
            let path = format!("{CONFIG_MAPS}/{name}");
            for turn in 0..FLOOD.div_ceil(FLOODERS) {
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": { "name": name },
                    "data": { "value": turn.to_string(), "load": load },
                });
                let (method, path) = match turn {
                    0 => (Method::POST, CONFIG_MAPS),
                    _ => (Method::PUT, path.as_str()),
                };
                write(&mut door, method, path, &object).await;
            }
        });
    }
    while let Some(done) = flooders.join_next().await {
        done.unwrap();
    }
}
