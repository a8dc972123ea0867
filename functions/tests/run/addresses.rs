//! Machines with few addresses: many phones have 39 bits of them. Each is a process of its own here, with a limit to
//! what it may map.
#![cfg(target_os = "linux")]

use std::process::Command;

use hive_functions::{Allocation, LoadError, Runtime, RuntimeOptions};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::guests::{
    Loaded, Logs, RUST_0_2, compiled, get, handler_beside, limits, load_compiled_on, options,
    verified,
};

const GIB: u64 = 1 << 30;

/// What a process is told to be.
const MACHINE: &str = "HIVE_TEST_ADDRESSES";

#[test]
fn functions_run_with_as_many_slots_as_there_are_addresses_for() {
    for addresses in [300, 100, 40] {
        let program = std::env::current_exe().unwrap();
        let ended = Command::new(program)
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "addresses::a_machine",
            ])
            .env(MACHINE, addresses.to_string())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ended.stdout);
        let failed = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{addresses}: {told} {failed}");
        assert!(told.contains("1 passed"), "{addresses}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "for a process of its own"]
async fn a_machine() {
    let gibibytes: u64 = std::env::var(MACHINE).unwrap().parse().unwrap();
    let limit = Rlimit {
        current: Some(gibibytes * GIB),
        maximum: Some(gibibytes * GIB),
    };
    setrlimit(Resource::As, limit).unwrap();

    let runtime = Runtime::start(RuntimeOptions::default()).unwrap();
    let allocation = runtime.allocation();
    match (gibibytes, allocation) {
        (300, Allocation::Pooled { slots: 64 }) | (100, Allocation::Pooled { slots: 16 }) => {}
        (40, Allocation::OnDemand { slots: 4..10 }) => {}
        _ => panic!("{gibibytes} GiB: {allocation:?}"),
    }
    answers(load_compiled_on(&runtime, &compiled(RUST_0_2), |_| ())).await;

    // There are addresses for two or three of these at once: the others wait.
    let larger = load_compiled_on(&runtime, &larger(2), |_| ());
    answers(larger).await;

    let (_directory, artifact) = verified(&self::larger(80));
    let refused = runtime.load(&artifact, options(limits(), &Logs::default()));
    let error = refused.map(drop).unwrap_err();
    let LoadError::TooManyMemories { needed: 81, given } = error else {
        panic!("{error}");
    };
    assert!(given < 10, "{given}");
}

/// With a module of so many memories.
fn larger(memories: usize) -> Vec<u8> {
    let memories = "(memory 1)".repeat(memories);
    let modules = format!("(core module $other {memories}) (core instance (instantiate $other))");
    let answer = "(drop (call $begin (local.get $out)))";
    compiled(&handler_beside(&modules, answer))
}

/// More at once than there are slots.
async fn answers(loaded: Loaded) {
    let requests = (0..100).map(|_| loaded.function.handle(get()));
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
}
