//! What a guest that misbehaves gets, and what its caller sees.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hive_functions::{
    BoxBody, Instances, InvokeError, Limits, LoadError, LogStream, MachineMemory, Reuse, Runtime,
    RuntimeOptions, Waited,
};
use http::StatusCode;
use http_body_util::BodyExt;

use crate::{
    guests::{
        Loaded, Logs, RUST_0_2, TIMEOUT, compiled, eventually, get, get_of, guest,
        guest_with_memory, handler, handler_0_3, limits, load, load_compiled_on, looping, options,
        verified,
    },
    sandbox::{PROBE, probe_with},
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

/// The statuses that `count` requests at once come to, and how long all of them took.
async fn flood(loaded: &Loaded, count: usize) -> (Vec<Result<StatusCode, InvokeError>>, Duration) {
    let started = Instant::now();
    let requests = (0..count).map(|_| {
        let function = loaded.function.clone();
        async move {
            function
                .handle(get_of("/slow?ms=100"))
                .await
                .map(|r| r.status())
        }
    });
    (join_all(requests).await, started.elapsed())
}

#[tokio::test]
async fn a_burst_is_answered_one_after_another() {
    let loaded = probe_with(|options| options.limits.concurrency = 1);
    let (answers, took) = flood(&loaded, 20).await;
    assert!(
        answers.iter().all(|answer| *answer == Ok(StatusCode::OK)),
        "{answers:?}"
    );
    assert!(took >= Duration::from_millis(2000), "{took:?}");
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors, usage.waiting), (20, 0, 0));
}

#[tokio::test]
async fn an_answer_says_whether_its_request_waited() {
    let loaded = probe_with(|options| options.limits.concurrency = 1);
    let ask = |target: &'static str| {
        let function = loaded.function.clone();
        tokio::spawn(async move { function.handle(get_of(target)).await })
    };
    let running = ask("/slow?ms=3600000");
    eventually("one runs", || loaded.function.usage().in_flight == 1).await;
    let waiting = ask("/");
    eventually("one waits", || loaded.function.usage().waiting == 1).await;
    running.abort();
    let answer = waiting.await.unwrap().unwrap();
    assert!(answer.extensions().get::<Waited>().is_some());
    drop(answer);
    eventually("nobody runs", || loaded.function.usage().in_flight == 0).await;
    let answer = ask("/").await.unwrap().unwrap();
    assert_eq!(answer.extensions().get::<Waited>(), None);
}

#[tokio::test]
async fn who_waited_for_the_queue_timeout_is_refused() {
    let queue = Duration::from_millis(300);
    let loaded = probe_with(|options| {
        options.limits.concurrency = 1;
        options.limits.queue = queue;
    });
    let running = tokio::spawn({
        let function = loaded.function.clone();
        async move { function.handle(get_of("/slow?ms=3600000")).await.map(drop) }
    });
    eventually("one runs", || loaded.function.usage().in_flight == 1).await;
    let (answers, took) = flood(&loaded, 20).await;
    assert_eq!(answers, vec![Err(InvokeError::QueueTimeout(queue)); 20]);
    assert!(took >= queue, "{took:?}");
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors), (21, 20));
    let lines = loaded.logs.of(LogStream::Hive);
    assert_eq!(lines.len(), 20);
    assert!(
        lines[0].contains("QueueTimeout: no turn within 300ms"),
        "{lines:?}"
    );
    running.abort();
}

#[tokio::test]
async fn without_a_queue_more_than_may_run_are_refused_at_once() {
    let loaded = load(
        &looping(),
        Limits {
            concurrency: 2,
            queue: Duration::ZERO,
            ..limits()
        },
    );
    let running: Vec<_> = (0..2)
        .map(|_| {
            let function = loaded.function.clone();
            tokio::spawn(async move { function.handle(get()).await.map(drop) })
        })
        .collect();
    eventually("two run", || loaded.function.usage().in_flight == 2).await;
    let error = loaded.function.handle(get()).await.unwrap_err();
    assert_eq!(error, InvokeError::Overloaded);
    assert_eq!(error.status(), 503);
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors), (3, 1));
    running.iter().for_each(|request| request.abort());
}

/// Another node is asked next, so it must not look as if the function failed.
#[tokio::test]
async fn a_request_that_is_passed_on_leaves_no_trace() {
    let loaded = load(
        &looping(),
        Limits {
            concurrency: 1,
            ..limits()
        },
    );
    let running = tokio::spawn({
        let function = loaded.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("one runs", || loaded.function.usage().in_flight == 1).await;
    let passed_on = loaded.function.handle_within(Duration::ZERO, get()).await;
    assert_eq!(passed_on.unwrap_err(), InvokeError::Overloaded);
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors), (1, 0));
    assert!(loaded.logs.records().is_empty());

    running.abort();
    eventually("it is gone", || loaded.function.usage().in_flight == 0).await;
}

