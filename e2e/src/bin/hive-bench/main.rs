//! Measures a swarm on this machine and prints tables. Without a word: what idle processes cost, and
//! apply to first response. `hive-bench functions` measures functions on an agent, against `wasmtime
//! serve`; `hive-bench control-plane` the controllers' store and API against etcd; `hive-bench agents`
//! three controllers with ten thousand simulated agents; `hive-bench tunnels` and `hive-bench http-tunnel`
//! tunnels against rathole, with bore beside them.
//!
//! Rounds of the contestants are interleaved and medians compared, so that a machine that slows
//! down slows all of them. Figures of one run compare; figures of different days do not.

mod agents;
mod aims;
mod control_plane;
mod functions;
mod http_tunnel;
mod load;
mod process;
mod swarm;
mod tunnels;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use swarm::{Swarm, fresh_component};

/// For what happens once: starts, applies.
const REPEATS: usize = 5;

const IDLE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!(
            "warning: a debug build measures nothing; use `cargo run --release -p hive-e2e --bin hive-bench`"
        );
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        None => {}
        Some((word, parts)) if word == "control-plane" => return control_plane::run(parts).await,
        Some((word, count)) if word == "agents" => return agents::run(count).await,
        Some((word, parts)) if word == "functions" => return functions::run(parts).await,
        Some((word, parts)) if word == "tunnels" => return tunnels::run(parts).await,
        Some((word, parts)) if word == "http-tunnel" => return http_tunnel::run(parts).await,
        Some((other, _)) => anyhow::bail!(
            "{other:?} is not known: there are `functions`, `control-plane`, `agents`, `tunnels` and `http-tunnel`"
        ),
    }
    let hive = beside("hive")?;
    println!("hive: {}", hive.display());
    let quiet = Swarm::start(&hive, 18_700, &["--no-example"])?;
    idle(&quiet).await?;
    shipped_agent(&quiet).await?;
    drop(quiet);
    let swarm = Swarm::start(&hive, 18_800, &[])?;
    apply(&swarm).await
}

/// Another binary of this build.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        anyhow::bail!(
            "{} is missing: build it with `cargo build --release`",
            path.display()
        );
    }
    Ok(path)
}

async fn idle(swarm: &Swarm) -> anyhow::Result<()> {
    println!("\nidle, no functions, over {} s", IDLE.as_secs());
    println!(
        "{:<14} {:>10} {:>12} {:>12}",
        "process", "RSS MiB", "own MiB", "CPU % core"
    );
    let members = swarm.members()?;
    // What starting cost is not what idling costs.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before: Vec<Duration> = members
        .iter()
        .map(|(_, pid)| process::cpu(*pid))
        .collect::<Result<_, _>>()?;
    tokio::time::sleep(IDLE).await;
    for ((name, pid), before) in members.iter().zip(before) {
        let used = process::cpu(*pid)?.saturating_sub(before);
        let (rss, own) = process::memory(*pid)?;
        println!(
            "{name:<14} {:>10.1} {:>12.1} {:>12.2}",
            rss as f64 / 1024.0,
            own as f64 / 1024.0,
            100.0 * used.as_secs_f64() / IDLE.as_secs_f64()
        );
    }
    Ok(())
}

/// The agent as it is shipped, small and alone, in the place of one of the swarm's.
async fn shipped_agent(swarm: &Swarm) -> anyhow::Result<()> {
    let Some(program) = swarm::shipped_agent() else {
        println!(
            "SKIPPED: the shipped agent (cargo build --profile dist -p hive-agent, and name it in HIVE_AGENT)"
        );
        return Ok(());
    };
    let agent = swarm.restart_agent(Path::new(&program), 1).await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let (rss, own) = process::memory(agent.pid())?;
    let size = std::fs::metadata(&program)?.len();
    println!(
        "{:<14} {:>10.1} {:>12.1}   (profile dist, file {:.1} MiB)",
        "shipped agent",
        rss as f64 / 1024.0,
        own as f64 / 1024.0,
        size as f64 / 1048576.0
    );
    Ok(())
}

async fn apply(swarm: &Swarm) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for number in 0..REPEATS {
        let name = format!("fresh-{number}");
        let component = fresh_component(&format!("{name} {:?}", Instant::now()))?;
        let manifest = swarm.function(&name, &component)?;
        let started = Instant::now();
        swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
        swarm::answers(&swarm.ingress(&name)?, Duration::from_secs(60)).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!(
        "hivectl apply of a new component to the first response through the ingress: median {:.0} ms of {REPEATS} (upload, compilation, placement, fetch)",
        ms(times[REPEATS / 2])
    );
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
