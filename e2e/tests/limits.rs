//! Functions that go too far: the caller is told which limit, the log and the events say so, and
//! the node goes on.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hive_e2e::swarm::{host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::Answer;
use hive_e2e::{Steps, Swarm, guests, web};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const EVENTS: &str = "/api/v1/namespaces/default/events";

/// Of the one that loops; much less than the loop would take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Much less than the loop would take, which has no end, and enough where one core does the work of ten.
const SOON_AFTER: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_goes_too_far_is_stopped_and_told() {
    let mut swarm = Swarm::builder().agents(1).start().await;
    // A function of its own: what the others are asked for may take a second on a busy machine.
    let short = json!({ "timeout": "1s" });
    swarm.deploy("looper", &guests::probe(), short).await;
    let spec = json!({
        "resources": { "memory": "32Mi" },
        "allowedHosts": ["allowed.example"],
    });
    swarm.deploy("probe", &guests::probe(), spec).await;
    let mut steps = Steps::new();

    steps
        .run("a loop is ended by its timeout", async {
            let started = Instant::now();
            let answer = swarm.invoke("looper", "/spin").await;
            told(&answer, 504, "Timeout", "no complete response within 1s");
            let took = started.elapsed();
            assert!(took >= TIMEOUT && took < SOON_AFTER, "{took:?}");
            event(&mut swarm, "looper", "Timeout").await;
        })
        .await;
    steps
        .run("memory ends at its limit", async {
            let answer = swarm.invoke("probe", "/memory?mib=64").await;
            told(&answer, 502, "MemoryLimit", "memory limit");
            event(&mut swarm, "probe", "MemoryLimit").await;
            let little = swarm.invoke("probe", "/memory?mib=8").await;
            assert_eq!(little.text(), "touched 8 MiB\n");
        })
        .await;
    steps
        .run("a trap is told", async {
            let answer = swarm.invoke("probe", "/trap").await;
            told(&answer, 502, "Trap", "the function stopped");
            event(&mut swarm, "probe", "Trap").await;
        })
        .await;
    steps
        .run("no answer is told", async {
            let answer = swarm.invoke("probe", "/silent").await;
            told(&answer, 502, "NoResponse", "without a response");
        })
        .await;
    steps
        .run("what is not allowed is not reached", async {
            let answer = swarm
                .invoke("probe", "/egress?url=http%3A%2F%2F127.0.0.1%3A1%2F")
                .await;
            assert!(
                answer.text().contains("HttpRequestDenied"),
                "{}",
                answer.text()
            );
            event(&mut swarm, "probe", "EgressDenied").await;
            let files = swarm.invoke("probe", "/fs?path=/etc/passwd").await;
            assert!(files.text().starts_with("refused"), "{}", files.text());
        })
        .await;
    steps
        .run(
            "a failure has a line in the log, with the request's id",
            async {
                let answer = swarm.invoke("probe", "/trap").await;
                let id = answer.header("x-request-id").to_owned();
                assert!(!id.is_empty());
                until("the log has the request", PATIENCE, async || {
                    let logs = swarm.ctl(&["logs", "function/probe"]).await;
                    holds(logs.ok().contains(&id), &logs.stdout)
                })
                .await;
            },
        )
        .await;
    steps
        .run("what it writes is in its log", async {
            swarm.invoke("probe", "/log?lines=2&text=needle").await;
            until("the log has the lines", PATIENCE, async || {
                let logs = swarm.ctl(&["logs", "function/probe"]).await;
                let all = [
                    "needle 0 to stdout",
                    "needle 1 to stdout",
                    "needle 1 to stderr",
                ];
                holds(
                    all.iter().all(|line| logs.ok().contains(line)),
                    &logs.stdout,
                )
            })
            .await;
        })
        .await;
    steps
        .run("the events are told to people too", async {
            let events = swarm.ctl(&["get", "events"]).await;
            for reason in ["Timeout", "MemoryLimit", "Trap", "EgressDenied"] {
                assert!(events.ok().contains(reason), "{events}");
            }
            // Where it was, by the names of the component.
            assert!(events.ok().contains(" in probe::trap"), "{events}");
        })
        .await;
    steps
        .run("the function goes on", async {
            assert_eq!(swarm.invoke("probe", "/").await.text(), "hello\n");
        })
        .await;
    steps.finish();
}

#[track_caller]
fn told(answer: &Answer, status: u16, reason: &str, text: &str) {
    let found = answer.text();
    assert_eq!(answer.status, status, "{found}");
    assert_eq!(answer.header("x-hive-reason"), reason, "{found}");
    assert!(found.contains(text), "{found}");
}

