//! Versions of a function on a live swarm: out, back, held, started anew, while it is asked.
#![allow(clippy::unwrap_used)]

use hive_e2e::load::{Load, summary};
use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests};
use serde_json::json;

/// Requests a second: a swap takes some of them in its middle.
const RATE: u32 = 50;

async fn apply(swarm: &Swarm, greeting: &str) {
    let spec = json!({ "replicas": 2, "env": [{ "name": "GREETING", "value": greeting }] });
    let path = swarm.manifest("hello", &guests::hello(), spec);
    let path = path.to_str().unwrap();
    swarm.ctl(&["apply", "-f", path]).await.ok();
}

async fn rollout(swarm: &Swarm, words: &[&str]) -> String {
    let words = [&["rollout"], words, &["function/hello"]].concat();
    swarm.ctl(&words).await.ok().to_owned()
}

/// All copies say it.
async fn says(swarm: &Swarm, greeting: &str) {
    rollout(swarm, &["status", "--timeout=60s"]).await;
    for _ in 0..4 {
        let text = swarm.invoke("hello", "/").await.text();
        assert!(text.starts_with(greeting), "{text}");
    }
}

/// The numbers of the versions, once their newest is done.
async fn history(swarm: &Swarm) -> Vec<String> {
    until("the newest version is done", PATIENCE, async || {
        let path = "jsonpath={.status.rollout.phase}";
        let phase = swarm.ctl(&["get", "fn", "hello", "-o", path]).await;
        holds(phase.ok() == "Complete", phase)
    })
    .await;
    let listed = rollout(swarm, &["history"]).await;
    let rows = listed.lines().skip(2);
    rows.map(|row| row.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_and_go_and_no_request_fails() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    apply(&swarm, "One").await;
    swarm.function_ready("hello").await;
    assert_eq!(history(&swarm).await, ["1"]);
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let load = Load::start(&ingresses, &host("hello"), RATE);

    apply(&swarm, "Two").await;
    says(&swarm, "Two").await;
    assert_eq!(history(&swarm).await, ["1", "2"]);

    let undone = rollout(&swarm, &["undo"]).await;
    assert_eq!(
        undone,
        "function.hive.dev/hello rolled back to revision 1\n"
    );
    says(&swarm, "One").await;
    assert_eq!(history(&swarm).await, ["2", "3"]);

    rollout(&swarm, &["pause"]).await;
    apply(&swarm, "Three").await;
    until("it is told that it is held", PATIENCE, async || {
        let told = swarm.ctl(&["get", "fn", "hello"]).await;
        holds(told.ok().contains("Paused"), told)
    })
    .await;
    let text = swarm.invoke("hello", "/").await.text();
    assert!(text.starts_with("One"), "{text}");
    rollout(&swarm, &["resume"]).await;
    says(&swarm, "Three").await;

    rollout(&swarm, &["restart"]).await;
    says(&swarm, "Three").await;
    assert_eq!(history(&swarm).await, ["2", "3", "4", "5"]);
    let described = swarm.ctl(&["describe", "fn", "hello"]).await;
    assert!(
        described.ok().contains("all copies run revision 5"),
        "{described}"
    );
    assert!(described.ok().contains("RolloutComplete"), "{described}");

    let outcomes = load.stop().await;
    assert!(
        outcomes.iter().all(|outcome| outcome.is_good()),
        "{}",
        summary(&outcomes)
    );
    println!("{}", summary(&outcomes));

    // Its history goes with it.
    swarm.ctl(&["delete", "function/hello"]).await.ok();
    until("nothing is left of it", PATIENCE, async || {
        let left = swarm.ctl(&["get", "controllerrevisions"]).await;
        holds(!left.stdout.contains("hello"), left)
    })
    .await;
}
