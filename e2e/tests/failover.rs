//! Controllers die: requests go on, writes resume, and nothing that was acknowledged is lost.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hive_e2e::load::{Load, Outcome, summary};
use hive_e2e::swarm::{CONFIG_MAPS, host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// A tenth of it is promised: an election. A debug build on a busy machine needs patience.
const WRITES_RESUME: Duration = Duration::from_secs(50);

/// Requests a second at each ingress. Six processes in debug on two cores have room for this, so
/// that a failure is one of the swarm and not of the machine.
const RATE: u32 = 40;

/// Answers wanted of an ingress on either side of the fault: some three seconds of load.
const ENOUGH: usize = 120;

async fn create(client: &Client, name: &str, number: u64) -> Result<(), String> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name },
        "data": { "number": number.to_string() },
    });
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    let created: Result<Value, _> = client.request(request).await;
    match created {
        Ok(_) => Ok(()),
        // An earlier attempt whose answer was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn answered(load: &Load, ingresses: &[String], since: Instant) {
    until("every ingress has answered enough", PATIENCE, async || {
        let outcomes = load.so_far();
        let few = ingresses.iter().find(|ingress| {
            let good = |o: &&Outcome| o.ingress == **ingress && o.began >= since;
            outcomes.iter().filter(good).count() < ENOUGH
        });
        holds(few.is_none(), format!("{few:?} has not"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_under_load_costs_no_request_at_a_living_ingress() {
    let mut swarm = Swarm::builder().default_timing().start().await;
    let spec = json!({ "replicas": 3, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let leader = swarm.leader().await;
    let survivor = (leader + 1) % 3;
    let client = swarm.client_of(survivor).await;
    create(&client, "before", 0).await.unwrap();

    let started = Instant::now();
    let load = Load::start(&ingresses, &host("hello"), RATE);
    answered(&load, &ingresses, started).await;

    let killed = Instant::now();
    swarm.controllers[leader].member.kill9().await;
    until("a write is acknowledged again", PATIENCE, async || {
        create(&client, "after", 1).await
    })
    .await;
    let resumed = killed.elapsed();
    let living: Vec<String> = ingresses
        .iter()
        .filter(|ingress| **ingress != ingresses[leader])
        .cloned()
        .collect();
    answered(&load, &living, killed).await;
    let successor = swarm.leader().await;
    assert_ne!(successor, leader);

    // It comes back, and takes requests again, while the load goes on.
    swarm.controllers[leader].member.start();
    swarm.controller_ready(leader).await;
    let back = Instant::now();
    until(
        "the ingress that died answers again",
        PATIENCE,
        async || {
            let outcomes = load.so_far();
            let good =
                |o: &&Outcome| o.ingress == ingresses[leader] && o.began >= back && o.is_good();
            holds(outcomes.iter().any(|o| good(&o)), "no good answer yet")
        },
    )
    .await;

    let outcomes = load.stop().await;
    let (dead, alive): (Vec<_>, Vec<_>) = outcomes
        .into_iter()
        .partition(|outcome| outcome.ingress == ingresses[leader]);
    println!("writes resumed after {:.2} s", resumed.as_secs_f64());
    println!("living ingresses: {}", summary(&alive));
    println!("the one that died: {}", summary(&dead));
    let failed: Vec<_> = alive.iter().filter(|o| !o.is_good()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        dead.iter().any(|outcome| !outcome.is_good()),
        "the ingress of a dead controller answered: the fault did not happen"
    );
    assert!(resumed <= WRITES_RESUME, "writes resumed after {resumed:?}");
}

/// Writers of the second test, at once: more than one batch of the log at any time.
const WRITERS: u64 = 8;

/// Acknowledged before the controllers are killed, each time.
const WRITES: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_all_controllers() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    let mut acknowledged = BTreeMap::new();
    for round in 0..2 {
        acknowledged.extend(write_until_killed(&mut swarm, round).await);
        for controller in &mut swarm.controllers {
            controller.member.start();
        }
        swarm.wait_ready().await;
        for index in 0..swarm.controllers.len() {
            let client = swarm.client_of(index).await;
            let list = until("it lists them", PATIENCE, async || {
                object(&client, CONFIG_MAPS).await
            })
            .await;
            let found: BTreeMap<String, String> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| {
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    (
                        text(&item["metadata"]["name"]),
                        text(&item["data"]["number"]),
                    )
                })
                .collect();
            let lost: Vec<_> = acknowledged
                .iter()
                .filter(|(name, number)| found.get(*name) != Some(number))
                .collect();
            assert!(lost.is_empty(), "controller-{} lost {lost:?}", index + 1);
        }
        println!(
            "round {round}: {} acknowledged in all, none lost",
            acknowledged.len()
        );
    }
}

/// Writes through all controllers until they are killed in the middle of it; what was acknowledged.
async fn write_until_killed(swarm: &mut Swarm, round: u64) -> BTreeMap<String, String> {
    let killed = Arc::new(AtomicBool::new(false));
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = swarm
            .client_of(writer as usize % swarm.controllers.len())
            .await;
        let (killed, count) = (killed.clone(), count.clone());
        writers.spawn(async move {
            let mut done = BTreeMap::new();
            for number in 0.. {
                let name = format!("write-{round}-{writer}-{number}");
                // Again, if need be: on a machine that is busy for longer than an election, another one may lead
                // from then on, and who was told of no outcome asks once more.
                while let Err(error) = create(&client, &name, number).await {
                    if killed.load(Ordering::Relaxed) {
                        return done;
                    }
                    println!("  {name}: {error}");
                }
                done.insert(name, number.to_string());
                count.fetch_add(1, Ordering::Relaxed);
            }
            done
        });
    }
    until("enough is written", PATIENCE, async || {
        let written = count.load(Ordering::Relaxed);
        holds(written >= WRITES, format!("{written} are"))
    })
    .await;
    killed.store(true, Ordering::Relaxed);
    for controller in &swarm.controllers {
        controller.member.signal(rustix::process::Signal::KILL);
    }
    for controller in &mut swarm.controllers {
        controller.member.kill9().await;
    }
    let mut acknowledged = BTreeMap::new();
    while let Some(done) = writers.join_next().await {
        acknowledged.extend(done.unwrap());
    }
    acknowledged
}
