//! What a guest that misbehaves gets, and what its caller sees.

use std::time::{Duration, Instant};

use hive_functions::{BoxBody, InvokeError, Limits, LogStream};
use http_body_util::BodyExt;

use crate::guests::{
    Loaded, RUST_0_2, TIMEOUT, eventually, get, guest, handler, handler_0_3, limits, load, looping,
};

/// The error of one request, which must be the only thing counted and logged.
async fn error(loaded: &Loaded) -> InvokeError {
    let error = loaded.function.handle(get()).await.unwrap_err();
    let mut lines = loaded.logs.of(LogStream::Hive);
    // Its backtrace.
    lines.retain(|line| !line.starts_with("    at "));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(error.reason().as_str()), "{lines:?}");
    eventually("the instance is gone", || {
        loaded.function.usage().in_flight == 0
    })
    .await;
    let usage = loaded.function.usage();
    assert_eq!(
        (usage.requests, usage.errors, usage.memory_bytes),
        (1, 1, 0)
    );
    error
}

#[tokio::test]
async fn a_trap_is_a_502_that_says_which() {
    let loaded = load(&handler("unreachable"), limits());
    let error = error(&loaded).await;
    assert!(
        matches!(&error, InvokeError::Trap(why) if why.contains("unreachable")),
        "{error}"
    );
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn wasi_0_3_guests_are_held_to_the_same() {
    let trap = error(&load(&handler_0_3("unreachable"), limits())).await;
    assert!(
        matches!(&trap, InvokeError::Trap(why) if why.contains("unreachable")),
        "{trap}"
    );

    let timeout = Duration::from_millis(100);
    let limited = Limits {
        timeout,
        ..limits()
    };
    let slow = load(&handler_0_3("(loop (br 0)) unreachable"), limited);
    assert_eq!(error(&slow).await, InvokeError::Timeout(timeout));

    let greedy =
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let greedy = load(&handler_0_3(greedy), limits());
    assert_eq!(
        error(&greedy).await,
        InvokeError::MemoryLimit(limits().memory_bytes)
    );

    // An error of case 36, loop-detected.
    let failing = "(i32.store8 (i32.const 32) (i32.const 1)) (i32.store8 (i32.const 40) (i32.const 36)) (i32.const 32)";
    let failing = error(&load(&handler_0_3(failing), limits())).await;
    assert!(
        matches!(&failing, InvokeError::ErrorCode(code) if code.contains("LoopDetected")),
        "{failing}"
    );
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let main = r#"(func $deep (param i32) (result i32)
          (i32.add (call $deep (local.get 0)) (local.get 0)))
        (func (export "handle") (param i32 i32) (drop (call $deep (i32.const 1))))"#;
    let error = error(&load(&guest(main), limits())).await;
    assert!(
        matches!(&error, InvokeError::Trap(why) if why.contains("stack")),
        "{error}"
    );
}

