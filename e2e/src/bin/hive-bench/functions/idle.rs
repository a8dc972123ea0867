//! Nearly a thousand functions on one agent, each of a component of its own, that nobody asks for anything.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Aims;
use crate::process;
use crate::swarm::{self, Swarm, fresh_component};

const PORT: u16 = 18_500;
/// With the example there is room for them: a node takes a thousand copies.
const FUNCTIONS: usize = 990;

/// For as many components to be compiled.
const PATIENCE: Duration = Duration::from_secs(900);
const IDLE: Duration = Duration::from_secs(30);

/// Five minutes after the last request an agent gives back a function's code, and looks for such a quarter of that time.
const UNUSED: Duration = Duration::from_secs(400);

const AIM_KB: f64 = 100.0;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let hive = crate::beside("hive")?;
    let swarm = Swarm::start(&hive, PORT, &["--controllers", "1", "--agents", "1"])?;
    // With the runtime that the first function needs.
    swarm::answers(&swarm.local("hello")?, PATIENCE).await?;
    let agent = swarm.agent(1)?;
    let before = process::memory(agent)?;

    let mut manifests = String::new();
    for number in 0..FUNCTIONS {
        let file = format!("idle-{number}.wasm");
        swarm.write(&file, &fresh_component(&format!("idle {number}"))?)?;
        writeln!(
            manifests,
            "apiVersion: hive.dev/v1\nkind: Function\nmetadata:\n  name: idle-{number}\nspec:\n  artifact:\n    path: {file}\n  resources:\n    memory: 8Mi\n    cpu: 1m\n---"
        )?;
    }
    let manifest = swarm.write("idle.yaml", manifests.as_bytes())?;
    let began = Instant::now();
    swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
    for number in 0..FUNCTIONS {
        let target = swarm.local(&format!("idle-{number}"))?;
        swarm::answers(&target, PATIENCE).await?;
    }
    println!(
        "\n{FUNCTIONS} functions of as many components on one agent: applied, compiled and asked once each in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let each = |now: (u64, u64)| {
        let one =
            |now: u64, before: u64| now.saturating_sub(before) as f64 * 1.024 / FUNCTIONS as f64;
        (one(now.0, before.0), one(now.1, before.1))
    };
    let (rss, own) = each(process::memory(agent)?);
    println!("each takes {rss:.1} KB of RSS, of it {own:.1} KB its own, just after its request");
    tokio::time::sleep(UNUSED).await;
    let cpu = process::cpu(agent)?;
    tokio::time::sleep(IDLE).await;
    let cpu = process::cpu(agent)? - cpu;
    let (rss, own) = each(process::memory(agent)?);
    println!(
        "{rss:.1} KB, of it {own:.1} KB its own, when nobody had asked for {} s; the agent uses {:.2} % of a core",
        UNUSED.as_secs(),
        100.0 * cpu.as_secs_f64() / IDLE.as_secs_f64()
    );
    aims.at_most("idle functions, RSS each", rss, AIM_KB, " KB");
    Ok(())
}
