//! `hive-bench tunnels [PART ...]`: what a TCP tunnel costs, against rathole in both of its encrypted modes, with
//! bore (which encrypts nothing) and a direct connection beside them.
//!
//! The clients and what they reach are in this process; a contestant is what stands between. All of it shares one
//! machine: figures of one run compare.

mod bore;
mod connects;
mod contestant;
mod hive;
mod idle;
mod latency;
pub mod rathole;
mod target;
mod throughput;

use std::time::{Duration, Instant};

use anyhow::bail;

use super::aims::Aims;
use contestant::Contestant;
use target::Target;

const PARTS: [&str; 4] = ["throughput", "latency", "connects", "idle"];

const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// For whatever was started to carry its first byte.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let parts: Vec<&str> = match arguments {
        [] => PARTS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        bail!("{unknown:?} is no part: there are {}", PARTS.join(", "));
    }
    raise_open_files();
    let mut aims = Aims::default();
    if parts.iter().any(|part| *part != "idle") {
        let target = Target::start().await?;
        let contestants = contestants(&target).await?;
        for part in &parts {
            match *part {
                "throughput" => throughput::run(&contestants, &target, &mut aims).await?,
                "latency" => latency::run(&contestants, &mut aims).await?,
                "connects" => connects::run(&contestants, &target, &mut aims).await?,
                _ => {}
            }
        }
    }
    if parts.contains(&"idle") {
        idle::run(&mut aims).await?;
    }
    aims.print();
    Ok(())
}

/// The direct way first, then Hive, then whoever else is installed; each carries bytes already.
async fn contestants(target: &Target) -> anyhow::Result<Vec<Contestant>> {
    let mut contestants = vec![Contestant::direct(target.address())];
    contestants.push(hive::start(target.port())?.carries().await?);
    for peer in rathole::start(target.port())? {
        contestants.push(peer.carries().await?);
    }
    if let Some(bore) = bore::start(target.port()).await? {
        contestants.push(bore.carries().await?);
    }
    println!(
        "\nHive is one controller and one agent, linked by QUIC; rathole and bore a server and a client each, linked by TCP"
    );
    Ok(contestants)
}

/// This process has both ends of every connection.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, it runs with what it has. What is started from here has the same.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Looks until it is so.
async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {within:?}")));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Of what a round found.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
