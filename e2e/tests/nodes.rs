//! Nodes are drained, die, and come back; an agent serves from its ledger with nobody to ask.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hive_e2e::load::{Load, summary};
use hive_e2e::swarm::{
    ASSIGNMENTS, NODE_GRACE, NODES, condition, function_path, host, node_ready, object,
};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// The README promises a second of an agent that starts with no network. A debug build on a slow machine has more,
/// and still less than who first tries to reach a controller.
const SERVES_FROM_LEDGER: Duration = Duration::from_secs(8);

/// Cold starts measured: a single one may meet a busy moment of the machine.
const STARTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn work_moves_off_nodes_that_are_drained_or_die() {
    let mut swarm = Swarm::start().await;
    let spec = json!({ "replicas": 2, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let mut steps = Steps::new();
    steps
        .run("a cordoned node gets no new work", cordoned(&mut swarm))
        .await;
    steps
        .run(
            "a drained node is left without a failed request",
            drained(&mut swarm),
        )
        .await;
    steps
        .run(
            "a node that is killed is replaced, and never counted",
            killed(&mut swarm),
        )
        .await;
    steps
        .run(
            "an agent serves with every controller down",
            alone(&mut swarm),
        )
        .await;
    steps.finish();
}

/// The nodes of a function's assignments, sorted.
async fn nodes_of(client: &Client, function: &str) -> Result<Vec<String>, String> {
    let list = object(client, ASSIGNMENTS).await?;
    let mut nodes: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|assignment| assignment["spec"]["functionName"] == function)
        .map(|assignment| assignment["spec"]["nodeName"].as_str().unwrap().to_owned())
        .collect();
    nodes.sort();
    Ok(nodes)
}

async fn cordoned(swarm: &mut Swarm) {
    let client = swarm.client().await;
    let busy = nodes_of(&client, "hello").await.unwrap();
    let idle = ["node-1", "node-2", "node-3"]
        .into_iter()
        .find(|node| !busy.iter().any(|other| other == node))
        .unwrap();
    swarm.ctl(&["cordon", idle]).await.ok();
    let nodes = swarm.ctl(&["get", "nodes"]).await;
    assert!(nodes.ok().contains("SchedulingDisabled"), "{nodes}");
    swarm
        .ctl(&["scale", "function/hello", "--replicas=3"])
        .await
        .ok();
    swarm.function_ready("hello").await;
    let now = nodes_of(&client, "hello").await.unwrap();
    assert_eq!(now.len(), 3);
    assert!(!now.iter().any(|node| node == idle), "{now:?}");
    swarm.ctl(&["uncordon", idle]).await.ok();
    swarm
        .ctl(&["scale", "function/hello", "--replicas=2"])
        .await
        .ok();
    swarm.function_ready("hello").await;
}

async fn drained(swarm: &mut Swarm) {
    let client = swarm.client().await;
    let node = nodes_of(&client, "hello").await.unwrap().remove(0);
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|c| c.ingress_address())
        .collect();
    let load = Load::start(&ingresses, &host("hello"), 30);
    swarm.ctl(&["drain", &node, "--timeout=180s"]).await.ok();
    let left = nodes_of(&client, "hello").await.unwrap();
    assert!(!left.contains(&node), "{node} still has work: {left:?}");
    swarm.function_ready("hello").await;
    let drained = Instant::now();
    until("some requests came after the move", PATIENCE, async || {
        let after = load.so_far().iter().filter(|o| o.began > drained).count();
        holds(after > 50, format!("{after} did"))
    })
    .await;
    let outcomes = load.stop().await;
    println!("  while {node} was drained: {}", summary(&outcomes));
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.is_good()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    swarm.ctl(&["uncordon", &node]).await.ok();
}

