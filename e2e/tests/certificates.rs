//! Certificates end all the time: they are renewed under load, and who slept through the end comes
//! back by its key.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hive_e2e::load::{Load, summary};
use hive_e2e::swarm::{answers, host, node_ready};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests};
use serde_json::json;

/// Instead of a day. Renewal at two thirds leaves a slow machine 5 s.
const LIFETIME: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn certificates_end_and_nobody_notices() {
    let lifetime = format!("{}s", LIFETIME.as_secs());
    let mut swarm = Swarm::builder()
        .agents(1)
        .run_flag("--certificate-lifetime", &lifetime)
        .start()
        .await;
    let spec = json!({ "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let mut steps = Steps::new();
    steps
        .run("they are renewed live", renewed(&mut swarm))
        .await;
    steps
        .run(
            "a node that slept through comes back without a token",
            asleep(&mut swarm),
        )
        .await;
    steps.finish();
}

async fn renewed(swarm: &mut Swarm) {
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let certificate = swarm.agents[0].member.dir.join("node.crt");
    let first = std::fs::read(&certificate).unwrap();
    let started = Instant::now();
    let load = Load::start(&ingresses, &host("hello"), 20);
    until("the first certificate has ended", PATIENCE, async || {
        let past = started.elapsed();
        holds(
            past > LIFETIME + LIFETIME / 2,
            format!("{past:?} have passed"),
        )
    })
    .await;
    assert_ne!(
        std::fs::read(&certificate).unwrap(),
        first,
        "it was not renewed"
    );
    let outcomes = load.stop().await;
    println!("  past the end of a certificate: {}", summary(&outcomes));
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.is_good()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let renewals: usize = swarm
        .controllers
        .iter()
        .map(|controller| {
            controller
                .member
                .log()
                .matches("certificate renewed")
                .count()
        })
        .sum();
    assert!(renewals >= 1, "nobody renewed anything");
}

async fn asleep(swarm: &mut Swarm) {
    let client = swarm.client().await;
    swarm.agents[0].member.kill9().await;
    let killed = Instant::now();
    until("its certificate has ended", PATIENCE, async || {
        holds(killed.elapsed() > LIFETIME, "it is still good")
    })
    .await;
    let agent = &mut swarm.agents[0];
    agent.member.start();
    node_ready(&client, agent).await;
    answers(&swarm.controllers[0].ingress_address(), "hello").await;
}
