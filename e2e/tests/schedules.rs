//! Functions are called by time alone: once a minute in the whole swarm, also while its leader dies.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use hive_e2e::swarm::{function_path, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests};
use kube::Client;
use serde_json::{Value, json};

/// The next minute, and what a machine under load takes besides.
const A_MINUTE: Duration = Duration::from_secs(60);

async fn schedule(client: &Client) -> Result<Value, String> {
    let path = function_path("ticker");
    let function = object(client, &path)
        .await
        .map_err(|error| error.to_string())?;
    Ok(function["status"]["schedules"][0].clone())
}

/// Waits for a call that ended well after `last`; its time.
async fn called_after(client: &Client, last: &str) -> String {
    until("a call is made", A_MINUTE + PATIENCE, async || {
        let status = schedule(client).await?;
        let time = status["lastSuccessfulTime"].as_str().unwrap_or_default();
        match time > last && status["active"].is_null() {
            true => Ok(time.to_owned()),
            false => Err(status.to_string()),
        }
    })
    .await
}

/// From one time to another, of the same day or the next.
fn minutes(from: &str, to: &str) -> usize {
    const DAY: usize = 24 * 60;
    let of_day = |time: &str| -> usize {
        let number = |text: &str| text.parse::<usize>().unwrap();
        60 * number(&time[11..13]) + number(&time[14..16])
    };
    (DAY + of_day(to) - of_day(from)) % DAY
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_calls_once_a_minute_whoever_leads() {
    let mut swarm = Swarm::builder().agents(2).start().await;
    let spec = |suspend: bool| {
        let schedule = |name: &str, path: &str| {
            json!({
                "name": name,
                "schedule": "* * * * *",
                "timeZone": "Europe/Berlin",
                "path": path,
                "suspend": suspend,
            })
        };
        let schedules = [
            schedule("minutely", "/log?text=tick"),
            schedule("failing", "/status?code=500"),
        ];
        json!({ "replicas": 2, "schedules": schedules })
    };
    swarm.deploy("ticker", &guests::probe(), spec(false)).await;
    let leader = swarm.leader().await;
    let client = swarm.client_of((leader + 1) % 3).await;
    let mut times = vec![called_after(&client, "").await];

    swarm.controllers[leader].member.kill9().await;
    times.push(called_after(&client, &times[0]).await);
    let different: BTreeSet<&String> = times.iter().collect();
    assert_eq!(different.len(), 2, "{times:?}");
    assert!(times.iter().all(|time| time.ends_with(":00Z")), "{times:?}");

    // Each of them once, on all nodes together; a slow machine may be at the next one already.
    let lines = swarm.ctl(&["logs", "function/ticker"]).await;
    let ticks = lines
        .ok()
        .lines()
        .filter(|line| line.contains("tick 0 to stdout"))
        .count();
    let last = called_after(&client, &times[0]).await;
    let due = 1 + minutes(&times[0], &last);
    assert!(
        (times.len()..=due).contains(&ticks),
        "{ticks} from {} to {last}: {lines}",
        times[0]
    );

    until("the failed call is told", PATIENCE, async || {
        let events = swarm.ctl(&["get", "events"]).await;
        let said = "schedule failing: answered 500 Internal Server Error";
        holds(events.ok().contains(said), events)
    })
    .await;

    swarm.deploy("ticker", &guests::probe(), spec(true)).await;
    until("the suspension is noticed", PATIENCE, async || {
        let status = schedule(&client).await?;
        let said = status["observed"].as_str().unwrap_or_default().to_owned();
        holds(said.ends_with("suspended"), status)
    })
    .await;
}