async fn killed(swarm: &mut Swarm) {
    let client = swarm.client().await;
    let node = nodes_of(&client, "hello").await.unwrap().remove(0);
    let before = revision(&client).await;

    let at = Instant::now();
    swarm.agent(&node).member.kill9().await;
    until("the node is known to be lost", PATIENCE, async || {
        let found = object(&client, &format!("{NODES}/{node}")).await?;
        holds(
            condition(&found, "Ready") == "Unknown",
            condition(&found, "Ready"),
        )
    })
    .await;
    let lost = at.elapsed();
    // The function is Ready until that is looked at anew.
    until("its copy has another node", PATIENCE, async || {
        let nodes = nodes_of(&client, "hello").await?;
        let is_elsewhere = nodes.len() == 2 && !nodes.contains(&node);
        holds(is_elsewhere, format!("{nodes:?}"))
    })
    .await;
    swarm.function_ready("hello").await;
    let moved = at.elapsed();
    println!(
        "  {node} lost after {:.2} s (grace {} s), both copies ready after {:.2} s",
        lost.as_secs_f64(),
        NODE_GRACE.as_secs(),
        moved.as_secs_f64()
    );
    never_counted(&client, &node, before).await;

    // It comes back with what it holds, and is Ready without a token.
    let agent = swarm.agent(&node);
    agent.member.start();
    node_ready(&client, agent).await;
}

