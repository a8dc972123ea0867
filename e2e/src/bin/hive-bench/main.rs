//! Measures a swarm on this machine and prints a table; `hive-bench control-plane` measures the
//! controllers' store and API against etcd instead, `hive-bench agents` three controllers with ten thousand
//! simulated agents. Of a swarm: throughput and latency on an agent's local
//! address and through the ingress, against `wasmtime serve` where it is installed; cold start;
//! apply to first response; what idle processes cost.
//!
//! Rounds of the contestants are interleaved and medians compared, so that a machine that slows
//! down slows all of them. Figures of one run compare; figures of different days do not.

mod agents;
mod control_plane;
mod load;
mod process;
mod swarm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use load::{Round, Target, median, round};
use process::Process;
use swarm::{COMPONENT, Swarm};

/// As many as a busy small site sees at once.
const CONNECTIONS: usize = 64;

const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// For what happens once: starts, applies.
const REPEATS: usize = 5;

const IDLE: Duration = Duration::from_secs(30);

/// Where `wasmtime serve` listens, if it is there.
const PEER_PORT: u16 = 18_999;

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
        Some((other, _)) => {
            anyhow::bail!("{other:?} is not known: there are `control-plane` and `agents`")
        }
    }
    let hive = beside("hive")?;
    println!("hive: {}", hive.display());
    let quiet = Swarm::start(&hive, 18_700, &["--no-example"])?;
    idle(&quiet).await?;
    shipped_agent(&quiet).await?;
    drop(quiet);
    let swarm = Swarm::start(&hive, 18_800, &[])?;
    throughput(&swarm).await?;
    cold_start(&swarm).await?;
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
    let Some(program) = std::env::var_os("HIVE_AGENT") else {
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

async fn throughput(swarm: &Swarm) -> anyhow::Result<()> {
    let mut contestants = vec![
        ("agent, local address".to_owned(), swarm.local()?),
        ("ingress, over QUIC".to_owned(), swarm.ingress()),
    ];
    let peer = peer(swarm).await?;
    if let Some((_, target)) = &peer {
        contestants.push(("wasmtime serve".to_owned(), target.clone()));
    }
    println!(
        "\nhello (Rust, WASI 0.2), {CONNECTIONS} connections, medians of {ROUNDS} interleaved rounds of {} s",
        ROUND.as_secs()
    );
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); contestants.len()];
    for (_, target) in &contestants {
        round(target, CONNECTIONS, Duration::from_secs(1)).await?;
    }
    for _ in 0..ROUNDS {
        for (index, (name, target)) in contestants.iter().enumerate() {
            let measured = round(target, CONNECTIONS, ROUND)
                .await
                .with_context(|| name.clone())?;
            rounds[index].push(measured);
        }
    }
    let medians: Vec<Round> = rounds.iter().map(|rounds| median(rounds)).collect();
    println!(
        "{:<22} {:>12} {:>9} {:>9}",
        "", "requests/s", "p50 ms", "p99 ms"
    );
    for ((name, _), figures) in contestants.iter().zip(&medians) {
        println!(
            "{name:<22} {:>12.0} {:>9.2} {:>9.2}",
            figures.requests_per_second,
            ms(figures.p50),
            ms(figures.p99)
        );
    }
    let ratio =
        |a: usize, b: usize| medians[a].requests_per_second / medians[b].requests_per_second;
    println!("ingress / local: {:.2}x", ratio(1, 0));
    match peer {
        Some(_) => println!(
            "local / wasmtime serve: {:.2}x requests/s, p99 {:.2}x",
            ratio(0, 2),
            medians[0].p99.as_secs_f64() / medians[2].p99.as_secs_f64()
        ),
        None => println!(
            "SKIPPED: wasmtime serve is not installed (cargo install --locked wasmtime-cli@48.0.8, and put it on PATH or name it in WASMTIME)"
        ),
    }
    Ok(())
}

/// `wasmtime serve` of the same component with its pooling flags.
async fn peer(swarm: &Swarm) -> anyhow::Result<Option<(Process, Target)>> {
    let program =
        std::env::var_os("WASMTIME").map_or_else(|| PathBuf::from("wasmtime"), PathBuf::from);
    if process::output(&program, &["--version"]).is_err() {
        return Ok(None);
    }
    let component = swarm.write("hello.wasm", COMPONENT)?;
    let address = format!("127.0.0.1:{PEER_PORT}");
    let arguments = [
        "serve",
        "-Scli",
        "-Opooling-allocator=y",
        "--addr",
        &address,
        component.to_str().context("path")?,
    ];
    let process = Process::start(&program, &arguments)?;
    let target = Target {
        address: address.parse()?,
        host: "localhost".into(),
    };
    swarm::answers(&target, Duration::from_secs(30)).await?;
    Ok(Some((process, target)))
}

async fn cold_start(swarm: &Swarm) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        times.push(swarm.cold_start().await?);
    }
    times.sort_unstable();
    println!(
        "\nagent started with its artifact on disk, to the first response: median {:.0} ms of {REPEATS}",
        ms(times[REPEATS / 2])
    );
    Ok(())
}

async fn apply(swarm: &Swarm) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for number in 0..REPEATS {
        let name = format!("fresh-{number}");
        let manifest = swarm.fresh_function(&name, number)?;
        let started = Instant::now();
        swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
        swarm::answers(&swarm.ingress_of(&name), Duration::from_secs(60)).await?;
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