async fn event(swarm: &mut Swarm, function: &str, reason: &str) {
    let client = swarm.client().await;
    until(
        &format!("there is an event {reason}"),
        PATIENCE,
        async || {
            let list = object(&client, EVENTS).await?;
            let found = list["items"].as_array().unwrap().iter().any(|event| {
                event["reason"] == reason
                    && event["type"] == "Warning"
                    && event["involvedObject"]["name"] == function
            });
            holds(found, &list)
        },
    )
    .await;
}

/// Of the function that loops: its neighbour has its turns in it, on a machine that is held up for a while too.
const LOOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers of the neighbour meanwhile: more than one that waits for the loop's end can give.
const NEIGHBOUR: u32 = 3;

/// At once, to a function that works on one. Each takes [`PAUSE`].
const FLOOD: usize = 20;

const PAUSE: &str = "/slow?ms=50";

const TRAPS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_function_does_too_much_costs_no_other() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let (allowed, forbidden) = (server().await, server().await);
    let spec = json!({ "timeout": format!("{}s", LOOP_TIMEOUT.as_secs()), "concurrency": 1 });
    swarm.deploy("looper", &guests::probe(), spec).await;
    let spec = json!({
        "queueTimeout": "60s",
        "concurrency": 1,
        "allowedHosts": [format!("127.0.0.1:{allowed}")],
    });
    swarm.deploy("probe", &guests::probe(), spec).await;
    swarm.deploy("neighbour", &guests::probe(), json!({})).await;
    let ingress = swarm.controllers[0].ingress_address();
    let local = swarm.agents[0].address();
    let mut steps = Steps::new();

    // Early: repeated failures are told together, seconds later.
    for _ in 0..TRAPS {
        assert_eq!(swarm.invoke("probe", "/trap").await.status, 502);
    }
    for (place, address) in [("through the ingress", &ingress), ("locally", &local)] {
        let name = format!("a neighbour answers while another loops, {place}");
        steps.run(&name, loops_beside(address)).await;
    }
    steps
        .run("a flood is answered one after another", async {
            let answers = flood(&ingress, "probe").await;
            let good = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!(good, FLOOD, "{answers:#?}");
        })
        .await;
    steps
        .run("without a queue a flood is refused", async {
            let spec = json!({ "concurrency": 1, "queueTimeout": "0s" });
            swarm.deploy("hasty", &guests::probe(), spec).await;
            // The instance that showed that it is ready may just be ending.
            until("one is answered and others are not", PATIENCE, async || {
                let answers = flood(&ingress, "hasty").await;
                let good = answers.iter().filter(|answer| answer.status == 200).count();
                let refused = answers.iter().filter(|answer| {
                    answer.status == 503 && answer.header("x-hive-reason") == "Overloaded"
                });
                let refused = refused.count();
                println!("  of {FLOOD}: {good} answered, {refused} refused");
                assert_eq!(good + refused, FLOOD, "{answers:#?}");
                holds(good > 0 && refused > 0, "it is all of them")
            })
            .await;
            until("it answers again", PATIENCE, async || {
                let after = web::get(&ingress, &host("hasty"), "/").await.unwrap();
                holds(after.status == 200, after.status)
            })
            .await;
        })
        .await;
    steps
        .run("only the allowed host and port are reached", async {
            let url = |port: u16| format!("/egress?url=http%3A%2F%2F127.0.0.1%3A{port}%2F");
            let reached = swarm.invoke("probe", &url(allowed)).await;
            let text = reached.text();
            assert!(
                text.contains("status 200") && text.contains("from outside"),
                "{text}"
            );
            let refused = swarm.invoke("probe", &url(forbidden)).await;
            assert!(
                refused.text().contains("HttpRequestDenied"),
                "{}",
                refused.text()
            );
            let id = refused.header("x-request-id");
            assert!(!id.is_empty());
            let remedy = format!("add \"127.0.0.1:{forbidden}\" to spec.allowedHosts");
            until("the log says what to do", PATIENCE, async || {
                let logs = swarm.ctl(&["logs", "function/probe"]).await;
                let line = logs.ok().lines().find(|line| line.contains(&remedy));
                holds(line.is_some_and(|line| line.contains(id)), &logs.stdout)
            })
            .await;
        })
        .await;
    let client = swarm.client().await;
    steps
        .run("each failure is counted once", async {
            until("the events count all", PATIENCE, async || {
                let list = object(&client, EVENTS).await?;
                let found: Vec<&Value> = list["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|event| event["reason"] == "Trap")
                    .collect();
                let counted: u64 = found.iter().map(|event| occurrences(event)).sum();
                assert!(
                    counted <= TRAPS,
                    "counted more often than it happened: {found:#?}"
                );
                holds(counted == TRAPS, format!("{counted} of {TRAPS}: {found:?}"))
            })
            .await;
            let events = swarm.ctl(&["events", "--for", "function/probe"]).await;
            assert!(events.ok().contains("Trap"), "{events}");
        })
        .await;
    steps
        .run("its requests and errors are in `top functions`", async {
            until("usage is reported", PATIENCE, async || {
                let top = swarm.ctl(&["top", "functions", "--totals"]).await;
                let row: Vec<String> = top
                    .ok()
                    .lines()
                    .find(|line| line.starts_with("probe "))
                    .into_iter()
                    .flat_map(|line| line.split_whitespace().map(str::to_owned))
                    .collect();
                let number = |index: usize| -> u64 {
                    row.get(index)
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(0)
                };
                // NAME NODES REQUESTS ERRORS: the traps, and more.
                let (requests, errors) = (number(2), number(3));
                let enough = errors >= TRAPS && requests > errors;
                holds(enough, &top.stdout)
            })
            .await;
        })
        .await;
    steps.finish();
}