#[tokio::test]
async fn ending_without_a_response_is_a_502() {
    let error = error(&load(&handler(""), limits())).await;
    assert_eq!(error, InvokeError::NoResponse);
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn answering_with_an_error_is_a_502_that_says_which() {
    // Case 36 is loop-detected.
    let guest = handler(
        "(call $respond (local.get $out) (i32.const 1) (i32.const 36)
           (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
    );
    let error = error(&load(&guest, limits())).await;
    assert!(
        matches!(&error, InvokeError::ErrorCode(code) if code.contains("LoopDetected")),
        "{error}"
    );
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_timeout() {
    let timeout = Duration::from_millis(200);
    let loaded = load(
        &looping(),
        Limits {
            timeout,
            ..limits()
        },
    );
    let started = Instant::now();
    let error = error(&loaded).await;
    // And not at the end of its processor time, which would be minutes later.
    assert_eq!(error, InvokeError::Timeout(timeout));
    assert_eq!(error.status(), 504);
    assert!(started.elapsed() >= timeout);
}

#[tokio::test]
async fn cpu_time_ends_a_loop_long_before_the_timeout() {
    let cpu_time = Duration::from_millis(50);
    let loaded = load(
        &looping(),
        Limits {
            cpu_time,
            ..limits()
        },
    );
    let error = error(&loaded).await;
    assert_eq!(error, InvokeError::CpuTimeout(cpu_time));
    assert_eq!(error.status(), 504);
    assert!(loaded.function.usage().cpu_micros >= 50_000);
}

/// On a single thread: the loop must let others run.
#[tokio::test]
async fn a_busy_guest_does_not_keep_others_from_being_answered() {
    let busy = load(&looping(), limits());
    let running = tokio::spawn({
        let function = busy.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("the loop runs", || busy.function.usage().in_flight == 1).await;

    let hello = load(RUST_0_2, limits());
    for _ in 0..5 {
        let response = hello.function.handle(get()).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(busy.function.usage().in_flight, 1);

    // A caller that goes away takes its guest along.
    running.abort();
    eventually("the loop is gone", || busy.function.usage().in_flight == 0).await;
    assert_eq!(busy.function.usage().errors, 0);
}

/// On a single thread, which this test then holds: what computes for long goes on elsewhere.
#[tokio::test]
async fn a_guest_that_computes_for_long_leaves_the_threads_of_the_others() {
    let busy = load(&looping(), limits());
    let running = tokio::spawn({
        let function = busy.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    let used = || busy.function.usage().cpu_micros;
    eventually("the loop is a long one", || used() > 20_000).await;

    let (before, deadline) = (used(), Instant::now() + Duration::from_secs(60));
    while used() == before {
        assert!(Instant::now() < deadline, "it waits for this thread");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.abort();
    eventually("the loop is gone", || busy.function.usage().in_flight == 0).await;
}

#[tokio::test]
async fn growing_over_the_memory_limit_is_named_as_the_cause() {
    // Grows by 1 MiB until it gets no more, and traps as an allocator does.
    let guest = handler(
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    );
    let memory_bytes = 8 << 20;
    let loaded = load(
        &guest,
        Limits {
            memory_bytes,
            ..limits()
        },
    );
    let error = error(&loaded).await;
    assert_eq!(error, InvokeError::MemoryLimit(memory_bytes));
    assert_eq!(error.status(), 502);
}

/// Sends its head and five bytes, then does `rest`.
fn responding(rest: &str) -> Vec<u8> {
    handler(&format!(
        r#"(i64.store (i32.const 64) (i64.const 0x6f6c6c6568))
           (call $write (call $begin (local.get $out)) (i32.const 64) (i32.const 5) (i32.const 48))
           {rest}"#
    ))
}

/// The head came, then the bytes, then the error.
async fn cut_off(loaded: &Loaded) -> InvokeError {
    let response = loaded.function.handle(get()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body: BoxBody = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "hello");
    let error = body
        .frame()
        .await
        .expect("the body must not look complete")
        .unwrap_err();
    assert_eq!(loaded.function.usage().errors, 1);
    *error.downcast().unwrap()
}

#[tokio::test]
async fn a_body_that_the_timeout_cuts_off_does_not_look_complete() {
    let loaded = load(
        &responding("(loop (br 0))"),
        Limits {
            timeout: TIMEOUT,
            ..limits()
        },
    );
    assert_eq!(cut_off(&loaded).await, InvokeError::Timeout(TIMEOUT));
}

#[tokio::test]
async fn a_body_that_a_trap_cuts_off_does_not_look_complete() {
    let loaded = load(&responding("unreachable"), limits());
    assert!(matches!(cut_off(&loaded).await, InvokeError::Trap(_)));
}

#[tokio::test]
async fn a_caller_that_drops_the_body_stops_the_guest() {
    let loaded = load(&responding("(loop (br 0))"), limits());
    let response = loaded.function.handle(get()).await.unwrap();
    assert_eq!(loaded.function.usage().in_flight, 1);
    drop(response);
    eventually("the guest is gone", || {
        loaded.function.usage().in_flight == 0
    })
    .await;
}
