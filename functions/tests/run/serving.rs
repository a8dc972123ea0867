//! What functions answer, log and are counted for.

use hive_functions::{InvokeError, LogStream};
use http_body_util::BodyExt;

use crate::guests::{
    JAVASCRIPT_0_3, Loaded, RUST_0_2, eventually, get, handler, handler_0_3, limits, load,
    load_with, options,
};

async fn text(loaded: &Loaded) -> String {
    let response = loaded.function.handle(get()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_at_once_are_answered_by_a_rust_component() {
    let loaded = load(RUST_0_2, limits());
    let requests = (0..100).map(|_| {
        let function = loaded.function.clone();
        tokio::spawn(async move {
            let response = function.handle(get()).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap().to_bytes()
        })
    });
    let bodies = futures::future::try_join_all(requests).await.unwrap();
    assert!(!bodies[0].is_empty());
    assert!(bodies.iter().all(|body| *body == bodies[0]));

    eventually("every instance is gone", || {
        loaded.function.usage().in_flight == 0
    })
    .await;
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors), (100, 0));
    assert_eq!(usage.memory_bytes, 0);
    assert!(usage.cpu_micros > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_of_wasi_0_3_answers() {
    let loaded = load(&handler_0_3("(call $respond)"), limits());
    for _ in 0..3 {
        assert_eq!(text(&loaded).await, "");
    }
    eventually("every instance is gone", || {
        loaded.function.usage().in_flight == 0
    })
    .await;
    let usage = loaded.function.usage();
    assert_eq!((usage.requests, usage.errors), (3, 0));
    assert_eq!(usage.memory_bytes, 0);
}

/// QuickJS has no `TextEncoder`, which this component's script asks for.
#[tokio::test]
async fn what_a_script_throws_in_wasi_0_3_is_in_the_log() {
    let loaded = load(JAVASCRIPT_0_3, limits());
    let error = loaded.function.handle(get()).await.unwrap_err();
    assert!(matches!(error, InvokeError::Trap(_)), "{error}");
    let lines = loaded.logs.of(LogStream::Stderr);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("TextEncoder is not defined")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn environment_stdout_and_stderr_reach_the_function_and_its_log() {
    // Prints the first variable's value and newline to stdout, its name to stderr.
    let guest = handler(
        r#"(local $first i32)
           (call $get-environment (i32.const 32))
           (local.set $first (i32.load (i32.const 32)))
           (i32.store8 (i32.const 64) (i32.const 10))
           (call $write (call $get-stdout)
             (i32.load offset=8 (local.get $first)) (i32.load offset=12 (local.get $first))
             (i32.const 48))
           (call $write (call $get-stdout) (i32.const 64) (i32.const 1) (i32.const 48))
           (call $write (call $get-stderr)
             (i32.load (local.get $first)) (i32.load offset=4 (local.get $first))
             (i32.const 48))"#,
    );
    let loaded = load_with(&guest, |logs| {
        let mut options = options(limits(), logs);
        options.env = vec![("GREETING".to_owned(), "hello there".to_owned())];
        options
    });
    let mut request = get();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let parent = http::HeaderValue::from_static(parent);
    request.headers_mut().insert("traceparent", parent);
    loaded.function.handle(request).await.unwrap_err();

    assert_eq!(loaded.logs.of(LogStream::Stdout), ["hello there"]);
    // Never ended by the guest, so written when it ended.
    assert_eq!(loaded.logs.of(LogStream::Stderr), ["GREETING"]);
    for record in loaded.logs.records() {
        assert_eq!(record.request_id.as_deref(), Some("request-1"));
        let trace = record.trace_id.as_deref();
        assert_eq!(trace, Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(&*record.function, "default/test");
    }
}

#[tokio::test]
async fn nothing_of_one_request_is_seen_by_the_next() {
    // Counts in memory, and prints the count.
    let guest = handler(
        r#"(i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1)))
           (i32.store8 (i32.const 1) (i32.add (i32.load8_u (i32.const 0)) (i32.const 48)))
           (call $write (call $get-stdout) (i32.const 1) (i32.const 1) (i32.const 48))"#,
    );
    let loaded = load(&guest, limits());
    for _ in 0..3 {
        loaded.function.handle(get()).await.unwrap_err();
    }
    assert_eq!(loaded.logs.of(LogStream::Stdout), ["1", "1", "1"]);
}

/// Answers, computes for longer than a turn, and prints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_may_go_on_after_answering_a_head_request() {
    let guest = handler(
        r#"(local $n i32)
           (drop (call $begin (local.get $out)))
           (loop
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if 0 (i32.lt_u (local.get $n) (i32.const 400000000))))
           (i32.store8 (i32.const 64) (i32.const 120))
           (call $write (call $get-stdout) (i32.const 64) (i32.const 1) (i32.const 48))"#,
    );
    let loaded = load(&guest, limits());
    let mut request = get();
    *request.method_mut() = http::Method::HEAD;
    drop(loaded.function.handle(request).await.unwrap());
    assert_eq!(loaded.function.usage().in_flight, 1);
    eventually("it has printed", || {
        loaded.logs.of(LogStream::Stdout) == ["x"]
    })
    .await;
    assert_eq!(loaded.function.usage().errors, 0);
}
