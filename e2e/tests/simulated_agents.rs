//! Simulated agents are nodes like any other to the controllers: the benchmark that uses thousands of
//! them measures what real ones would cost.

#![allow(clippy::unwrap_used)]

use hive_agent::sim::{SimAgent, SimConfig};
use hive_e2e::guests;
use hive_e2e::ports::loopback;
use hive_e2e::swarm::{ASSIGNMENTS, NODES, Swarm, function_path, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_proto::link::{LinkSettings, SharedSocket};
use serde_json::json;

const COUNT: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn they_join_run_what_is_applied_and_move_when_a_controller_dies() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    let token = swarm.token(&["--uses", &COUNT.to_string()]).await;
    let links: Vec<u16> = swarm.controllers.iter().map(|c| c.link).collect();
    let socket = SharedSocket::toward(([127, 0, 0, 1], links[0]).into()).unwrap();
    let mut agents = Vec::new();
    for number in 0..COUNT {
        let joined = SimAgent::join(SimConfig {
            name: format!("sim-{number}"),
            controllers: links.iter().map(|port| loopback(*port)).collect(),
            token: token.parse().unwrap(),
            links: LinkSettings {
                socket: Some(socket.clone()),
                ..LinkSettings::default()
            },
            // One of them does not only say so.
            artifacts: (number == 0).then(|| swarm.path().join("fetched")),
        });
        agents.push(joined.await.unwrap());
    }
    let manifest = swarm.manifest("every", &guests::hello(), json!({ "everyNode": true }));
    let manifest = manifest.display().to_string();
    swarm.ctl(&["apply", "-f", &manifest]).await.ok();
    let client = swarm.client().await;
    until("every node runs it", PATIENCE, async || {
        let function = object(&client, &function_path("every")).await?;
        let ready = &function["status"]["readyReplicas"];
        holds(*ready == COUNT, &function["status"])
    })
    .await;
    let nodes = object(&client, NODES).await.unwrap();
    assert_eq!(nodes["items"].as_array().unwrap().len(), COUNT);
    assert!(agents.iter().all(|agent| agent.running() == 1));
    let fetched = std::fs::read_dir(swarm.path().join("fetched")).unwrap();
    assert_eq!(fetched.count(), 1);

    let victim = swarm.leader().await;
    let dead = swarm.controllers[victim].link_address();
    swarm.controllers[victim].member.kill9().await;
    until("sessions are held with the living", PATIENCE, async || {
        let held = agents.iter().filter_map(SimAgent::held_with);
        let elsewhere = held.filter(|endpoint| *endpoint != dead).count();
        holds(elsewhere == COUNT, elsewhere)
    })
    .await;
    let client = swarm.client().await;
    // Another one may not lead yet.
    let assignments = until("they are listed", PATIENCE, async || {
        object(&client, ASSIGNMENTS).await
    })
    .await;
    assert_eq!(assignments["items"].as_array().unwrap().len(), COUNT);
}
