//! `hivectl logs`: the lines of all copies, of one request, of the version before, of a node that the
//! function left.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use hive_e2e::swarm::{ASSIGNMENTS, host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

/// Enough for each of three copies to have some.
const REQUESTS: usize = 30;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_wrote_is_found() {
    let mut swarm = Swarm::start().await;
    let spec = |value: &str| json!({ "replicas": 3, "env": [{ "name": "A", "value": value }] });
    swarm.deploy("probe", &guests::probe(), spec("one")).await;
    let mut steps = Steps::new();
    let mut ids = Vec::new();

    steps
        .run("the lines of each request are found by its id", async {
            for n in 0..REQUESTS {
                ids.push(write(&swarm, n % 3, &format!("first-{n}-")).await);
            }
            for (n, id) in ids.iter().enumerate() {
                let log = lines(&swarm, &["--request-id", id]).await;
                assert_eq!(log.len(), 4, "{log:?}");
                let text = format!("first-{n}-");
                assert!(log.iter().all(|line| line.starts_with(&text)), "{log:?}");
            }
        })
        .await;
    steps
        .run("all copies are merged, with ids where asked for", async {
            let log = lines(&swarm, &["--request-ids"]).await;
            for (n, id) in ids.iter().enumerate() {
                let wanted = format!("first-{n}- 0 to stdout (request {id})");
                assert!(log.contains(&wanted), "{wanted} is not in {log:?}");
            }
            let copies = lines(&swarm, &["--prefix"]).await;
            for copy in ["[probe.0/", "[probe.1/", "[probe.2/"] {
                assert!(
                    copies.iter().any(|line| line.starts_with(copy)),
                    "{copies:?}"
                );
            }
        })
        .await;
    steps
        .run("the lines of a trace are found by its id", async {
            let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
            let headers = [("traceparent", &*parent)];
            for n in 0..2 {
                let address = swarm.controllers[n].ingress_address();
                let path = format!("/log?lines=1&text=traced-{n}-");
                let answer = web::get_with(&address, &host("probe"), &path, &headers).await;
                assert_eq!(answer.unwrap().status, 200);
            }
            let log = lines(&swarm, &["--request-id", TRACE, "--request-ids"]).await;
            assert_eq!(log.len(), 4, "{log:?}");
            for line in &log {
                assert!(line.starts_with("traced-"), "{log:?}");
                assert!(line.ends_with(&format!(", trace {TRACE})")), "{log:?}");
            }
        })
        .await;
    steps
        .run("a time cuts off what was before", async {
            let all = lines(&swarm, &["--timestamps"]).await;
            let line = all.iter().find(|line| line.contains("first-20- 0"));
            let (time, _) = line.unwrap().split_once(' ').unwrap();
            let log = lines(&swarm, &["--since-time", time]).await;
            assert!(log.iter().any(|line| line.starts_with("first-29-")));
            assert!(
                !log.iter().any(|line| line.starts_with("first-0-")),
                "{log:?}"
            );
        })
        .await;
    steps
        .run(
            "two who follow get every line once",
            followed_by_two(&swarm),
        )
        .await;
    steps
        .run("what the version before said is kept apart", async {
            let manifest = swarm.manifest("probe", &guests::probe(), spec("two"));
            let manifest = manifest.to_str().unwrap();
            swarm.ctl(&["apply", "-f", manifest]).await.ok();
            swarm.ctl(&["rollout", "status", "fn/probe"]).await.ok();
            write(&swarm, 0, "second-").await;
            let log = lines(&swarm, &[]).await;
            assert_eq!(log.len(), 4, "{log:?}");
            assert!(
                log.iter().all(|line| line.starts_with("second-")),
                "{log:?}"
            );
            let before = lines(&swarm, &["-p"]).await;
            assert!(before.len() >= 4 * REQUESTS, "{before:?}");
            assert!(!before.iter().any(|line| line.starts_with("second-")));
            // Who has an id need not know which version answered.
            assert_eq!(lines(&swarm, &["--request-id", &ids[0]]).await.len(), 4);
        })
        .await;
    steps
        .run("what was said on a node that is drained is found", async {
            let node = "node-1";
            let copy = copy_on(&mut swarm, node).await;
            let of_copy = lines(&swarm, &["-p", "--prefix", "--request-ids"]).await;
            let line = of_copy
                .iter()
                .find(|line| line.starts_with(&format!("[{copy}/")));
            let (_, id) = line.unwrap().rsplit_once("(request ").unwrap();
            let id = id.trim_end_matches(')');
            swarm.ctl(&["drain", node]).await.ok();
            let client = swarm.client().await;
            until("the copy has moved", PATIENCE, async || {
                let list = object(&client, ASSIGNMENTS).await?;
                let mut copies = list["items"].as_array().unwrap().iter();
                holds(copies.all(|copy| copy["spec"]["nodeName"] != node), &list)
            })
            .await;
            until("the agent has heard of it", PATIENCE, async || {
                let answer = web::get(&swarm.agents[0].address(), &host("probe"), "/").await;
                holds(
                    answer.as_ref().is_ok_and(|answer| answer.status == 404),
                    answer.map_or_else(|error| error.to_string(), |answer| answer.text()),
                )
            })
            .await;
            assert_eq!(lines(&swarm, &["--request-id", id]).await.len(), 4);
        })
        .await;
    steps.finish();
}

