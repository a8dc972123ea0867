//! Instances that answer several requests.

use std::time::Duration;

use futures::future::join_all;
use hive_functions::{
    Function, FunctionOptions, Instances, InvokeError, LogStream, Reuse, Runtime, RuntimeOptions,
};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use crate::{
    guests::{
        Loaded, RUST_0_2, compiled, eventually, get, get_of, limits, load_compiled,
        load_compiled_on, looping, options, shared_guest,
    },
    sandbox::{PROBE, probe_with},
};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn instances(reuse: Reuse) -> Instances {
    Instances {
        reuse: Some(reuse),
        idle_timeout: LONG,
        ..Instances::default()
    }
}

fn probe(change: impl FnOnce(&mut FunctionOptions)) -> Loaded {
    probe_with(|options| {
        options.instances = instances(Reuse::Serial);
        change(options);
    })
}

/// A component of WASI 0.3 whose instances take several requests at once; see `guest-shared.wat`.
fn sharing(turn: &str, change: impl FnOnce(&mut FunctionOptions)) -> Loaded {
    load_compiled(&compiled(&shared_guest(turn)), |logs| {
        let mut options = options(limits(), logs);
        options.instances = instances(Reuse::Concurrent);
        change(&mut options);
        options
    })
}

/// Sleeps for a day.
const SLEEPS: &str = "(i32.const 86400000)";