async fn revision(client: &Client) -> String {
    let list = object(client, NODES).await.unwrap();
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Replays every commit since `before`, in order: once the node is Unknown, no commit may say that
/// its assignment is Ready, or count a copy on it.
async fn never_counted(client: &Client, node: &str, before: String) {
    let functions = function_path("");
    let mut commits = BTreeMap::new();
    for resource in [NODES, ASSIGNMENTS, functions.trim_end_matches('/')] {
        for object in history(client, resource, &before).await {
            let revision: u64 = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            commits.insert(revision, object);
        }
    }
    let (mut unknown, mut wrong) = (None, Vec::new());
    let mut ready: BTreeMap<String, bool> = BTreeMap::new();
    for (revision, object) in &commits {
        let name = object["metadata"]["name"].as_str().unwrap();
        match object["kind"].as_str().unwrap() {
            "Node" if name == node && condition(object, "Ready") == "Unknown" => {
                unknown = Some(*revision);
            }
            "Assignment" => {
                let here = object["spec"]["nodeName"] == node;
                let is_ready = condition(object, "Ready") == "True";
                if unknown.is_some() && here && is_ready {
                    wrong.push(format!("{revision}: {name} on {node} is Ready"));
                }
                ready.insert(name.to_owned(), is_ready && !here);
            }
            "Function" if unknown.is_some() => {
                let counted = object["status"]["readyReplicas"]
                    .as_u64()
                    .unwrap_or_default();
                // The other copy has not changed: it is in no commit.
                let can_be = 1 + ready.values().filter(|ready| **ready).count() as u64;
                if counted > can_be {
                    wrong.push(format!("{revision}: {counted} counted, {can_be} can be"));
                }
            }
            _ => {}
        }
    }
    assert!(
        unknown.is_some(),
        "the node never turned Unknown: {commits:#?}"
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Objects as they were after each change since a revision.
async fn history(client: &Client, resource: &str, since: &str) -> Vec<Value> {
    let path = format!("{resource}?watch=true&resourceVersion={since}&timeoutSeconds=1");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] != "BOOKMARK")
        .map(|mut event| event["object"].take())
        .collect()
}

async fn alone(swarm: &mut Swarm) {
    swarm.function_ready("hello").await;
    let client = swarm.client().await;
    let node = nodes_of(&client, "hello").await.unwrap().remove(0);
    for controller in &mut swarm.controllers {
        controller.member.kill9().await;
    }
    let mut fastest = Duration::MAX;
    for number in 1..=STARTS {
        let agent = swarm.agent(&node);
        agent.member.kill9().await;
        agent.member.start();
        let started = agent.member.started();
        let address = agent.address();
        until("the agent serves alone", PATIENCE, async || {
            web::get(&address, &host("hello"), "/")
                .await
                .map_err(|error| error.to_string())?
                .ok()
        })
        .await;
        let took = started.elapsed();
        println!(
            "  start {number} with no controller: first answer after {:.0} ms",
            took.as_secs_f64() * 1000.0
        );
        fastest = fastest.min(took);
    }
    assert!(fastest <= SERVES_FROM_LEDGER, "it took {fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_node_gets_what_tolerates_it() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    // Of equals it would be the first.
    let agent = swarm.agent("node-1");
    agent.member.stop().await;
    agent.member.variable("HIVE_METERED", "yes");
    agent.member.start();
    until("the node is known to be metered", PATIENCE, async || {
        let nodes = swarm.ctl(&["get", "nodes"]).await;
        holds(nodes.ok().contains("Ready,Metered"), nodes)
    })
    .await;
    until("there is an event", PATIENCE, async || {
        let described = swarm.ctl(&["describe", "node", "node-1"]).await;
        holds(described.ok().contains("MeteredLink"), described)
    })
    .await;

    let small = json!({ "replicas": 1, "resources": { "memory": "16Mi", "cpu": "50m" } });
    let mut tolerant = small.clone();
    tolerant["tolerations"] = json!([{ "key": "hive.dev/metered", "operator": "Exists" }]);
    // In this order: what one brings to a node would draw the other there.
    swarm.deploy("sensor", &guests::hello(), tolerant).await;
    swarm.deploy("hello", &guests::hello(), small).await;
    let client = swarm.client().await;
    assert_eq!(nodes_of(&client, "hello").await.unwrap(), ["node-2"]);
    assert_eq!(nodes_of(&client, "sensor").await.unwrap(), ["node-1"]);
}

/// Restarts until a session is with one of two controllers of three: of ten billion runs one needs more.
const TURNS: usize = 20;

/// Where a node's session began last: the controller's place, and the line that says so, which begins with the time.
fn session_of(swarm: &Swarm, node: &str) -> Option<(usize, String)> {
    let said = format!(" node=\"{node}\" ");
    let begun = |log: String| {
        let lines = log.lines().rev();
        let mut begun =
            lines.filter(|line| line.contains("session begins") && line.contains(&said));
        begun.next().map(str::to_owned)
    };
    let all = swarm.controllers.iter().enumerate();
    let all = all.filter_map(|(place, it)| Some((place, begun(it.member.log())?)));
    all.max_by(|one, other| one.1.cmp(&other.1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_moves_to_a_node_that_has_its_component() {
    let mut swarm = Swarm::builder()
        // What a leader hears of nodes is in its log.
        .run_flag("--log", "info,hive_controller::gateway::presence=trace")
        .start()
        .await;
    // Of equals it would be the last. What it holds is to come to the leader by another controller.
    let holder = "node-3";
    let leader = swarm.leader().await;
    for _ in 0..TURNS {
        let (teller, begun) = session_of(&swarm, holder).unwrap();
        if teller != leader {
            break;
        }
        swarm.agent(holder).member.stop().await;
        swarm.agent(holder).member.start();
        until("its session begins anew", PATIENCE, async || {
            let now = session_of(&swarm, holder).map(|(_, begun)| begun);
            holds(now.as_ref() != Some(&begun), begun.clone())
        })
        .await;
    }
    let (teller, _) = session_of(&swarm, holder).unwrap();
    assert_ne!(teller, leader, "all its sessions were with the leader");
    swarm.wait_ready().await;

    let small = json!({ "replicas": 1, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.ctl(&["cordon", "node-1", "node-2"]).await.ok();
    swarm.deploy("hello", &guests::hello(), small).await;
    let client = swarm.client().await;
    assert_eq!(nodes_of(&client, "hello").await.unwrap(), [holder]);
    // Ids are given in the order in which controllers join, from 1.
    let told = (format!(" controller={} ", teller + 1), " holdings=1");
    until("the leader knows of it", PATIENCE, async || {
        let log = swarm.controllers[leader].member.log();
        let mut lines = log.lines().filter(|line| line.contains(&told.0));
        holds(lines.any(|line| line.contains(told.1)), "it was not told")
    })
    .await;

    swarm.ctl(&["uncordon", "node-2"]).await.ok();
    swarm.ctl(&["drain", holder, "--timeout=180s"]).await.ok();
    assert_eq!(nodes_of(&client, "hello").await.unwrap(), ["node-2"]);
    swarm.function_ready("hello").await;
    swarm.ctl(&["uncordon", "node-1", holder]).await.ok();
    swarm.ctl(&["drain", "node-2", "--timeout=180s"]).await.ok();
    assert_eq!(nodes_of(&client, "hello").await.unwrap(), [holder]);
}
