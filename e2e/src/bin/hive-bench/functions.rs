//! `hive-bench functions [PART ...]`: what functions cost on an agent, against `wasmtime serve` of the
//! same component where that is installed, and against the same component run with no limits at all.
//! After `neighbours`, `spin` or `memory` leaves the others out.
//!
//! Every part prints what it measured and says which aims it met; the table at the end repeats them.

mod bare;
mod cold;
pub mod front;
mod idle;
mod instances;
mod limits;
mod many;
mod neighbours;
mod serve;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use hive_functions::{
    EgressLimits, Function, FunctionOptions, HostServices, Instances, Limits, Runtime,
    VerifiedArtifact,
};
use sha2::{Digest, Sha256};

use super::aims::Aims;
use neighbours::Bad;

const PARTS: [&str; 7] = [
    "serve",
    "instances",
    "limits",
    "neighbours",
    "cold",
    "idle",
    "many",
];

/// Of WASI 0.3: its body comes from a task that goes on after the answer has begun.
const ASYNC: &[u8] = include_bytes!("../../../../manifests/examples/rust-p3/hello_p3.wasm");

pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = match arguments {
        [] => PARTS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let mut aims = Aims::default();
    for (part, bad) in parts(&words)? {
        match part {
            "serve" => serve::run(&mut aims).await?,
            "instances" => instances::run(&mut aims).await?,
            "limits" => limits::run(&mut aims).await?,
            "neighbours" => neighbours::run(&mut aims, bad).await?,
            "cold" => cold::run(&mut aims).await?,
            "idle" => idle::run(&mut aims).await?,
            _ => many::run(&mut aims).await?,
        }
    }
    aims.print();
    Ok(())
}

/// Each with the neighbours that are meant, for the part that has any.
fn parts<'a>(words: &[&'a str]) -> anyhow::Result<Vec<(&'a str, Bad)>> {
    let mut words = words.iter().peekable();
    let mut parts = Vec::new();
    while let Some(part) = words.next() {
        if !PARTS.contains(part) {
            bail!("{part:?} is no part: there are {}", PARTS.join(", "));
        }
        let mut bad = Bad::BOTH;
        if *part == "neighbours"
            && let Some(only) = words.peek().and_then(|word| Bad::only(word))
        {
            words.next();
            bad = only;
        }
        parts.push((*part, bad));
    }
    Ok(parts)
}

/// A component, compiled for this machine into `directory`.
fn compiled(component: &[u8], directory: &Path) -> anyhow::Result<(VerifiedArtifact, [u8; 32])> {
    let code = hive_functions::Compiler::new(hive_functions::host_target())?.compile(component)?;
    let digest: [u8; 32] = Sha256::digest(&code).into();
    let path = directory.join(format!("{:02x}{:02x}", digest[0], digest[1]));
    std::fs::write(&path, &code)?;
    let artifact = VerifiedArtifact::verify(&path, &digest)?;
    Ok((artifact, digest))
}

/// With the limits of a function that names none.
fn loaded(runtime: &Runtime, artifact: &VerifiedArtifact) -> anyhow::Result<Function> {
    let limits = Limits {
        memory_bytes: 128 << 20,
        timeout: Duration::from_secs(30),
        concurrency: 100,
        queue: Limits::QUEUE,
        cpu_time: Limits::CPU_TIME,
        response_bytes: Limits::RESPONSE_BYTES,
        handles: Limits::HANDLES,
    };
    let options = FunctionOptions {
        name: "bench/function".to_owned(),
        limits,
        env: Vec::new(),
        allowed_hosts: Vec::new(),
        egress: EgressLimits::default(),
        services: HostServices::default(),
        instances: Instances::default(),
        logs: std::sync::Arc::new(|_| {}),
        meter: std::sync::Arc::default(),
    };
    runtime.load(artifact, options).context("load")
}
