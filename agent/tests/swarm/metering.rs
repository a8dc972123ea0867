//! What functions used reaches the controllers once, whatever is lost on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hive_agent::{Agent, Config};
use hive_proto::v1::{self, controller_message};

use crate::controller::{Controller, Swarm, desired};
use crate::support::{HELLO, assignment, config, eventually, get, put};

fn message(kind: controller_message::Kind) -> v1::ControllerMessage {
    v1::ControllerMessage { kind: Some(kind) }
}

/// What every session hears: that the swarm meters, what to run, and up to where what was used is held.
fn said(swarm: &Swarm, held: Option<&v1::Metering>) -> Vec<v1::ControllerMessage> {
    let controllers = v1::Controllers {
        level: 6,
        ..Default::default()
    };
    let metered = held.map(|batch| v1::Metered {
        origin: batch.origin.clone(),
        sequence: batch.sequence,
    });
    let mut said = vec![
        message(controller_message::Kind::Controllers(controllers)),
        desired(1, &[assignment(swarm, "hello", 1, &HELLO)]),
    ];
    said.extend(metered.map(|metered| message(controller_message::Kind::Metered(metered))));
    said
}

async fn started(config: Config) -> Agent {
    let each_second = Config {
        meter_interval: Duration::from_secs(1),
        ..config
    };
    Agent::start(each_second).await.unwrap()
}

async fn ask(agent: &Agent, times: u64) {
    for _ in 0..times {
        assert_eq!(get(agent, "hello.test", "/").await.status(), 200);
    }
}

/// Requests in all batches that came, each batch once.
fn told(controller: &Controller) -> u64 {
    let mut batches = BTreeMap::new();
    for batch in &controller.state().batches {
        let known = batches.insert((batch.origin.clone(), batch.sequence), batch.clone());
        assert!(
            known.is_none_or(|known| known == *batch),
            "a batch was changed"
        );
    }
    let entries = batches.values().flat_map(|batch| &batch.entries);
    entries.map(|entry| entry.requests).sum()
}

async fn swarm_and_agent(dir: &Path) -> (Swarm, Controller, Agent) {
    let swarm = Swarm::new();
    let controller = Controller::start(&swarm).await;
    put(&controller, &HELLO);
    controller.say(said(&swarm, None));
    let agent = started(config(dir, &swarm, &[&controller])).await;
    controller.ready("hello.0").await;
    (swarm, controller, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_is_told_until_it_is_held_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (swarm, controller, agent) = swarm_and_agent(dir.path()).await;
    ask(&agent, 3).await;
    let first = eventually("the first batch comes again", || {
        let state = controller.state();
        let first = state.batches.first()?;
        let copies = state.batches.iter().filter(|batch| *batch == first);
        (copies.count() > 1).then(|| first.clone())
    })
    .await;
    assert_eq!(first.sequence, 1);
    // Nobody says that it is held: it stays on the disk, and the rest behind it.
    ask(&agent, 2).await;
    controller.stop().await;
    agent.stop().await;
    assert_eq!(controller.state().batches.last(), Some(&first));

    let other = Controller::start(&swarm).await;
    other.say(said(&swarm, None));
    let known = Config {
        token: None,
        ..config(dir.path(), &swarm, &[&other])
    };
    let agent = started(known).await;
    eventually("the first batch comes again", || {
        other.state().batches.contains(&first).then_some(())
    })
    .await;
    other.say(said(&swarm, Some(&first)));
    eventually("all is told", || (told(&other) == 5).then_some(())).await;
    other.stop().await;
    agent.stop().await;
}

/// Controllers that commit it have what was used at last before the agent is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_tells_what_was_used_at_last() {
    let dir = tempfile::tempdir().unwrap();
    let (swarm, controller, agent) = swarm_and_agent(dir.path()).await;
    ask(&agent, 3).await;
    let holding = tokio::spawn({
        let controller = controller.clone();
        async move {
            let mut held = None;
            loop {
                let last = eventually("a batch that is not held", || {
                    let last = controller.state().batches.last().cloned();
                    last.filter(|last| held.as_ref() != Some(last))
                })
                .await;
                controller.say(said(&swarm, Some(&last)));
                held = Some(last);
            }
        }
    });
    let begun = Instant::now();
    agent.stop().await;
    holding.abort();
    // On a machine that is too slow for that it would be told after the next start.
    if begun.elapsed() < Duration::from_secs(10) {
        assert_eq!(told(&controller), 3);
    }
}
