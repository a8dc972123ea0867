//! Components that have more than the pool has room for.

use std::time::Duration;

use futures::future::join_all;
use hive_functions::{Allocation, InvokeError, Limits, LoadError, Runtime, RuntimeOptions};
use http::StatusCode;

use crate::guests::{
    Loaded, Logs, RUST_0_2, compiled, eventually, get, handler_beside, limits, load_compiled_on,
    options, verified,
};

const SLOTS: u32 = 16;

const ANSWER: &str = "(drop (call $begin (local.get $out)))";

fn runtime() -> Runtime {
    let options = RuntimeOptions {
        max_instances: SLOTS,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::start(options).unwrap();
    assert_eq!(runtime.allocation(), Allocation::Pooled { slots: SLOTS });
    runtime
}

/// So many instances of a module with this in it.
fn instances(number: usize, module: &str) -> String {
    let instances = "(core instance (instantiate $other))".repeat(number);
    format!("(core module $other {module}) {instances}")
}

/// With more memories than there are slots.
fn large(body: &str) -> Vec<u8> {
    compiled(&handler_beside(&instances(39, "(memory 1)"), body))
}

/// 1.3 MB of them.
fn globals() -> String {
    "(global i64 (i64.const 0))".repeat(80_000)
}

async fn status(loaded: &Loaded) -> Result<StatusCode, InvokeError> {
    let answer = loaded.function.handle(get()).await;
    answer.map(|response| response.status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_of_any_shape_answers_as_many_as_others_do() {
    let runtime = runtime();
    let small = load_compiled_on(&runtime, &compiled(RUST_0_2), |_| ());
    for (what, modules) in [
        ("40 memories", instances(39, "(memory 1)")),
        ("two memories", instances(1, "(memory 1) (memory 1)")),
        (
            "two tables",
            instances(1, "(table 1 funcref) (table 1 funcref)"),
        ),
        ("8 tables", instances(8, "(table 1 funcref)")),
        ("70 tables", instances(70, "(table 1 funcref)")),
        ("200 modules", instances(200, "(func)")),
        ("1.3 MB of globals", instances(1, &globals())),
    ] {
        let code = compiled(&handler_beside(&modules, ANSWER));
        let other = load_compiled_on(&runtime, &code, |_| ());
        let both = (0..2 * SLOTS).map(async |_| tokio::join!(status(&other), status(&small)));
        for (one, two) in join_all(both).await {
            assert_eq!(one, Ok(StatusCode::OK), "{what}");
            assert_eq!(two, Ok(StatusCode::OK), "beside {what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_back_its_code_and_is_mapped_again_where_it_fits() {
    let runtime = runtime();
    let large = load_compiled_on(&runtime, &large(ANSWER), |_| ());
    for _ in 0..2 {
        assert_eq!(status(&large).await, Ok(StatusCode::OK));
        let mut unmapped = 0;
        eventually("it is unmapped", || {
            unmapped += runtime.unmap_idle(Duration::ZERO);
            unmapped > 0
        })
        .await;
    }
    assert_eq!(large.function.usage().cold_starts, 2);
}

#[test]
fn what_would_take_too_much_of_the_host_for_each_instance_is_not_loaded() {
    let code = compiled(&handler_beside(&instances(8, &globals()), ANSWER));
    let (_directory, artifact) = verified(&code);
    let loaded = runtime().load(&artifact, options(limits(), &Logs::default()));
    let error = loaded.map(drop).unwrap_err();
    assert!(matches!(&error, LoadError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("exceeds"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_limits_hold() {
    let runtime = runtime();
    let small = load_compiled_on(&runtime, &compiled(RUST_0_2), |_| ());
    let (spinning, greedy) = (
        large("(loop (br 0))"),
        large("(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable))"),
    );
    let short = Duration::from_millis(50);
    let (late, costly) = (
        Limits {
            timeout: short,
            ..limits()
        },
        Limits {
            cpu_time: short,
            ..limits()
        },
    );
    for (code, limits, expected) in [
        (&spinning, late, InvokeError::Timeout(short)),
        (&spinning, costly, InvokeError::CpuTimeout(short)),
        (&greedy, limits(), InvokeError::MemoryLimit(64 << 20)),
    ] {
        let large = load_compiled_on(&runtime, code, |options| options.limits = limits);
        assert_eq!(status(&large).await, Err(expected));
        assert_eq!(status(&small).await, Ok(StatusCode::OK));
    }
    eventually("all memory is back", || runtime.memory_used() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_its_slots_of_those_that_all_share() {
    let runtime = runtime();
    let small = load_compiled_on(&runtime, &compiled(RUST_0_2), |_| ());
    let large = load_compiled_on(&runtime, &large("(loop (br 0))"), |_| ());
    let running = tokio::spawn({
        let function = large.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("it runs", || large.function.usage().in_flight == 1).await;
    let waiting = tokio::spawn({
        let function = small.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("another waits", || small.function.usage().waiting == 1).await;
    running.abort();
    assert!(waiting.await.unwrap().is_ok());
}
