//! A node that has an artifact on its disk and nothing in memory: to its first response, in parts, and
//! from the start of the agent's process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hive_functions::{BoxBody, Runtime, RuntimeOptions, VerifiedArtifact};
use http::Request;
use http_body_util::{BodyExt, Empty};

use super::{ASYNC, Aims, compiled, loaded};
use crate::process::Process;
use crate::swarm::{self, COMPONENT, Swarm};

const PORT: u16 = 18_600;
const REPEATS: usize = 5;

/// For an engine of 18 MB to be compiled on two cores.
const COMPILED: Duration = Duration::from_secs(180);

/// Has js-fetch-hello.wasm and py-hello.wasm, as the tests of components use them.
const FIXTURES: &str = "HIVE_FIXTURES";

struct Case {
    name: &'static str,
    component: Vec<u8>,
    /// Milliseconds, from an artifact on disk to the first response; and of the process.
    aim: f64,
}

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let cases = cases()?;
    let agent = match swarm::shipped_agent() {
        Some(agent) => agent.display().to_string(),
        None => "hive agent".to_owned(),
    };
    println!(
        "\na node with the artifact on disk, to the first response; medians of {REPEATS}, in ms; its agent is {agent}"
    );
    println!(
        "{:<12} {:>8} {:>9} {:>8} {:>11} {:>8} {:>14}",
        "", "MiB", "check", "map", "first byte", "all", "agent started"
    );
    let hive = crate::beside("hive")?;
    let swarm = Swarm::start(&hive, PORT, &["--agents", "1", "--no-example"])?;
    let mut agent = None;
    for case in cases {
        let parts = parts(&case.component).await?;
        let started = started(&swarm, &case, &mut agent).await?;
        println!(
            "{:<12} {:>8.1} {:>9.2} {:>8.2} {:>11.2} {:>8.2} {:>14.1}",
            case.name,
            parts.bytes as f64 / 1048576.0,
            ms(parts.hash),
            ms(parts.map),
            ms(parts.first),
            ms(parts.hash + parts.map + parts.first),
            ms(started),
        );
        let what = format!(
            "cold node, {}, agent's start to the first response",
            case.name
        );
        aims.at_most(&what, ms(started), case.aim, " ms");
    }
    Ok(())
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let case = |name, component: &[u8], aim| Case {
        name,
        component: component.to_vec(),
        aim,
    };
    let mut cases = vec![
        case("Rust", COMPONENT, 10.0),
        case("Rust-async", ASYNC, 10.0),
    ];
    let Some(fixtures) = std::env::var_os(FIXTURES).map(PathBuf::from) else {
        println!(
            "SKIPPED: JavaScript and Python ({FIXTURES} names no directory with their components)"
        );
        return Ok(cases);
    };
    for (name, file) in [
        ("JavaScript", "js-fetch-hello.wasm"),
        ("Python", "py-hello.wasm"),
    ] {
        let path = fixtures.join(file);
        let component =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        cases.push(case(name, &component, 50.0));
    }
    Ok(cases)
}

struct Parts {
    bytes: u64,
    hash: Duration,
    map: Duration,
    first: Duration,
}

/// In this process: each time mapped anew, from pages that the system has.
async fn parts(component: &[u8]) -> anyhow::Result<Parts> {
    let directory = tempfile::tempdir()?;
    let (artifact, digest) = compiled(component, directory.path())?;
    let path = artifact.path().to_owned();
    let runtime = Runtime::start(RuntimeOptions::default())?;
    let (mut hash, mut map, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let began = Instant::now();
        let artifact = VerifiedArtifact::verify(&path, &digest)?;
        hash.push(began.elapsed());
        let began = Instant::now();
        let function = loaded(&runtime, &artifact)?;
        map.push(began.elapsed());
        let began = Instant::now();
        let body = Empty::<Bytes>::new().map_err(|never| match never {});
        let request = Request::get("http://bench.local/").body(BoxBody::new(body))?;
        let response = function.handle(request).await?;
        let mut body = response.into_body();
        body.frame()
            .await
            .transpose()
            .map_err(anyhow::Error::from_boxed)?;
        first.push(began.elapsed());
        body.collect().await.map_err(anyhow::Error::from_boxed)?;
    }
    Ok(Parts {
        bytes: size(&path)?,
        hash: median(hash),
        map: median(map),
        first: median(first),
    })
}

/// From the start of an agent that has nothing but this function. The last one goes on.
async fn started(
    swarm: &Swarm,
    case: &Case,
    agent: &mut Option<Process>,
) -> anyhow::Result<Duration> {
    let function = case.name.to_lowercase();
    let manifest = swarm.function(&function, &case.component)?;
    let manifest = manifest.to_str().context("path")?;
    swarm.hivectl(&["apply", "-f", manifest])?;
    swarm::answers(&swarm.ingress(&function)?, COMPILED).await?;
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        drop(agent.take());
        let (took, started) = swarm.cold_start(&function).await?;
        times.push(took);
        *agent = Some(started);
    }
    swarm.hivectl(&["delete", "-f", manifest])?;
    Ok(median(times))
}

fn size(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
