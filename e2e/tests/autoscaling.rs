//! Functions that scale by themselves, on a live swarm: to zero, back by a request, up under load, held by hand.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::future::join_all;
use hive_e2e::swarm::host;
use hive_e2e::wait::{holds, until};
use hive_e2e::{Swarm, guests, web};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Windows are of six seconds, and what they decide takes its way through the swarm.
const PATIENCE: Duration = Duration::from_secs(120);

/// Callers that ask again as soon as they are answered. A copy should have two requests under way.
const CALLERS: usize = 12;
const MOST_COPIES: u64 = 3;

/// How many copies are wanted and answer, once that `is_so`.
async fn copies(swarm: &Swarm, what: &str, is_so: impl Fn(u64, u64) -> bool) {
    until(what, PATIENCE, async || {
        let path = "jsonpath={.status.readyReplicas} {.status.replicas}";
        let told = swarm.ctl(&["get", "fn", "probe", "-o", path]).await;
        let mut numbers = told.ok().split(' ').map_while(|it| it.trim().parse().ok());
        // Nothing is said of it at first.
        let is_such = match (numbers.next(), numbers.next()) {
            (Some(ready), Some(wanted)) => is_so(ready, wanted),
            _ => false,
        };
        holds(is_such, told)
    })
    .await;
}

/// Waits for the reason of a condition.
async fn says(swarm: &Swarm, condition: &str, reason: &str) {
    until(&format!("{condition} is {reason}"), PATIENCE, async || {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"{condition}\")].reason}}");
        let told = swarm.ctl(&["get", "fn", "probe", "-o", &path]).await;
        holds(told.ok() == reason, told)
    })
    .await;
}

/// Waits until its description says all of this: an event is written after what it tells of.
async fn has_events(swarm: &Swarm, parts: &[&str]) {
    until(&format!("it says {parts:?}"), PATIENCE, async || {
        let described = swarm.ctl(&["describe", "fn", "probe"]).await;
        let all = parts.iter().all(|part| described.ok().contains(part));
        holds(all, described)
    })
    .await;
}

/// Callers at all ingresses, until told to stop; what went wrong, and how many requests there were.
struct Callers {
    tasks: JoinSet<(u64, Vec<String>)>,
    stop: watch::Sender<bool>,
}

impl Callers {
    fn start(ingresses: &[String], path: &'static str) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for address in ingresses.iter().cycle().take(CALLERS) {
            let address = address.clone();
            let stop = stop.subscribe();
            tasks.spawn(async move {
                let (mut requests, mut failures) = (0, Vec::new());
                while !*stop.borrow() {
                    requests += 1;
                    let answer = web::get(&address, &host("probe"), path).await;
                    if let Err(why) = answer
                        .map_err(|it| it.to_string())
                        .and_then(web::Answer::ok)
                    {
                        failures.push(why);
                    }
                }
                (requests, failures)
            });
        }
        Self { tasks, stop }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for (requests, failures) in self.tasks.join_all().await {
            assert!(requests > 0);
            assert_eq!(failures, [""; 0], "of {requests} requests");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_follow_what_is_asked_for_and_no_request_fails() {
    let swarm = Swarm::builder().controllers(3).agents(2).start().await;
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let spec = json!({ "autoscaling": {
        "minReplicas": 0, "maxReplicas": MOST_COPIES, "target": { "concurrency": 2 },
        "window": "6s", "scaleToZeroDelay": "6s",
    }});
    let path = swarm.manifest("probe", &guests::probe(), spec);
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();

    says(&swarm, "Ready", "ScaledToZero").await;
    // The first requests wait for the copy that they make come.
    let host = host("probe");
    let first = ingresses
        .iter()
        .cycle()
        .take(30)
        .map(|ingress| web::get(ingress, &host, "/slow?ms=10"));
    for answer in join_all(first).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    let callers = Callers::start(&ingresses, "/slow?ms=1000");
    copies(&swarm, "as many copies as may be answer", |ready, _| {
        ready == MOST_COPIES
    })
    .await;
    callers.stop().await;
    // From three to none, and back while the last one ends.
    copies(&swarm, "no copy is wanted any more", |_, wanted| {
        wanted == 0
    })
    .await;
    let callers = Callers::start(&ingresses, "/slow?ms=1000");
    copies(&swarm, "copies are back", |ready, _| ready > 0).await;

    swarm.ctl(&["scale", "fn/probe", "--replicas=1"]).await.ok();
    copies(&swarm, "it is held at one", |ready, wanted| {
        (ready, wanted) == (1, 1)
    })
    .await;
    says(&swarm, "ScalingActive", "ScalingDisabled").await;
    swarm.ctl(&["scale", "fn/probe", "--release"]).await.ok();
    copies(&swarm, "released it follows the load again", |ready, _| {
        ready == MOST_COPIES
    })
    .await;
    callers.stop().await;

    has_events(&swarm, &["ScaledUp", "ScaledDown"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_come_while_requests_wait_for_their_turn() {
    let swarm = Swarm::builder().controllers(1).agents(2).start().await;
    // By their number all of these requests would do with one copy.
    let spec = json!({ "concurrency": 1, "timeout": "60s", "queueTimeout": "60s", "autoscaling": {
        "maxReplicas": MOST_COPIES, "target": { "concurrency": 1000, "queueTime": "20ms" }, "window": "6s",
    }});
    let path = swarm.manifest("probe", &guests::probe(), spec);
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();
    copies(&swarm, "there is one copy", |ready, wanted| {
        (ready, wanted) == (1, 1)
    })
    .await;

    let ingresses = [swarm.controllers[0].ingress_address()];
    let callers = Callers::start(&ingresses, "/slow?ms=200");
    copies(&swarm, "as many copies as may be answer", |ready, _| {
        ready == MOST_COPIES
    })
    .await;
    callers.stop().await;
    has_events(&swarm, &["requests wait for their turn"]).await;
}
