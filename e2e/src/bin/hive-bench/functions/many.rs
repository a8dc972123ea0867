//! Ten thousand functions on three controllers, twenty-five simulated agents and a real one: how long a function that
//! is applied among them takes to run, and what they cost while nothing happens.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::Aims;
use crate::agents::fleet::Fleet;
use crate::agents::follow::Follow;
use crate::control_plane::System;
use crate::control_plane::hive::Hive;
use crate::load::percentile;
use crate::process;
use crate::swarm::fresh_component;

const FUNCTIONS: usize = 10_000;

/// In one manifest.
const AT_ONCE: usize = 200;

/// Of as many components: to compile ten thousand would measure the compiler.
const COMPONENTS: usize = 10;
/// Each has room for 409 of these, the real one for a thousand.
const SIMULATED: usize = 25;

/// One after another, each tenth of a component that nobody has seen.
const APPLIED: usize = 100;
const FRESH: usize = 10;

/// For what was set off to end, before quiet is measured.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(900);

const APPLY_AIM_S: f64 = 5.0;
const IDLE_AIM_PERCENT: f64 = 0.5;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let mut hive = Hive::start().await?;
    let token = hive.swarm.token(&["--uses", "0"]).await;
    let mut agent = hive.swarm.new_agent("real", &token);
    agent.member.start();
    let links: Vec<_> = hive.swarm.controllers.iter().map(|c| c.link).collect();
    let fleet = Fleet::join(SIMULATED, &token, &links).await?;
    fleet.all_held(None, PATIENCE).await?;
    let path = "/apis/hive.dev/v1/namespaces/default/assignments";
    let assignments = Follow::open(&hive, 0, path, |assignment| {
        assignment["status"]["phase"] == "Ready"
    })
    .await?;

    let mut components = Vec::new();
    for number in 0..COMPONENTS {
        components.push(component(&hive, &format!("of-many-{number}"))?);
    }
    let numbers: Vec<usize> = (0..FUNCTIONS).collect();
    let mut files = Vec::new();
    for part in numbers.chunks(AT_ONCE) {
        let mut manifests = String::new();
        for number in part {
            let name = format!("many-{number:05}");
            manifests += &manifest(&name, &components[number % COMPONENTS])?;
        }
        files.push(hive.swarm.path().join(format!("many-{}.yaml", files.len())));
        std::fs::write(&files[files.len() - 1], manifests)?;
    }
    let began = Instant::now();
    for file in &files {
        apply(&hive, file).await;
    }
    let applied = began.elapsed();
    assignments.good("many-", FUNCTIONS, PATIENCE).await?;
    println!(
        "\n{FUNCTIONS} functions of {COMPONENTS} components on {SIMULATED} simulated agents and a real one: \
         applied within {:.0} s, all ran after {:.0} s",
        applied.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );

    let mut took = Vec::new();
    for number in 0..APPLIED {
        let source = match number % FRESH {
            0 => component(&hive, &format!("new-{number}"))?,
            at => components[at % COMPONENTS].clone(),
        };
        let name = format!("one-{number}");
        let file = hive.swarm.path().join(format!("{name}.yaml"));
        std::fs::write(&file, manifest(&name, &source)?)?;
        let began = Instant::now();
        apply(&hive, &file).await;
        let prefix = format!("{name}.");
        assignments.good(&prefix, 1, PATIENCE).await?;
        took.extend(assignments.since(&prefix, began));
    }
    took.sort_unstable();
    let seconds = |percent| percentile(&took, percent).as_secs_f64();
    println!(
        "one more, {APPLIED} times: from `hivectl apply` until it runs p50 {:.2} s, p99 {:.2} s",
        seconds(50),
        seconds(99)
    );
    aims.at_most(
        "apply among 10,000 functions, p99",
        seconds(99),
        APPLY_AIM_S,
        " s",
    );

    tokio::time::sleep(SETTLE).await;
    let mut processes = hive.processes();
    processes.push(agent.member.pid());
    let cpu = |pid: &u32| process::cpu(*pid);
    let before = processes
        .iter()
        .map(cpu)
        .collect::<anyhow::Result<Vec<_>>>()?;
    tokio::time::sleep(IDLE).await;
    let mut percent = Vec::new();
    for (pid, before) in processes.iter().zip(before) {
        let used = process::cpu(*pid)?.saturating_sub(before);
        percent.push(100.0 * used.as_secs_f64() / IDLE.as_secs_f64());
    }
    let own = percent.pop().unwrap_or_default();
    println!(
        "idle for {} s: the real agent uses {own:.2} % of a core, with {:.0} MiB; the controllers {}",
        IDLE.as_secs(),
        mebibytes(agent.member.pid())?,
        percent
            .iter()
            .map(|one| format!("{one:.2} %"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    for pid in hive.processes() {
        println!("  a controller has {:.0} MiB", mebibytes(pid)?);
    }
    aims.at_most(
        "an agent's idle CPU beside 10,000 functions",
        own,
        IDLE_AIM_PERCENT,
        " %",
    );
    agent.member.stop().await;
    drop(fleet);
    Ok(())
}

fn component(hive: &Hive, name: &str) -> anyhow::Result<String> {
    let file = format!("{name}.wasm");
    std::fs::write(hive.swarm.path().join(&file), fresh_component(name)?)?;
    Ok(file)
}

fn manifest(name: &str, component: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "apiVersion: hive.dev/v1\nkind: Function\nmetadata:\n  name: {name}\nspec:\n  artifact:\n    path: {component}\n  resources:\n    memory: 2Mi\n    cpu: 1m\n---"
    )?;
    Ok(text)
}

async fn apply(hive: &Hive, file: &std::path::Path) {
    let file = file.display().to_string();
    hive.swarm.ctl(&["apply", "-f", &file]).await.ok();
}

fn mebibytes(pid: u32) -> anyhow::Result<f64> {
    Ok(process::memory(pid)?.0 as f64 / 1024.0)
}