/// The answers to many requests at once.
async fn flood(address: &str, function: &str) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for _ in 0..FLOOD {
        let (address, host) = (address.to_owned(), host(function));
        requests.spawn(async move { web::get(&address, &host, PAUSE).await.unwrap() });
    }
    requests.join_all().await
}

/// Takes long enough that whatever waited for it would be noticed, and four others are answered meanwhile.
const LONG: &str = "/slow?ms=15000";

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_copy_leaves_requests_to_an_idle_one() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    let spec = json!({ "replicas": 2, "concurrency": 1 });
    swarm.deploy("probe", &guests::probe(), spec).await;
    let ingress = swarm.controllers[0].ingress_address();
    let local: Vec<String> = swarm.agents.iter().map(|agent| agent.address()).collect();
    let mut steps = Steps::new();

    steps
        .run("requests go past the busy copy", async {
            // Straight to one copy, so that the ingress knows nothing of it.
            let busy = local[0].clone();
            let long = tokio::spawn(async move {
                let answer = web::get(&busy, &host("probe"), LONG).await.unwrap();
                (answer.status, Instant::now())
            });
            until("the copy is busy", PATIENCE, async || {
                // It answers others only after the long one.
                let probe = host("probe");
                let asked = web::get(&local[0], &probe, "/");
                let asked = tokio::time::timeout(Duration::from_millis(100), asked).await;
                holds(asked.is_err(), "it answered")
            })
            .await;
            for _ in 0..4 {
                let answer = web::get(&ingress, &host("probe"), "/").await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let answered = Instant::now();
            let (status, ended) = long.await.unwrap();
            assert_eq!(status, 200);
            assert!(answered < ended, "they waited for the busy copy");
        })
        .await;
    steps
        .run("with both busy they wait", async {
            let answers = flood(&ingress, "probe").await;
            let good = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!(good, FLOOD, "{answers:#?}");
        })
        .await;
    steps
        .run("being passed on is no failure of the function", async {
            let logs = swarm.ctl(&["logs", "function/probe"]).await;
            assert!(!logs.ok().contains("Overloaded"), "{logs}");
        })
        .await;
    steps.finish();
}

/// The loop ends in time, and the neighbour answers all the while.
async fn loops_beside(address: &str) {
    let started = Instant::now();
    let looping_host = host("looper");
    let mut looping = std::pin::pin!(web::get(address, &looping_host, "/spin"));
    let mut answered = 0;
    let answer = loop {
        let neighbour_host = host("neighbour");
        tokio::select! {
            answer = &mut looping => break answer.unwrap(),
            answer = web::get(address, &neighbour_host, "/") => {
                let answer = answer.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered += 1;
            }
        }
    };
    let took = started.elapsed();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(answer.header("x-hive-reason"), "Timeout");
    assert!(took >= LOOP_TIMEOUT && took < SOON_AFTER, "{took:?}");
    assert!(
        answered >= NEIGHBOUR,
        "the neighbour answered {answered} times"
    );
    println!(
        "  the neighbour answered {answered} times in {:.2} s",
        took.as_secs_f64()
    );
}

/// How often what an event tells of happened: its count, each with the others its message names.
fn occurrences(event: &Value) -> u64 {
    let message = event["message"].as_str().unwrap();
    let others = message
        .rsplit_once(" (and ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    event["count"].as_u64().unwrap() * (1 + others)
}

/// A server on loopback that answers every connection; its port. Ends with the test.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\nfrom outside")
                .await;
        }
    });
    port
}