/// Has two lines to stdout and two to stderr written; the id of the request.
async fn write(swarm: &Swarm, controller: usize, text: &str) -> String {
    let address = swarm.controllers[controller].ingress_address();
    let path = format!("/log?lines=2&text={text}");
    let answer = web::get(&address, &host("probe"), &path).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-request-id").to_owned()
}

async fn lines(swarm: &Swarm, flags: &[&str]) -> Vec<String> {
    let arguments = [&["logs", "probe"], flags].concat();
    let log = swarm.ctl(&arguments).await;
    log.ok().lines().map(str::to_owned).collect()
}

async fn followed_by_two(swarm: &Swarm) {
    const WRITTEN: usize = 10;
    let follow = || {
        let arguments = ["logs", "-f", "probe", "--tail=1", "--prefix"];
        let mut reader = swarm.ctl.spawn(&arguments);
        let lines = BufReader::new(reader.stdout.take().unwrap()).lines();
        (reader, lines)
    };
    let mut followers = [follow(), follow()];
    // Each copy has said something, of which a follower is told the last line: whoever has heard of each follows
    // them all. Nothing is written for that: a log keeps so many lines only, and those of before are wanted below.
    for (_, lines) in &mut followers {
        let mut copies = BTreeSet::new();
        while copies.len() < 3 {
            let line = next(lines).await;
            let (copy, _) = line.split_once('/').unwrap();
            // A node that was not there at once is told of as well.
            if copy.starts_with("[probe.") {
                copies.insert(copy.to_owned());
            }
        }
    }
    for n in 0..WRITTEN {
        write(swarm, n % 3, &format!("both-{n}-")).await;
    }
    for (reader, lines) in &mut followers {
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        while heard.values().sum::<usize>() < 4 * WRITTEN {
            let line = next(lines).await;
            if line.contains("] both-") {
                *heard.entry(line).or_default() += 1;
            }
        }
        assert!(heard.values().all(|times| *times == 1), "{heard:?}");
        reader.kill().await.unwrap();
    }
}

/// What a follower is told next.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("the log goes on in time").unwrap();
    line.expect("the log goes on")
}

async fn copy_on(swarm: &mut Swarm, node: &str) -> String {
    let client = swarm.client().await;
    let list = object(&client, ASSIGNMENTS).await.unwrap();
    let mut copies = list["items"].as_array().unwrap().iter();
    let copy = copies.find(|copy| copy["spec"]["nodeName"] == node);
    let name = copy.expect("one copy a node")["metadata"]["name"].as_str();
    name.unwrap().to_owned()
}
