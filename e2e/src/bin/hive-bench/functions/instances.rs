//! From a request to the first bytes of its answer, in this process: admission, an instance, the guest.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_functions::{BoxBody, Function, Runtime, RuntimeOptions};
use http::Request;
use http_body_util::{BodyExt, Empty};

use super::{ASYNC, Aims, compiled, loaded};
use crate::load::percentile;
use crate::swarm::COMPONENT;

const REQUESTS: usize = 20_000;
const WARMING: usize = 500;

/// Of the median, for the small component.
const AIM_MICROS: f64 = 100.0;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    println!("\na request to its first bytes, one after the other, component mapped");
    println!("{:<22} {:>10} {:>10}", "", "p50 us", "p99 us");
    let runtime = Runtime::start(RuntimeOptions::default())?;
    let directory = tempfile::tempdir()?;
    for (name, component, requests) in [
        ("Rust, WASI 0.2", COMPONENT, REQUESTS),
        ("Rust, WASI 0.3", ASYNC, REQUESTS),
    ] {
        let (artifact, _) = compiled(component, directory.path())?;
        let function = loaded(&runtime, &artifact)?;
        let took = tokio::spawn(one_by_one(function, requests)).await??;
        let (p50, p99) = (micros(percentile(&took, 50)), micros(percentile(&took, 99)));
        println!("{name:<22} {p50:>10.1} {p99:>10.1}");
        if component == COMPONENT {
            aims.at_most("instance and first byte, p50", p50, AIM_MICROS, " us");
        }
    }
    Ok(())
}

/// On a thread of the runtime, as in an agent. Sorted.
async fn one_by_one(function: Function, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(requests);
    for number in 0..WARMING + requests {
        let started = Instant::now();
        let mut body = function.handle(request()?).await?.into_body();
        let first = body.frame().await.transpose();
        let elapsed = started.elapsed();
        first.map_err(anyhow::Error::from_boxed)?;
        body.collect().await.map_err(anyhow::Error::from_boxed)?;
        if number >= WARMING {
            took.push(elapsed);
        }
    }
    took.sort_unstable();
    Ok(took)
}

fn request() -> anyhow::Result<Request<BoxBody>> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {});
    Ok(Request::get("http://bench.local/").body(BoxBody::new(body))?)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
