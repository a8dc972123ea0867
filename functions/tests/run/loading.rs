//! What the runtime does and does not take.

use std::time::Duration;

use hive_functions::{
    Allocation, Compiler, InvokeError, LoadError, Runtime, RuntimeOptions, StartError, Target,
    host_target,
};
use http_body_util::BodyExt;

use crate::guests::{
    Loaded, Logs, RUNTIME, RUST_0_2, compiled, eventually, get, guest_with_memory, handler,
    handler_0_3, limits, load_compiled_on, looping, options, verified,
};

fn refused(artifact: &[u8]) -> LoadError {
    let (_directory, artifact) = verified(artifact);
    let loaded = RUNTIME.load(&artifact, options(limits(), &Logs::default()));
    loaded.err().expect("it must be refused")
}

#[test]
fn code_for_other_targets_is_made_but_not_loaded() {
    for target in Target::ALL {
        let artifact = Compiler::new(target.as_str())
            .unwrap()
            .compile(RUST_0_2)
            .unwrap();
        if target.as_str() != host_target() {
            let error = refused(&artifact);
            assert!(matches!(error, LoadError::Incompatible { .. }), "{error}");
        }
    }
    assert!(Compiler::new("vax").is_err());
}

#[test]
fn what_is_no_compiled_component_is_not_loaded() {
    for artifact in [b"".as_slice(), b"garbage", RUST_0_2] {
        let error = refused(artifact);
        assert!(matches!(error, LoadError::Incompatible { .. }), "{error}");
    }
}

#[test]
fn a_component_without_a_handler_is_not_loaded() {
    let empty = wat::parse_str("(component)").unwrap();
    assert!(matches!(refused(&compiled(&empty)), LoadError::WrongWorld));
}

#[test]
fn a_component_with_unknown_imports_is_not_loaded() {
    let importing =
        wat::parse_str(r#"(component (import "a:b/c" (instance (export "f" (func)))))"#);
    let error = refused(&compiled(&importing.unwrap()));
    assert!(
        matches!(&error, LoadError::Imports(what) if what.contains("a:b/c")),
        "{error}"
    );
}

#[test]
fn a_component_that_starts_over_its_limit_is_not_loaded() {
    let main = r#"(func (export "handle") (param i32 i32))"#;
    let error = refused(&compiled(&guest_with_memory(2000, main)));
    let LoadError::MemoryLimit { initial, limit } = error else {
        panic!("{error}");
    };
    assert_eq!((initial, limit), (2000 * 65536, limits().memory_bytes));
}

#[test]
fn options_that_mean_nothing_are_refused() {
    assert!(matches!(
        Runtime::start(RuntimeOptions {
            max_instances: 0,
            ..RuntimeOptions::default()
        }),
        Err(StartError::NoInstances)
    ));
    let (_directory, artifact) = verified(&compiled(&handler("")));
    let mut no_concurrency = options(limits(), &Logs::default());
    no_concurrency.limits.concurrency = 0;
    assert!(matches!(
        RUNTIME.load(&artifact, no_concurrency),
        Err(LoadError::NoConcurrency)
    ));
    let mut wrong_host = options(limits(), &Logs::default());
    wrong_host.allowed_hosts = vec!["https://example.com".to_owned()];
    assert!(matches!(
        RUNTIME.load(&artifact, wrong_host),
        Err(LoadError::AllowedHosts(_))
    ));
}

/// With fewer slots than requests, requests wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_pool_answers_many_requests_in_turn() {
    let runtime = Runtime::start(RuntimeOptions {
        max_instances: 2,
        ..RuntimeOptions::default()
    })
    .unwrap();
    assert_eq!(runtime.allocation(), Allocation::Pooled { slots: 2 });
    let (_directory, artifact) = verified(&compiled(RUST_0_2));
    let function = runtime
        .load(&artifact, options(limits(), &Logs::default()))
        .unwrap();
    let requests = (0..20).map(|_| {
        let function = function.clone();
        async move {
            function
                .handle(get())
                .await
                .map(|response| response.status())
        }
    });
    let statuses = futures::future::try_join_all(requests).await.unwrap();
    assert_eq!(statuses, [http::StatusCode::OK; 20]);
}

/// As many as there are slots, of both worlds: each slot has what an instance needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_runs_as_many_instances_at_once_as_it_has_slots_for() {
    const SLOTS: u32 = 16;
    let looping_0_3 = handler_0_3("(loop (br 0)) unreachable");
    for (code, at_once) in [
        (compiled(&looping()), SLOTS),
        (compiled(&looping_0_3), SLOTS / 2),
    ] {
        let options = RuntimeOptions {
            max_instances: SLOTS,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::start(options).unwrap();
        let loaded = load_compiled_on(&runtime, &code, |_| ());
        let requests: Vec<_> = (0..=at_once)
            .map(|_| {
                let function = loaded.function.clone();
                tokio::spawn(async move { function.handle(get()).await.map(drop) })
            })
            .collect();
        eventually("all run but one, which waits", || {
            let usage = loaded.function.usage();
            (usage.in_flight, usage.waiting) == (at_once, 1)
        })
        .await;
        assert_eq!(loaded.function.usage().errors, 0);
        requests.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Alone in its runtime: what others load is idle, too.
fn alone(component: &[u8]) -> (Runtime, Loaded) {
    let options = RuntimeOptions {
        max_instances: 4,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::start(options).unwrap();
    let loaded = load_compiled_on(&runtime, &compiled(component), |_| ());
    (runtime, loaded)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_nobody_asks_gives_back_its_code_and_answers_all_the_same() {
    let (runtime, idle) = alone(RUST_0_2);
    let answer = async || {
        let answer = idle.function.handle(get()).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let first = answer().await;
    assert_eq!(
        runtime.unmap_idle(Duration::from_secs(3600)),
        0,
        "just used"
    );
    eventually("the instance is gone", || {
        idle.function.usage().in_flight == 0
    })
    .await;
    // Not before what the request held is dropped, shortly after.
    let mut unmapped = 0;
    eventually("it is unmapped", || {
        unmapped += runtime.unmap_idle(Duration::ZERO);
        unmapped > 0
    })
    .await;
    assert_eq!(
        runtime.unmap_idle(Duration::ZERO),
        0,
        "it is unmapped already"
    );
    let together = futures::future::join_all((0..8).map(|_| answer())).await;
    assert!(together.iter().all(|answer| *answer == first));
    assert_eq!(idle.function.usage().cold_starts, 2);
    drop(idle);
    assert_eq!(runtime.unmap_idle(Duration::ZERO), 0, "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_at_work_keeps_its_code() {
    let (runtime, busy) = alone(&looping());
    let request = tokio::spawn({
        let function = busy.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("it runs", || busy.function.usage().in_flight == 1).await;
    assert_eq!(runtime.unmap_idle(Duration::ZERO), 0);
    request.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_changed_while_it_was_not_mapped_does_not_run() {
    let (runtime, idle) = alone(RUST_0_2);
    assert_eq!(runtime.unmap_idle(Duration::ZERO), 1);
    let file = idle.directory.path().join("artifact");
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let error = idle.function.handle(get()).await.map(drop).unwrap_err();
    assert!(matches!(error, InvokeError::Code(_)), "{error}");
    assert!(error.nothing_ran());
    content[middle] ^= 1;
    std::fs::write(&file, &content).unwrap();
    assert_eq!(idle.function.handle(get()).await.unwrap().status(), 200);
}
