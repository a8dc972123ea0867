//! What callers of a function notice of neighbours that compute without end and take all memory they get:
//! the time to an answer, alone and beside them, with as many callers as keep the machine busy and with one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_functions::{BoxBody, Function, Runtime, RuntimeOptions};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinSet;

use super::{Aims, compiled, loaded};
use crate::load::percentile;
use crate::swarm::COMPONENT;

const PROBE: &[u8] = include_bytes!("../../../../../functions/tests/guests/probe/probe.wasm");

const SPINNERS: usize = 32;
const BOMBS: usize = 16;

/// Of all functions, so that the bombs meet it.
const MEMORY: u64 = 1 << 30;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

/// Beside neighbours, of the p99 without them.
const AIM: f64 = 2.0;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let options = RuntimeOptions {
        memory_bytes: MEMORY,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::start(options)?;
    let directory = tempfile::tempdir()?;
    let hello = loaded(&runtime, &compiled(COMPONENT, directory.path())?.0)?;
    let bad = loaded(&runtime, &compiled(PROBE, directory.path())?.0)?;

    println!(
        "\nneighbours: {SPINNERS} that spin, {BOMBS} that take memory; {ROUNDS} rounds each, in turns"
    );
    println!(
        "{:<32} {:>10} {:>9} {:>9}",
        "", "answers/s", "p50 ms", "p99 ms"
    );
    for (callers, name, pause) in [
        (64, "64 callers", Duration::ZERO),
        (1, "1 caller, 100 times a second", Duration::from_millis(10)),
    ] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.extend(round(&hello, callers, pause).await?);
            let neighbours = neighbours(&bad);
            beside.extend(round(&hello, callers, pause).await?);
            drop(neighbours);
            ended(&bad).await;
        }
        let mut p99 = [0.0; 2];
        for (at, (how, mut took)) in [("alone", alone), ("beside them", beside)]
            .into_iter()
            .enumerate()
        {
            took.sort_unstable();
            let ms = |percent| percentile(&took, percent).as_secs_f64() * 1e3;
            let rate = took.len() as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
            p99[at] = ms(99);
            println!(
                "{:<32} {rate:>10.0} {:>9.3} {:>9.3}",
                format!("{name}, {how}"),
                ms(50),
                p99[at]
            );
        }
        aims.at_most(
            &format!("p99 beside bad neighbours, {name}"),
            p99[1] / p99[0],
            AIM,
            "x",
        );
    }
    Ok(())
}

/// As many as there are at a time, each followed by the next, until dropped.
fn neighbours(bad: &Function) -> JoinSet<()> {
    let targets =
        std::iter::repeat_n("/spin", SPINNERS).chain(std::iter::repeat_n("/memory?mib=96", BOMBS));
    targets
        .map(|target| {
            let bad = bad.clone();
            async move {
                loop {
                    // Most of them are stopped.
                    if let Ok(response) = bad.handle(request(target)).await {
                        let _ = response.into_body().collect().await;
                    }
                }
            }
        })
        .collect()
}

async fn ended(bad: &Function) {
    while bad.usage().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn round(hello: &Function, callers: usize, pause: Duration) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + ROUND;
    let mut calling: JoinSet<anyhow::Result<Vec<Duration>>> = (0..callers)
        .map(|_| {
            let hello = hello.clone();
            async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let started = Instant::now();
                    let body = hello.handle(request("/")).await?.into_body();
                    body.collect().await.map_err(anyhow::Error::from_boxed)?;
                    took.push(started.elapsed());
                    if pause.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok(took)
            }
        })
        .collect();
    let mut all = Vec::new();
    while let Some(took) = calling.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

fn request(path_and_query: &'static str) -> Request<BoxBody> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {});
    let mut request = Request::new(BoxBody::new(body));
    *request.uri_mut() = Uri::from_static(path_and_query);
    request
}
