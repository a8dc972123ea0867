//! What many greedy requests at once take of a machine. Alone in its process: it looks at the memory
//! of all of it.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use hive_functions::{
    BoxBody, Compiler, EgressLimits, FunctionOptions, HostServices, Instances, InvokeError, Limits,
    Runtime, RuntimeOptions, VerifiedArtifact, host_target,
};
use http_body_util::{BodyExt, Empty};
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;

/// For all functions.
const GIVEN: u64 = 128 * MIB;

/// At once, each with its own memory.
const BOMBS: usize = 50;

/// Beside the instances' own memory: stacks, tables, what requests hold.
const BESIDE: u64 = 64 * MIB;

/// Memory is all that may stop a bomb, on however busy a machine.
const UNREACHED: Duration = Duration::from_secs(300);

/// In bytes, of what this process has in memory or had at most since `forget_peak`.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn get(path: &str) -> http::Request<BoxBody> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {});
    http::Request::get(format!("http://test.local{path}"))
        .body(BoxBody::new(body))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_bombs_take_no_more_than_the_node_gives_and_neighbours_are_answered() {
    let code = Compiler::new(host_target())
        .unwrap()
        .compile(include_bytes!("guests/probe/probe.wasm"))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("artifact");
    std::fs::write(&path, &code).unwrap();
    let artifact = VerifiedArtifact::verify(&path, &Sha256::digest(&code).into()).unwrap();
    let runtime = Runtime::start(RuntimeOptions {
        memory_bytes: GIVEN,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let load = |name: &str| {
        let options = FunctionOptions {
            name: name.to_owned(),
            limits: Limits {
                memory_bytes: 64 * MIB,
                timeout: UNREACHED,
                concurrency: 100,
                queue: UNREACHED,
                cpu_time: UNREACHED,
                response_bytes: Limits::RESPONSE_BYTES,
                handles: Limits::HANDLES,
            },
            env: Vec::new(),
            allowed_hosts: Vec::new(),
            egress: EgressLimits::default(),
            services: HostServices::default(),
            instances: Instances::default(),
            logs: Arc::new(|_| {}),
            meter: Arc::default(),
        };
        runtime.load(&artifact, options).unwrap()
    };
    let (bomb, neighbour) = (load("default/bomb"), load("default/neighbour"));

    forget_peak();
    let before = memory("VmRSS:");
    let bombs = join_all((0..BOMBS).map(|_| {
        let bomb = bomb.clone();
        tokio::spawn(async move { bomb.handle(get("/memory?mib=56")).await.map(drop) })
    }));
    let neighbours = async {
        for _ in 0..20 {
            let answer = neighbour.handle(get("/")).await;
            assert_eq!(answer.unwrap().status(), 200);
        }
    };
    let (bombs, ()) = tokio::join!(bombs, neighbours);
    let taken = memory("VmHWM:").saturating_sub(before);

    let failed = bombs.into_iter().filter_map(|ended| ended.unwrap().err());
    let stopped: Vec<_> = failed.collect();
    println!(
        "{} of {BOMBS} stopped, {} MiB taken",
        stopped.len(),
        taken / MIB
    );
    assert!(!stopped.is_empty(), "they found room for all");
    let by_the_node = |error: &InvokeError| *error == InvokeError::NodeMemory;
    assert!(stopped.iter().all(by_the_node), "{stopped:?}");
    assert!(taken < GIVEN + BESIDE, "{} MiB", taken / MIB);
    let deadline = Instant::now() + Duration::from_secs(120);
    while runtime.memory_used() > 0 {
        assert!(Instant::now() < deadline, "memory was never given back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
