//! Requests to one agent: at its local address, through the ingress of another process over QUIC, and
//! to `wasmtime serve` of the same component with its pooling flags. And to workerd, which runs no
//! components: the same answer from JavaScript, in one isolate for all requests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::Aims;
use crate::load::{Target, print_rounds, rounds};
use crate::process::{self, Process};
use crate::swarm::{self, COMPONENT, Swarm};

const PORT: u16 = 18_800;

/// Where `wasmtime serve` listens, if it is there.
const PEER_PORT: u16 = 18_999;
const WORKERD_PORT: u16 = 18_998;

/// The same words as hello's, and a line logged too.
const WORKER: &str = r#"
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "ADDRESS", http = (), service = "main")],
);
const hello :Workerd.Worker = (
  modules = [(name = "hello", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
);
"#;
const SCRIPT: &str = r#"export default {
  fetch(request) {
    const path = new URL(request.url).pathname;
    console.log(`asked for ${path}`);
    return new Response(`Hello from hello in default: you asked for ${path}\n`);
  },
};
"#;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let hive = crate::beside("hive")?;
    // One agent: with more behind it the ingress would beat any of them.
    let swarm = Swarm::start(&hive, PORT, &["--agents", "1"])?;
    let mut contestants = vec![
        ("agent, local address".to_owned(), swarm.local("hello")?),
        ("ingress, over QUIC".to_owned(), swarm.ingress("hello")?),
    ];
    let peer = peer(&swarm).await?;
    if let Some((_, target)) = &peer {
        contestants.push(("wasmtime serve".to_owned(), target.clone()));
    }
    let workerd = workerd(&swarm).await?;
    if let Some((_, target)) = &workerd {
        contestants.push(("workerd, JavaScript".to_owned(), target.clone()));
    } else {
        println!(
            "SKIPPED: workerd is not installed (npm install workerd, and name its binary in WORKERD)"
        );
    }
    println!("\nhello (Rust, WASI 0.2), one agent; CPU is of the agent's process, or the peer's");
    let found = rounds(&contestants).await?;
    print_rounds(&contestants, &found);
    let ratio = |a: usize, b: usize| found[a].requests_per_second / found[b].requests_per_second;
    aims.at_least("ingress and QUIC / local address", ratio(1, 0), 0.6, "x");
    if peer.is_none() {
        println!(
            "SKIPPED: wasmtime serve is not installed (cargo install --locked wasmtime-cli@48.0.8, and put it on PATH or name it in WASMTIME)"
        );
        return Ok(());
    }
    let p99 = |at: usize| found[at].p99.as_secs_f64();
    let peer = "wasmtime serve";
    aims.at_least(
        &format!("local address / {peer}, requests/s"),
        ratio(0, 2),
        1.0,
        "x",
    );
    aims.at_most(
        &format!("local address / {peer}, p99"),
        p99(0) / p99(2),
        1.0,
        "x",
    );
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
        pid: process.pid(),
    };
    swarm::answers(&target, Duration::from_secs(30)).await?;
    Ok(Some((process, target)))
}

async fn workerd(swarm: &Swarm) -> anyhow::Result<Option<(Process, Target)>> {
    let Some(program) = std::env::var_os("WORKERD").map(PathBuf::from) else {
        return Ok(None);
    };
    let address = format!("127.0.0.1:{WORKERD_PORT}");
    swarm.write("worker.js", SCRIPT.as_bytes())?;
    let config = WORKER.replace("ADDRESS", &address);
    let config = swarm.write("worker.capnp", config.as_bytes())?;
    let process = Process::start(&program, &["serve", config.to_str().context("path")?])?;
    let target = Target {
        address: address.parse()?,
        host: "localhost".into(),
        pid: process.pid(),
    };
    swarm::answers(&target, Duration::from_secs(30)).await?;
    Ok(Some((process, target)))
}
