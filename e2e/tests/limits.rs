//! Functions that go too far: the caller is told which limit, the log and the events say so, and
//! the node goes on.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hive_e2e::swarm::object;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::Answer;
use hive_e2e::{Steps, Swarm, guests};
use serde_json::json;

const EVENTS: &str = "/api/v1/namespaces/default/events";

/// Of the probe; much less than its loop would take.
const TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_goes_too_far_is_stopped_and_told() {
    let mut swarm = Swarm::builder().agents(1).start().await;
    let spec = json!({
        "timeout": "1s",
        "resources": { "memory": "32Mi" },
        "allowedHosts": ["allowed.example"],
    });
    swarm.deploy("probe", &guests::probe(), spec).await;
    let mut steps = Steps::new();

    steps
        .run("a loop is ended by its timeout", async {
            let started = Instant::now();
            let answer = swarm.invoke("probe", "/spin").await;
            told(&answer, 504, "Timeout", "no complete response within 1s");
            let took = started.elapsed();
            assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "{took:?}");
            event(&mut swarm, "Timeout").await;
        })
        .await;
    steps
        .run("memory ends at its limit", async {
            let answer = swarm.invoke("probe", "/memory?mib=64").await;
            told(&answer, 502, "MemoryLimit", "memory limit");
            event(&mut swarm, "MemoryLimit").await;
            let little = swarm.invoke("probe", "/memory?mib=8").await;
            assert_eq!(little.text(), "touched 8 MiB\n");
        })
        .await;
    steps
        .run("a trap is told", async {
            let answer = swarm.invoke("probe", "/trap").await;
            told(&answer, 502, "Trap", "the function stopped");
            event(&mut swarm, "Trap").await;
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
            for reason in ["Timeout", "MemoryLimit", "Trap"] {
                assert!(events.ok().contains(reason), "{events}");
            }
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

async fn event(swarm: &mut Swarm, reason: &str) {
    let client = swarm.client().await;
    until(
        &format!("there is an event {reason}"),
        PATIENCE,
        async || {
            let list = object(&client, EVENTS).await?;
            let found = list["items"].as_array().unwrap().iter().any(|event| {
                event["reason"] == reason
                    && event["type"] == "Warning"
                    && event["involvedObject"]["name"] == "probe"
            });
            holds(found, &list)
        },
    )
    .await;
}