#[tokio::test]
async fn functions_wait_for_the_memory_slots_of_each_other() {
    let runtime = Runtime::start(RuntimeOptions {
        max_instances: 1,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let (directory, artifact) = verified(&PROBE);
    let load = |logs| runtime.load(&artifact, options(limits(), logs)).unwrap();
    let (one, other) = (load(&Logs::default()), load(&Logs::default()));
    let (first, second) = tokio::join!(one.handle(get_of("/slow?ms=100")), async {
        eventually("the first runs", || one.usage().in_flight == 1).await;
        other.handle(get_of("/")).await
    });
    assert_eq!(
        (first.unwrap().status(), second.unwrap().status()),
        (StatusCode::OK, StatusCode::OK)
    );
    drop(directory);
}

/// Grows by so many pages, or traps, and then runs until it is stopped.
fn holding(pages: u32) -> Vec<u8> {
    handler(&format!(
        "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))
         (loop (br 0))"
    ))
}

/// With two that hold 40 MiB of 64, the second has none, and everybody else goes on.
#[tokio::test]
async fn all_functions_together_use_no_more_memory_than_the_node_gives() {
    let memory_bytes = 64 << 20;
    let runtime = Runtime::start(RuntimeOptions {
        memory_bytes,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let (_directory, artifact) = verified(&compiled(&holding(640)));
    let (_small_directory, small) = verified(&compiled(RUST_0_2));
    let logs = Logs::default();
    let load = |artifact| runtime.load(artifact, options(limits(), &logs)).unwrap();
    let (one, other, hello) = (load(&artifact), load(&artifact), load(&small));

    let running = tokio::spawn({
        let one = one.clone();
        async move { one.handle(get()).await.map(drop) }
    });
    eventually("it has its memory", || runtime.memory_used() > 40 << 20).await;
    let refused = other.handle(get()).await.unwrap_err();
    assert_eq!(refused, InvokeError::NodeMemory);
    assert_eq!(refused.status(), 503);
    assert!(!refused.nothing_ran());
    assert_eq!(hello.handle(get()).await.unwrap().status(), 200);

    running.abort();
    eventually("its memory is back", || runtime.memory_used() == 0).await;
    let running = tokio::spawn({
        let other = other.clone();
        async move { other.handle(get()).await.map(drop) }
    });
    eventually("the other has it", || runtime.memory_used() > 40 << 20).await;
    running.abort();
}

#[tokio::test]
async fn a_request_waits_until_its_instance_has_memory_to_start() {
    let (_directory, artifact) = verified(&compiled(&guest_with_memory(
        160,
        r#"(func (export "handle") (param i32 i32) (loop (br 0)))"#,
    )));
    let (_small_directory, small) = verified(&compiled(RUST_0_2));
    let runtime = Runtime::start(RuntimeOptions {
        memory_bytes: 11 << 20,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let logs = Logs::default();
    let load = |artifact| runtime.load(artifact, options(limits(), &logs)).unwrap();
    let (large, hello) = (load(&artifact), load(&small));
    let running = tokio::spawn({
        let large = large.clone();
        async move { large.handle(get()).await.map(drop) }
    });
    eventually("the large one runs", || large.usage().in_flight == 1).await;
    let waiting = tokio::spawn({
        let hello = hello.clone();
        async move { hello.handle(get()).await.map(|response| response.status()) }
    });
    eventually("the other waits", || hello.usage().waiting == 1).await;
    running.abort();
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);

    let too_large = Runtime::start(RuntimeOptions {
        memory_bytes: 4 << 20,
        ..RuntimeOptions::default()
    });
    let refused = too_large.unwrap().load(&artifact, options(limits(), &logs));
    assert!(matches!(
        refused.err(),
        Some(LoadError::NodeMemory { initial, .. }) if initial == 10 << 20
    ));
}

#[tokio::test]
async fn while_the_machine_is_short_of_memory_idle_instances_end_and_one_runs_at_a_time() {
    let runtime = Runtime::start(RuntimeOptions::default()).unwrap();
    let queue = Duration::from_millis(100);
    let code = compiled(RUST_0_2);
    let patient = load_compiled_on(&runtime, &code, |options| {
        options.instances = Instances {
            reuse: Some(Reuse::Serial),
            idle_timeout: Duration::from_secs(3600),
            ..Instances::default()
        };
    });
    let hasty = load_compiled_on(&runtime, &code, |options| options.limits.queue = queue);
    let other = load_compiled_on(&runtime, &compiled(&looping()), |_| ());
    let says = |is_short| {
        runtime.set_machine_memory(MachineMemory {
            ceiling: u64::MAX,
            is_short,
        });
    };
    let answers = async |loaded: &Loaded| {
        let answer = loaded.function.handle(get()).await;
        answer.map(|response| response.status())
    };
    assert_eq!(answers(&patient).await, Ok(StatusCode::OK));
    assert!(runtime.memory_used() > 0, "its instance stays");
    runtime.begun().await;

    says(true);
    eventually("it ends", || runtime.memory_used() == 0).await;
    for _ in 0..3 {
        assert_eq!(answers(&patient).await, Ok(StatusCode::OK));
    }
    let running = tokio::spawn({
        let function = other.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("one runs", || other.function.usage().in_flight == 1).await;
    let late = Err(InvokeError::MemoryPressure(queue));
    assert_eq!(answers(&hasty).await, late);
    let lines = hasty.logs.of(LogStream::Hive);
    let told = "MemoryPressure: no turn within 100ms: the node is short of memory";
    assert!(lines[0].starts_with(told), "{lines:?}");
    says(false);
    assert_eq!(answers(&hasty).await, Ok(StatusCode::OK));
    running.abort();
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
