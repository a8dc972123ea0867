//! Versions of a function on a live swarm: out, back, held, started anew, while it is asked.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hive_e2e::load::{Load, Shape, summary};
use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests};
use http::Method;
use serde_json::{Value, json};

/// Requests a second: a swap takes some of them in its middle.
const RATE: u32 = 50;

async fn apply(swarm: &Swarm, greeting: &str) {
    let spec = json!({
        "replicas": 2,
        "env": [{ "name": "GREETING", "value": greeting }],
        "strategy": { "rollingUpdate": { "rollback": { "window": "1s" } } },
    });
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
    rollout(swarm, &["status", "--timeout=180s"]).await;
    for _ in 0..4 {
        let text = swarm.invoke("hello", "/").await.text();
        assert!(text.starts_with(greeting), "{text}");
    }
}

/// Waits until these are the numbers of the versions, and the newest is done.
async fn history(swarm: &Swarm, numbers: &[&str]) {
    until("the newest version is done", PATIENCE, async || {
        let path = "jsonpath={.status.rollout.phase}";
        let phase = swarm.ctl(&["get", "fn", "hello", "-o", path]).await;
        let listed = rollout(swarm, &["history"]).await;
        let rows = listed.lines().skip(2);
        let found: Vec<_> = rows
            .filter_map(|row| row.split_whitespace().next())
            .collect();
        let is_done = phase.ok() == "Complete" && found == numbers;
        holds(is_done, format!("{}\n{listed}", phase.stdout))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_and_go_and_no_request_fails() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    apply(&swarm, "One").await;
    swarm.function_ready("hello").await;
    history(&swarm, &["1"]).await;
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let load = Load::start(&ingresses, &host("hello"), RATE);

    apply(&swarm, "Two").await;
    says(&swarm, "Two").await;
    history(&swarm, &["1", "2"]).await;

    let undone = rollout(&swarm, &["undo"]).await;
    assert_eq!(
        undone,
        "function.hive.dev/hello rolled back to revision 1\n"
    );
    says(&swarm, "One").await;
    history(&swarm, &["2", "3"]).await;

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
    history(&swarm, &["2", "3", "4", "5"]).await;
    until("the restart is done", PATIENCE, async || {
        let described = swarm.ctl(&["describe", "fn", "hello"]).await;
        let text = described.ok();
        let is_done =
            text.contains("all copies run revision 5") && text.contains("RolloutComplete");
        holds(is_done, described)
    })
    .await;

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

/// Every ingress is asked for small answers, and sent bodies that it streams.
fn loads(swarm: &Swarm, function: &str) -> Vec<Load> {
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let upload = Shape {
        method: Method::POST,
        path: "/echo",
        body: Bytes::from(vec![b'x'; 64 << 10]),
    };
    [Shape::get(), upload]
        .map(|shape| Load::of(shape, &ingresses, &host(function), RATE / 10))
        .into()
}

/// The nodes that a function's copies are on, sorted.
async fn nodes_of(swarm: &Swarm) -> Vec<String> {
    let listed = swarm.ctl(&["get", "assignments", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(listed.ok()).unwrap();
    let nodes = listed["items"].as_array().unwrap().iter();
    let mut nodes: Vec<String> = nodes
        .map(|copy| copy["spec"]["nodeName"].as_str().unwrap().to_owned())
        .collect();
    nodes.sort();
    nodes
}

/// The node has let go of all of its copies.
async fn has_ended(swarm: &mut Swarm, node: &str) {
    let member = &swarm.agent(node).member;
    until(&format!("{node} serves no more"), PATIENCE, async || {
        let log = member.log_of_this_run();
        let count = |what: &str| log.matches(what).count();
        let (began, ended) = (count("function serves"), count("function ends here"));
        holds(ended > 0, format!("{began} began, {ended} ended"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_come_and_go_and_no_request_fails() {
    let mut swarm = Swarm::builder().controllers(3).agents(3).start().await;
    let spec = |replicas: u32, version: &str| json!({ "replicas": replicas, "env": [{ "name": "V", "value": version }] });
    swarm.deploy("probe", &guests::probe(), spec(3, "1")).await;
    let everywhere = nodes_of(&swarm).await;
    assert_eq!(everywhere, ["node-1", "node-2", "node-3"]);
    let loads = loads(&swarm, "probe");

    // Fewer copies: the nodes that are left out stop when nobody sends them anything.
    let scale = async |swarm: &mut Swarm, count: &str| {
        swarm.ctl(&["scale", "fn/probe", count]).await.ok();
        swarm.function_ready("probe").await;
    };
    scale(&mut swarm, "--replicas=1").await;
    let kept = until("one copy is left", PATIENCE, async || {
        let left = nodes_of(&swarm).await;
        holds(left.len() == 1, format!("{left:?}")).map(|()| left[0].clone())
    })
    .await;
    for node in everywhere.iter().filter(|node| **node != kept) {
        has_ended(&mut swarm, node).await;
    }

    // More again, another version of them, and one moves.
    scale(&mut swarm, "--replicas=2").await;
    let two = swarm.manifest("probe", &guests::probe(), spec(2, "2"));
    swarm
        .ctl(&["apply", "-f", two.to_str().unwrap()])
        .await
        .ok();
    let rollout = ["rollout", "status", "function/probe", "--timeout=180s"];
    swarm.ctl(&rollout).await.ok();
    swarm.ctl(&["drain", &kept, "--timeout=180s"]).await.ok();
    swarm.function_ready("probe").await;
    assert!(!nodes_of(&swarm).await.contains(&kept));
    has_ended(&mut swarm, &kept).await;

    for load in loads {
        let outcomes = load.stop().await;
        println!("{}", summary(&outcomes));
        let failed: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_the_only_copy_is_drained_and_no_request_fails() {
    let mut swarm = Swarm::builder().controllers(3).agents(2).start().await;
    let spec = json!({ "replicas": 1 });
    swarm.deploy("probe", &guests::probe(), spec).await;
    let loads = loads(&swarm, "probe");
    // There and back.
    for _ in 0..2 {
        let nodes = nodes_of(&swarm).await;
        let [node] = &nodes[..] else {
            panic!("{nodes:?}");
        };
        let drained = swarm.ctl(&["drain", node, "--timeout=180s"]).await;
        println!("{}", drained.ok());
        assert!(!nodes_of(&swarm).await.contains(node));
        has_ended(&mut swarm, node).await;
        swarm.ctl(&["uncordon", node]).await.ok();
    }
    for load in loads {
        let outcomes = load.stop().await;
        println!("{}", summary(&outcomes));
        let failed: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_only_copy_while_no_other_node_takes_it() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    let spec = json!({ "replicas": 1 });
    swarm.deploy("probe", &guests::probe(), spec).await;
    let node = nodes_of(&swarm).await.remove(0);
    let other = ["node-1", "node-2"].into_iter().find(|it| *it != node);
    let other = other.unwrap();
    let loads = loads(&swarm, "probe");
    swarm.ctl(&["cordon", other]).await.ok();
    let drained = swarm.ctl(&["drain", &node, "--timeout=20s"]).await;
    drained.fails(&["timed out draining", "still there: default/probe"]);
    let why = "no node can take default/probe: 0/2 nodes fit: 2 cordoned";
    assert!(drained.stdout.contains(why), "{drained}");
    assert_eq!(nodes_of(&swarm).await, [&*node]);

    // Now one can.
    swarm.ctl(&["uncordon", other]).await.ok();
    let drained = swarm.ctl(&["drain", &node, "--timeout=180s"]).await;
    assert!(
        drained.ok().ends_with("drained: 1 copy moved\n"),
        "{drained}"
    );
    assert_eq!(nodes_of(&swarm).await, [other]);
    has_ended(&mut swarm, &node).await;
    for load in loads {
        let outcomes = load.stop().await;
        println!("{}", summary(&outcomes));
        let failed: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    // By force it ends, although nobody else has it.
    let drained = swarm
        .ctl(&["drain", other, "--force", "--timeout=180s"])
        .await;
    assert!(
        drained.ok().ends_with("drained: 1 copy ended\n"),
        "{drained}"
    );
    has_ended(&mut swarm, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_the_values_of_a_secret_that_is_deleted() {
    let mut swarm = Swarm::builder().controllers(3).agents(1).start().await;
    let create = ["create", "secret", "generic", "s", "--from-literal=v=1"];
    swarm.ctl(&create).await.ok();
    let from = json!({ "secretKeyRef": { "name": "s", "key": "v" } });
    let spec = json!({ "replicas": 1, "env": [{ "name": "V", "valueFrom": from }] });
    swarm.deploy("probe", &guests::probe(), spec).await;
    swarm.ctl(&["delete", "secret", "s"]).await.ok();
    let missing = "spec.env[0].valueFrom: secret \"s\" does not exist";
    let is_told = async |swarm: &Swarm, why: &str| {
        until("it is told what is missing", PATIENCE, async || {
            let described = swarm.ctl(&["describe", "fn", "probe"]).await;
            let is_told = described.ok().contains("Not ready (MissingReference)");
            holds(is_told && described.ok().contains(why), described)
        })
        .await;
    };
    is_told(&swarm, missing).await;
    is_told(&swarm, "the copies that run go on with what they have").await;
    assert!(swarm.invoke("probe", "/env").await.text().contains("V=1\n"));

    // Also with another controller, which never knew the value.
    for index in 0..3 {
        swarm.controllers[index].member.stop().await;
        swarm.controllers[index].member.start();
        swarm.controller_ready(index).await;
    }
    is_told(&swarm, missing).await;
    // Its link to the first of them is dialled anew as well.
    until("it is answered", PATIENCE, async || {
        let text = swarm.invoke("probe", "/env").await.text();
        holds(text.contains("V=1\n"), text)
    })
    .await;

    // What starts anew waits for it, until it is there.
    let agent = &mut swarm.agent("node-1").member;
    agent.stop().await;
    agent.start();
    until("the copy waits", PATIENCE, async || {
        let path = "jsonpath={.status.reason}";
        let reason = swarm
            .ctl(&["get", "assignment", "probe.0", "-o", path])
            .await;
        holds(reason.ok() == "MissingReference", reason)
    })
    .await;
    let create = ["create", "secret", "generic", "s", "--from-literal=v=2"];
    swarm.ctl(&create).await.ok();
    swarm.function_ready("probe").await;
    assert!(swarm.invoke("probe", "/env").await.text().contains("V=2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_show_that_it_is_ready_never_serves() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let spec = |version: &str, path: &str| {
        json!({
            "replicas": 1,
            "env": [{ "name": "V", "value": version }],
            "readinessProbe": { "httpGet": { "path": path }, "periodSeconds": 1, "failureThreshold": 2 },
        })
    };
    let apply = async |swarm: &Swarm, version: &str, path: &str| {
        let manifest = swarm.manifest("probe", &guests::probe(), spec(version, path));
        let manifest = manifest.to_str().unwrap();
        swarm.ctl(&["apply", "-f", manifest]).await.ok();
    };
    let runs = async |swarm: &Swarm| swarm.invoke("probe", "/env").await.text();
    apply(&swarm, "1", "/").await;
    swarm.function_ready("probe").await;

    apply(&swarm, "2", "/status?code=503").await;
    until(
        "it is told why the version does not serve",
        PATIENCE,
        async || {
            let described = swarm.ctl(&["describe", "fn", "probe"]).await;
            let text = described.ok();
            let is_told =
                text.contains("is answered with 503") && text.contains("ReadinessProbeFailed");
            holds(is_told, text)
        },
    )
    .await;
    assert!(runs(&swarm).await.contains("V=1\n"));

    apply(&swarm, "3", "/status?code=204").await;
    let rollout = ["rollout", "status", "function/probe", "--timeout=180s"];
    swarm.ctl(&rollout).await.ok();
    assert!(runs(&swarm).await.contains("V=3\n"));
}
