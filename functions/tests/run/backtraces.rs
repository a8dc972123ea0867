//! Where a guest was when it stopped is in its log, and in short in the event.

use std::{process::Command, time::Duration};

use hive_functions::{InvokeError, Limits, LogStream};

use crate::{
    guests::{
        Loaded, Logs, RUNTIME, RUST_0_2, TIMEOUT, compiled, get, get_of, guest, guest_0_3,
        handler_0_3, limits, load, options, verified,
    },
    sandbox::probe_with,
};

/// What the log says of the failure of one request, and the message of its event.
async fn told(loaded: &Loaded) -> (Vec<String>, String) {
    let error = loaded.function.handle(get()).await.unwrap_err();
    let events: Vec<_> = loaded
        .logs
        .records()
        .into_iter()
        .filter_map(|record| record.event)
        .collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].reason, error.reason().as_str());
    (loaded.logs.of(LogStream::Hive), events[0].message.clone())
}

#[tokio::test]
async fn a_trap_names_the_functions_it_came_from() {
    let in_0_2 = guest(
        r#"(func $inner unreachable)
           (func $outer (call $inner))
           (func (export "handle") (param i32 i32) (call $outer))"#,
    );
    let (lines, event) = told(&load(&in_0_2, limits())).await;
    assert!(lines[0].starts_with("Trap: "), "{lines:?}");
    assert_eq!(lines[1], "    at main!inner");
    assert_eq!(lines[2], "    at main!outer");
    assert!(event.contains(" in inner < outer < "), "{event}");

    let in_0_3 = handler_0_3("unreachable");
    let (lines, event) = told(&load(&in_0_3, limits())).await;
    assert!(lines[1].starts_with("    at main!"), "{lines:?}");
    assert!(event.contains(" in "), "{event}");
}

#[tokio::test]
async fn a_deep_stack_has_a_backtrace_of_its_innermost_frames() {
    let deep = guest(
        r#"(func $deep (param i32) (result i32)
             (i32.add (call $deep (local.get 0)) (local.get 0)))
           (func (export "handle") (param i32 i32) (drop (call $deep (i32.const 1))))"#,
    );
    let (lines, event) = told(&load(&deep, limits())).await;
    assert_eq!(lines.len(), 1 + 32);
    assert!(event.ends_with(" in deep < deep < deep"), "{event}");
}

#[tokio::test]
async fn memory_that_ran_out_names_who_asked_for_it() {
    let greedy = guest(
        r#"(func $allocate
             (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
           (func (export "handle") (param i32 i32) (call $allocate))"#,
    );
    let (_, event) = told(&load(&greedy, limits())).await;
    assert!(event.starts_with("memory limit of "), "{event}");
    assert!(event.contains(" in allocate < "), "{event}");
}

#[tokio::test]
async fn a_panic_in_rust_names_the_program_s_own_function() {
    let probe = probe_with(|_| ());
    let error = probe.function.handle(get_of("/trap")).await.unwrap_err();
    assert!(matches!(error, InvokeError::Trap(_)), "{error}");
    assert!(
        !error.to_string().contains("probe"),
        "callers see no inside"
    );
    let lines = probe.logs.of(LogStream::Hive);
    assert!(
        lines.iter().any(|line| line.contains("probe::trap")),
        "{lines:#?}"
    );
    let events: Vec<_> = probe
        .logs
        .records()
        .into_iter()
        .filter_map(|record| record.event)
        .collect();
    assert!(events[0].message.contains("probe::trap"), "{events:?}");
}

#[tokio::test]
async fn what_computes_until_it_is_stopped_names_where_it_was() {
    let in_0_2 = guest(
        r#"(func $spin (loop (br 0)))
           (func (export "handle") (param i32 i32) (call $spin))"#,
    );
    let in_0_3 = guest_0_3(
        r#"(func $spin (loop (br 0)))
           (func (export "handle") (param i32) (result i32) (call $spin) unreachable)"#,
    );
    for guest in [in_0_2, in_0_3] {
        let by_timeout = Limits {
            timeout: TIMEOUT,
            ..limits()
        };
        let (lines, event) = told(&load(&guest, by_timeout)).await;
        assert!(lines[0].starts_with("Timeout: "), "{lines:?}");
        assert_eq!(lines[1], "    at main!spin");
        assert!(event.contains(" in spin < "), "{event}");

        let by_cpu_time = Limits {
            cpu_time: Duration::from_millis(50),
            ..limits()
        };
        let (lines, event) = told(&load(&guest, by_cpu_time)).await;
        assert!(lines[0].starts_with("CpuTimeout: "), "{lines:?}");
        assert!(event.contains(" in spin < "), "{event}");
    }
}

#[tokio::test]
async fn what_waits_until_it_is_stopped_was_nowhere() {
    let probe = probe_with(|options| options.limits.timeout = TIMEOUT);
    let stopped = probe.function.handle(get_of("/slow?ms=60000")).await;
    assert!(matches!(stopped, Err(InvokeError::Timeout(_))));
    assert_eq!(probe.logs.of(LogStream::Hive).len(), 1);
}

/// An event for each text that a guest makes up would be an object for each.
#[tokio::test]
async fn what_a_guest_says_itself_is_in_the_log_and_not_in_the_event() {
    let probe = probe_with(|_| ());
    let error = probe.function.handle(get_of("/error?text=needle")).await;
    assert!(error.unwrap_err().to_string().contains("needle"));
    let records = probe.logs.records();
    let record = records
        .iter()
        .find(|record| record.event.is_some())
        .unwrap();
    assert!(record.text.contains("needle"), "{record:?}");
    let event = record.event.as_ref().unwrap();
    assert!(event.message.contains("InternalError"), "{event:?}");
    assert!(!event.message.contains("needle"), "{event:?}");
}

/// Wasmtime reads this variable, and compares what it says when it loads.
#[test]
fn the_environment_does_not_change_what_loads() {
    const ARTIFACT: &str = "HIVE_TEST_ARTIFACT";
    if let Some(path) = std::env::var_os(ARTIFACT) {
        let (_directory, artifact) = verified(&std::fs::read(path).unwrap());
        let logs = Logs::default();
        RUNTIME.load(&artifact, options(limits(), &logs)).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("artifact");
    std::fs::write(&path, compiled(RUST_0_2)).unwrap();
    let loaded = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "backtraces::the_environment_does_not_change_what_loads",
        ])
        .env(ARTIFACT, &path)
        .env("WASMTIME_BACKTRACE_DETAILS", "1")
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
}
