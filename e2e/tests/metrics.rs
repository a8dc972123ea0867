//! What functions did, as Prometheus and `hivectl top functions` see it: every request once, whichever
//! node answered and whichever controller heard of it.
#![allow(clippy::unwrap_used)]

use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests};
use http::Request;
use serde_json::json;

const GOOD: u64 = 40;
const TRAPS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_once_and_counters_never_fall() {
    let mut swarm = Swarm::builder().agents(2).start().await;
    let spec = json!({ "replicas": 2 });
    let manifest = swarm.manifest("probe", &guests::probe(), spec);
    let manifest = manifest.display().to_string();
    swarm.ctl(&["apply", "--wait", "-f", &manifest]).await.ok();
    // What is refused on the way reaches no function, so that it counts nowhere.
    until("the ingress knows of it", PATIENCE, async || {
        swarm.invoke("probe", "/slow?ms=30").await.ok()
    })
    .await;
    for _ in 1..GOOD {
        assert_eq!(swarm.invoke("probe", "/slow?ms=30").await.status, 200);
    }
    for _ in 0..TRAPS {
        assert_eq!(swarm.invoke("probe", "/trap").await.status, 502);
    }
    let mut steps = Steps::new();

    steps
        .run("the controllers' metrics add up to what was asked", async {
            until("all is told", PATIENCE, async || {
                let mut texts = Vec::new();
                for controller in 0..swarm.controllers.len() {
                    texts.push(metrics(&swarm, controller).await?);
                }
                let sum =
                    |series: &str| texts.iter().map(|text| value(text, series)).sum::<f64>() as u64;
                let found = [
                    sum("hive_function_requests_total{NAMES}"),
                    sum("hive_function_responses_total{NAMES,code=\"2xx\"}"),
                    sum("hive_function_errors_total{NAMES,reason=\"Trap\"}"),
                    sum("hive_function_request_duration_seconds_count{NAMES}"),
                ];
                let expected = [GOOD + TRAPS, GOOD, TRAPS, GOOD + TRAPS];
                assert!(found[0] <= expected[0], "counted more than once: {found:?}");
                // Those that slept for 30 ms, and no other.
                let quick =
                    sum("hive_function_request_duration_seconds_bucket{NAMES,le=\"0.025\"}");
                assert!(quick <= TRAPS, "{quick}");
                holds(found == expected, format!("{found:?}"))
            })
            .await;
        })
        .await;
    steps
        .run("top shows rates and times", async {
            until("they are of the last minute", PATIENCE, async || {
                let top = swarm.ctl(&["top", "functions", "--no-headers"]).await;
                let cells: Vec<&str> = top.ok().split_whitespace().collect();
                let [name, nodes, requests, errors, _, p99, ..] = cells[..] else {
                    return Err(top.to_string());
                };
                let is_rate = |cell: &str| cell.parse::<f64>().is_ok_and(|rate| rate > 0.0);
                let all = (name, nodes) == ("probe", "2")
                    && is_rate(requests)
                    && is_rate(errors)
                    && p99 != "-";
                holds(all, &top.stdout)
            })
            .await;
        })
        .await;
    steps
        .run("no counter falls when a controller dies", async {
            let mut before = Vec::new();
            for controller in [1, 2] {
                before.push(requests(&swarm, controller).await);
            }
            swarm.controllers[0].member.kill9().await;
            let address = swarm.controllers[1].ingress_address();
            let host = hive_e2e::swarm::host("probe");
            until("somebody hears of new requests", PATIENCE, async || {
                // The nodes' sessions may be on their way still.
                let _ = hive_e2e::web::get(&address, &host, "/").await;
                let (one, other) = (requests(&swarm, 1).await, requests(&swarm, 2).await);
                assert!(
                    one >= before[0] && other >= before[1],
                    "{one} {other} {before:?}"
                );
                holds(
                    one + other > before[0] + before[1],
                    format!("{one} {other}"),
                )
            })
            .await;
        })
        .await;
    steps.finish();
}

async fn metrics(swarm: &Swarm, controller: usize) -> Result<String, String> {
    let client = swarm.client_of(controller).await;
    let request = Request::get("/metrics/functions").body(Vec::new()).unwrap();
    client
        .request_text(request)
        .await
        .map_err(|error| error.to_string())
}

async fn requests(swarm: &Swarm, controller: usize) -> f64 {
    let text = until("it answers", PATIENCE, async || {
        metrics(swarm, controller).await
    })
    .await;
    value(&text, "hive_function_requests_total{NAMES}")
}

/// Of a series of the probe; 0 where there is none.
fn value(text: &str, series: &str) -> f64 {
    let series = series.replace("NAMES", "namespace=\"default\",function=\"probe\"");
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(&series)?.trim().parse().ok());
    found.unwrap_or(0.0)
}
