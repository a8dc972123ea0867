//! A thousand tunnels, and five thousand connections on which nothing is said, through one controller: what they
//! take of the controller's memory and of the agents'.
//!
//! They are spread over thirty agents: a link would carry nearly all of them, but no node of a swarm has them all.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use hive_e2e::ports::free_row;
use tokio::net::TcpStream;

use super::contestant::{Contestant, Role};
use super::target::Target;
use super::{PATIENCE, hive, until};
use crate::aims::Aims;
use crate::process;
use crate::swarm::Swarm;

const PORT: u16 = 18_200;

const TUNNELS: u16 = 1_000;
/// Of each tunnel: 5,000 in all.
const CONNECTIONS: usize = 5;
/// At most 170 connections each.
const AGENTS: usize = 30;

/// In one manifest.
const AT_ONCE: usize = 200;
/// Clients that connect at a time.
const CLIENTS: usize = 32;

/// For what was set off to end, before memory is read.
const SETTLE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(30);

const AIM_MB: f64 = 200.0;

/// KiB of the controller, and of all agents together: resident, and their own.
struct Weights {
    controller: (u64, u64),
    agents: (u64, u64),
}

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let hive = crate::beside("hive")?;
    let agents = AGENTS.to_string();
    let flags = ["--controllers", "1", "--agents", &agents, "--no-example"];
    let swarm = Swarm::start(&hive, PORT, &flags)?;
    let target = Target::start().await?;
    println!(
        "\n{TUNNELS} tunnels, {} idle connections, one controller, {AGENTS} agents",
        connections()
    );
    println!(
        "{:<34} {:>15} {:>9} {:>13} {:>9}",
        "", "controller MiB", "own MiB", "agents MiB", "own MiB"
    );
    tokio::time::sleep(SETTLE).await;
    let empty = weigh(&swarm)?;
    tell("nothing declared", &empty);

    let tunnels = declare(&swarm, target.port()).await?;
    tokio::time::sleep(SETTLE).await;
    let declared = weigh(&swarm)?;
    tell("tunnels declared", &declared);

    let began = Instant::now();
    let open = connect(&tunnels).await?;
    let took = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let connected = weigh(&swarm)?;
    tell("connections open, idle", &connected);
    let cpu = processor_time(&swarm)?;
    tokio::time::sleep(IDLE).await;
    let cpu = processor_time(&swarm)?.saturating_sub(cpu);

    let count = open.len() as f64;
    drop(open);
    target.quiet().await?;
    tokio::time::sleep(SETTLE).await;
    tell("connections closed", &weigh(&swarm)?);

    let each = |after: u64, before: u64, of: f64| after.saturating_sub(before) as f64 * 1.024 / of;
    println!(
        "a tunnel takes {:.1} KB of the controller; a connection {:.1} KB of it and {:.1} KB of the agents'; \
         they were opened within {:.1} s; all processes use {:.1} % of a core beside them",
        each(
            declared.controller.0,
            empty.controller.0,
            f64::from(TUNNELS)
        ),
        each(connected.controller.0, declared.controller.0, count),
        each(connected.agents.0, declared.agents.0, count),
        took.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / IDLE.as_secs_f64()
    );
    aims.at_most(
        &format!(
            "controller with {TUNNELS} tunnels and {} idle connections, RSS",
            connections()
        ),
        connected.controller.0 as f64 * 1.024 / 1000.0,
        AIM_MB,
        " MB",
    );
    Ok(())
}

fn connections() -> usize {
    usize::from(TUNNELS) * CONNECTIONS
}

/// Each has a port of its own, and they take turns with the agents.
async fn declare(swarm: &Swarm, target: u16) -> anyhow::Result<Vec<Contestant>> {
    let first = free_row(TUNNELS);
    let mut tunnels = Vec::new();
    let mut manifests = Vec::new();
    for (index, port) in (first..first + TUNNELS).enumerate() {
        let name = format!("idle-{index}");
        manifests.push(hive::tcp(&name, port, 1 + index % AGENTS, target));
        let address = ([127, 0, 0, 1], port).into();
        tunnels.push(Contestant::new(&name, Role::Hive, address, Vec::new(), ()));
    }
    for (part, manifests) in manifests.chunks(AT_ONCE).enumerate() {
        let file = swarm.write(
            &format!("tunnels-{part}.yaml"),
            manifests.concat().as_bytes(),
        )?;
        swarm.hivectl(&["apply", "-f", file.to_str().context("path")?])?;
    }
    for tunnel in &tunnels {
        opened(tunnel).await?;
    }
    Ok(tunnels)
}

/// The connections of all tunnels, each of which has carried a byte.
async fn connect(tunnels: &[Contestant]) -> anyhow::Result<Vec<TcpStream>> {
    let wanted = (0..CONNECTIONS).flat_map(|_| tunnels);
    let open: Vec<TcpStream> = stream::iter(wanted.map(opened))
        .buffer_unordered(CLIENTS)
        .try_collect()
        .await?;
    if open.len() != connections() {
        bail!("{} connections instead of {}", open.len(), connections());
    }
    Ok(open)
}

/// A link may be full of checks for a moment.
async fn opened(tunnel: &Contestant) -> anyhow::Result<TcpStream> {
    let what = format!("a connection through {}", tunnel.name);
    until(&what, PATIENCE, async || tunnel.open_echo().await).await
}

fn weigh(swarm: &Swarm) -> anyhow::Result<Weights> {
    let mut weights = Weights {
        controller: (0, 0),
        agents: (0, 0),
    };
    for (name, pid) in swarm.members()? {
        let (rss, own) = process::memory(pid)?;
        let of = match name.starts_with("node-") {
            true => &mut weights.agents,
            false => &mut weights.controller,
        };
        of.0 += rss;
        of.1 += own;
    }
    Ok(weights)
}

fn processor_time(swarm: &Swarm) -> anyhow::Result<Duration> {
    let members = swarm.members()?;
    members.iter().map(|(_, pid)| process::cpu(*pid)).sum()
}

/// Of agents it sums up what they share as often as they share it; their own is theirs alone.
fn tell(when: &str, weights: &Weights) {
    let mebibytes = |kibibytes: u64| kibibytes as f64 / 1024.0;
    println!(
        "{when:<34} {:>15.1} {:>9.1} {:>13.1} {:>9.1}",
        mebibytes(weights.controller.0),
        mebibytes(weights.controller.1),
        mebibytes(weights.agents.0),
        mebibytes(weights.agents.1)
    );
}