async fn text(loaded: &Loaded, target: &str) -> String {
    let response = loaded.function.handle(get_of(target)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap().trim().to_owned()
}

async fn counts(loaded: &Loaded, requests: usize) -> Vec<String> {
    let mut counts = Vec::new();
    for _ in 0..requests {
        counts.push(text(loaded, "/count").await);
        idle(loaded).await;
    }
    counts
}

/// Nothing is under way, and the instance that was there takes the next request, if it did not go: an answer
/// is whole before the guest has come to rest.
async fn idle(loaded: &Loaded) {
    eventually("nothing is under way, nor about to end", || {
        let usage = loaded.function.usage();
        usage.in_flight == 0 && (usage.seats > 0 || usage.memory_bytes == 0)
    })
    .await;
}

async fn gone(loaded: &Loaded) {
    eventually("no instance is left", || {
        loaded.function.usage().memory_bytes == 0
    })
    .await;
}

type Answer = Result<u16, InvokeError>;

fn ask(function: &Function) -> JoinHandle<Answer> {
    let function = function.clone();
    tokio::spawn(async move {
        let answer = function.handle(get()).await?;
        Ok(answer.status().as_u16())
    })
}

/// What one instance of `guest-shared.wat` has.
const PAGE: u64 = 65536;

/// One request more, in the one instance that has `others` under way already.
async fn join(sharing: &Loaded, others: u32) -> JoinHandle<Answer> {
    let usage = || sharing.function.usage();
    let takes_one = || others == 0 || usage().seats == 1;
    eventually("the instance takes one more", takes_one).await;
    let asked = ask(&sharing.function);
    let begun = || usage().in_flight == others + 1 || usage().errors > 0;
    eventually("it has begun", begun).await;
    asked
}

/// So many requests in one instance.
async fn under_way(sharing: &Loaded, requests: u32) -> Vec<JoinHandle<Answer>> {
    let mut asked = Vec::new();
    for others in 0..requests {
        asked.push(join(sharing, others).await);
        eventually("there is the instance", || {
            sharing.function.usage().memory_bytes == PAGE
        })
        .await;
    }
    asked
}

#[tokio::test]
async fn who_shares_instances_counts_on_and_who_does_not_begins_anew() {
    let serial = probe(|_| ());
    assert_eq!(counts(&serial, 3).await, ["1", "2", "3"]);
    let fresh = probe(|options| options.instances = instances(Reuse::Fresh));
    assert_eq!(counts(&fresh, 3).await, ["1", "1", "1"]);
    let by_default = probe(|options| options.instances = Instances::default());
    assert_eq!(counts(&by_default, 3).await, ["1", "1", "1"]);
    // Of WASI 0.2, which takes one request at a time.
    let concurrent = probe(|options| options.instances = instances(Reuse::Concurrent));
    assert_eq!(counts(&concurrent, 3).await, ["1", "2", "3"]);

    for reuse in [None, Some(Reuse::Serial), Some(Reuse::Concurrent)] {
        let sharing = sharing("(i32.const 0)", |it| it.instances.reuse = reuse);
        for expected in [201, 202, 203] {
            assert_eq!(ask(&sharing.function).await.unwrap(), Ok(expected));
            idle(&sharing).await;
        }
    }
}

#[tokio::test]
async fn an_instance_ends_with_its_last_request() {
    let probe = probe(|options| options.instances.max_requests = 2);
    assert_eq!(counts(&probe, 5).await, ["1", "2", "1", "2", "1"]);
}

#[tokio::test]
async fn an_instance_with_nothing_to_do_goes() {
    let probe = probe(|options| options.instances.idle_timeout = Duration::from_millis(20));
    assert_eq!(counts(&probe, 1).await, ["1"]);
    gone(&probe).await;
    assert_eq!(counts(&probe, 1).await, ["1"]);
    assert_eq!(probe.function.usage().errors, 0);
}

#[tokio::test]
async fn an_instance_goes_with_its_function() {
    let runtime = Runtime::start(RuntimeOptions::default()).unwrap();
    let probe = load_compiled_on(&runtime, &PROBE, |options| {
        options.instances = instances(Reuse::Serial);
    });
    assert_eq!(counts(&probe, 2).await, ["1", "2"]);
    assert!(runtime.memory_used() > 0, "it is kept");
    drop(probe);
    eventually("its memory is back", || runtime.memory_used() == 0).await;
}

#[tokio::test]
async fn what_a_request_prints_is_its_own() {
    let probe = probe(|_| ());
    for id in ["first", "second"] {
        let mut request = get_of("/log");
        let value = id.try_into().unwrap();
        request.headers_mut().insert("x-request-id", value);
        let answer = probe.function.handle(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
        idle(&probe).await;
    }
    let ids: Vec<_> = probe
        .logs
        .records()
        .into_iter()
        .filter(|record| record.stream == LogStream::Stdout)
        .filter_map(|record| record.request_id)
        .collect();
    assert_eq!(ids, ["first".into(), "second".into()]);
}

#[tokio::test]
async fn a_guest_that_fails_is_not_asked_again() {
    let probe = probe(|_| ());
    assert_eq!(counts(&probe, 2).await, ["1", "2"]);
    for target in ["/trap", "/silent", "/exit?code=1"] {
        probe.function.handle(get_of(target)).await.unwrap_err();
        gone(&probe).await;
        assert_eq!(counts(&probe, 2).await, ["1", "2"], "after {target}");
    }
    // Its own way to answer.
    probe.function.handle(get_of("/error")).await.unwrap_err();
    idle(&probe).await;
    assert_eq!(counts(&probe, 1).await, ["3"]);
    assert_eq!(probe.function.usage().errors, 4);
}

#[tokio::test]
async fn each_request_is_held_to_its_own_limits() {
    let cpu_time = Duration::from_millis(200);
    let probe = probe(|options| options.limits.cpu_time = cpu_time);
    for _ in 0..4 {
        assert_eq!(text(&probe, "/busy?ms=90").await, "computed for 90 ms");
        idle(&probe).await;
    }
    assert_eq!(counts(&probe, 1).await, ["1"], "they were one instance's");
    let error = probe.function.handle(get_of("/spin")).await.unwrap_err();
    assert_eq!(error, InvokeError::CpuTimeout(cpu_time));
    gone(&probe).await;
}

#[tokio::test]
async fn a_request_that_times_out_takes_its_instance_along() {
    let timeout = Duration::from_millis(300);
    let probe = probe(|options| options.limits.timeout = timeout);
    for target in ["/slow?ms=3600000", "/stream?chunks=2&ms=3600000"] {
        let error = match probe.function.handle(get_of(target)).await {
            Err(error) => error,
            Ok(answer) => {
                let error = answer.into_body().collect().await.unwrap_err();
                *error.downcast().unwrap()
            }
        };
        assert_eq!(error, InvokeError::Timeout(timeout), "{target}");
        gone(&probe).await;
    }
    assert_eq!(probe.function.usage().errors, 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_a_guest_along_that_is_its_own() {
    let probe = probe(|_| ());
    let asked = tokio::spawn({
        let function = probe.function.clone();
        async move { function.handle(get_of("/slow?ms=3600000")).await.map(drop) }
    });
    eventually("it has begun", || probe.function.usage().in_flight == 1).await;
    asked.abort();
    gone(&probe).await;
    assert_eq!(probe.function.usage().errors, 0);
}

#[tokio::test]
async fn one_instance_sleeps_for_sixteen() {
    let sharing = sharing(SLEEPS, |_| ());
    let asked = under_way(&sharing, 16).await;
    // That is as many as it takes.
    let more = ask(&sharing.function);
    eventually("another has begun", || {
        sharing.function.usage().memory_bytes == 2 * PAGE
    })
    .await;
    for request in asked.iter().chain([&more]) {
        request.abort();
    }
    gone(&sharing).await;
    assert_eq!(sharing.function.usage().errors, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_share_an_instance_are_answered() {
    let sharing = sharing("(i32.const 1)", |options| {
        // The guest piles up two handles for each.
        options.instances.max_requests = 200;
        options.limits.concurrency = 20;
    });
    let answers = join_all((0..500).map(|_| ask(&sharing.function))).await;
    for answer in answers {
        assert!((201..=400).contains(&answer.unwrap().unwrap()));
    }
    idle(&sharing).await;
    let usage = sharing.function.usage();
    assert_eq!((usage.requests, usage.errors), (500, 0));
}

#[tokio::test]
async fn a_trap_ends_all_that_share_the_instance_and_says_so() {
    let turn = format!("(if (i32.eq (local.get $n) (i32.const 4)) (then unreachable)) {SLEEPS}");
    let sharing = sharing(&turn, |_| ());
    let mut asked = under_way(&sharing, 3).await;
    asked.push(join(&sharing, 3).await);
    for answer in join_all(asked).await {
        let error = answer.unwrap().unwrap_err();
        assert!(matches!(error, InvokeError::Trap(_)), "{error}");
    }
    gone(&sharing).await;
    assert_eq!(sharing.function.usage().errors, 4);
    let mut lines = sharing.logs.of(LogStream::Hive);
    lines.retain(|line| !line.starts_with("    at "));
    assert_eq!(lines.len(), 4, "{lines:?}");
    let honest = |line: &String| line.contains("any may be the cause");
    assert!(lines.iter().all(honest), "{lines:?}");
}

#[tokio::test]
async fn a_spinner_ends_with_those_that_share_its_instance_only() {
    let turn = format!("(if (i32.eq (local.get $n) (i32.const 3)) (then (loop (br 0)))) {SLEEPS}");
    let cpu_time = Duration::from_millis(50);
    let sharing = sharing(&turn, |options| options.limits.cpu_time = cpu_time);
    let mut asked = under_way(&sharing, 2).await;
    asked.push(join(&sharing, 2).await);
    // Nobody waits behind who computes.
    let busy = || sharing.function.usage().cpu_micros > 20_000;
    eventually("it computes", busy).await;
    let other = ask(&sharing.function);
    for answer in join_all(asked).await {
        let error = answer.unwrap().unwrap_err();
        assert_eq!(error, InvokeError::CpuTimeout(cpu_time));
    }
    eventually("the other is under way alone", || {
        let usage = sharing.function.usage();
        (usage.in_flight, usage.memory_bytes) == (1, PAGE)
    })
    .await;
    other.abort();
    gone(&sharing).await;
    assert_eq!(sharing.function.usage().errors, 3);
}

/// Instances are kept of what nobody wants: a pool of two has room for one.
#[tokio::test]
async fn instances_with_nothing_to_do_give_way_to_those_who_wait() {
    let runtime = Runtime::start(RuntimeOptions {
        max_instances: 4,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let kept = load_compiled_on(&runtime, &PROBE, |options| {
        options.instances = instances(Reuse::Serial);
    });
    // Four at once, of which two may stay.
    let asked = (0..4).map(|_| kept.function.handle(get_of("/slow?ms=50")));
    for answer in join_all(asked).await {
        answer.unwrap().into_body().collect().await.unwrap();
    }
    idle(&kept).await;
    let hello = load_compiled_on(&runtime, &compiled(RUST_0_2), |options| {
        options.limits.queue = Duration::ZERO;
    });
    eventually("half of the slots are free", || {
        kept.function.usage().memory_bytes <= 2 * kept.function.usage().high_water_bytes
    })
    .await;
    for _ in 0..2 {
        let answer = hello.function.handle(get()).await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    // Who needs more than is free has them leave.
    let spinning = load_compiled_on(&runtime, &compiled(&looping()), |_| ());
    let all: Vec<_> = (0..4).map(|_| ask(&spinning.function)).collect();
    eventually("all four are theirs", || {
        spinning.function.usage().in_flight == 4
    })
    .await;
    assert_eq!(kept.function.usage().memory_bytes, 0);
    all.iter().for_each(JoinHandle::abort);
}

/// As Rust's toolchain makes it: the body is written by a task of its own after the head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_requests_that_share_an_instance_do_not_mix() {
    const HELLO: &[u8] = include_bytes!("../../../manifests/examples/rust-p3/hello_p3.wasm");
    let hello = load_compiled(&compiled(HELLO), |logs| {
        let mut options = options(limits(), logs);
        options.instances = Instances::default();
        options.limits.concurrency = 30;
        options
    });
    let asked = (0..300).map(|number| {
        let function = hello.function.clone();
        tokio::spawn(async move {
            let path = format!("/{number}?a");
            let answer = function.handle(get_of(&path)).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains(&format!("{path}\n")), "{path}: {text}");
        })
    });
    for ended in join_all(asked).await {
        ended.unwrap();
    }
    idle(&hello).await;
    let usage = hello.function.usage();
    assert_eq!((usage.requests, usage.errors), (300, 0));
}
