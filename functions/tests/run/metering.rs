//! Every request is counted once, as what it came to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hive_functions::{BoxBody, FunctionUsage, InvokeError, Limits, Reason, latency};
use http_body_util::{BodyExt, Full};

use crate::{
    guests::{Loaded, eventually, get_of, limits, looping},
    sandbox::probe_with,
};

/// When nothing of it runs any more.
async fn usage(loaded: &Loaded) -> FunctionUsage {
    eventually("nothing runs", || loaded.function.usage().in_flight == 0).await;
    loaded.function.usage()
}

fn ended(usage: &FunctionUsage) -> u64 {
    usage.durations.iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_counted_under_what_it_came_to() {
    let probe = probe_with(|options| options.limits.response_bytes = 1000);
    for (target, reason) in [
        ("/trap", Reason::Trap),
        ("/silent", Reason::NoResponse),
        ("/error?text=no", Reason::ErrorCode),
        ("/silent", Reason::NoResponse),
    ] {
        let error = probe.function.handle(get_of(target)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{target}");
    }
    // A body that is cut off after its head.
    let cut = probe.function.handle(get_of("/large?kib=5"));
    let cut = cut.await.unwrap().into_body().collect().await;
    assert!(cut.is_err());
    // Statuses of its own are no errors.
    for status in ["200", "404", "503", "204"] {
        let target = format!("/status?code={status}");
        let answer = probe.function.handle(get_of(&target)).await.unwrap();
        assert_eq!(answer.status().as_str(), status);
        answer.into_body().collect().await.unwrap();
    }

    let usage = usage(&probe).await;
    assert_eq!((usage.requests, usage.admitted, usage.errors), (9, 9, 5));
    let mut expected = [0; Reason::ALL.len()];
    for (reason, count) in [
        (Reason::Trap, 1),
        (Reason::NoResponse, 2),
        (Reason::ErrorCode, 1),
        (Reason::ResponseTooLarge, 1),
    ] {
        expected[reason as usize] = count;
    }
    assert_eq!(usage.errors_by_reason, expected);
    assert_eq!(usage.responses, [0, 3, 0, 1, 1], "of which one was cut off");
    assert_eq!(ended(&usage), 9);
    assert_eq!(usage.cold_starts, 1, "the first of all");
    assert!(usage.cpu_micros > 0 && usage.duration_micros > 0);
}

#[tokio::test]
async fn who_got_no_turn_has_not_run_and_who_went_away_has() {
    let one_at_once = Limits {
        concurrency: 1,
        queue: Duration::ZERO,
        ..limits()
    };
    let loaded = crate::guests::load(&looping(), one_at_once);
    let running = tokio::spawn({
        let function = loaded.function.clone();
        async move { function.handle(get_of("/")).await.map(drop) }
    });
    eventually("one runs", || loaded.function.usage().in_flight == 1).await;
    let refused = loaded.function.handle(get_of("/")).await;
    assert_eq!(refused.unwrap_err(), InvokeError::Overloaded);
    let passed_on = loaded.function.handle_within(Duration::ZERO, get_of("/"));
    assert_eq!(passed_on.await.unwrap_err(), InvokeError::Overloaded);
    assert_eq!(ended(&loaded.function.usage()), 0, "one has not ended");

    running.abort();
    let usage = usage(&loaded).await;
    eventually("its end is counted", || {
        ended(&loaded.function.usage()) == 1
    })
    .await;
    assert_eq!((usage.requests, usage.admitted, usage.errors), (2, 1, 1));
    assert_eq!(usage.errors_by_reason[Reason::Overloaded as usize], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_those_of_bodies_that_went_through() {
    let probe = probe_with(|_| ());
    let mut request = get_of("/echo");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() =
        BoxBody::new(Full::new(Bytes::from(vec![b'x'; 100_000])).map_err(|never| match never {}));
    let answer = probe.function.handle(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 100_000);
    let usage = usage(&probe).await;
    assert_eq!((usage.bytes_in, usage.bytes_out), (100_000, 100_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_counted_while_it_is_held() {
    let began = Instant::now();
    let probe = probe_with(|_| ());
    let answer = probe.function.handle(get_of("/slow?ms=50")).await.unwrap();
    answer.into_body().collect().await.unwrap();
    let usage = usage(&probe).await;
    let kib = usage.high_water_bytes >> 10;
    assert!(kib >= 64, "{kib}");
    assert!(usage.memory_kib_micros >= 64 * 49_000, "a page at least");
    // However slow the machine: it cannot have been held for longer than it was there.
    assert!(usage.memory_kib_micros <= kib * began.elapsed().as_micros() as u64);
    let p99 = latency::quantile(&usage.durations, 0.99).unwrap();
    assert!(p99 >= 25_000.0, "the bucket of 50 ms or a later one: {p99}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_function_and_those_after_them_count_together() {
    let meter = Arc::default();
    let load = || probe_with(|options| options.meter = Arc::clone(&meter));
    let (one, other) = (load(), load());
    for probe in [&one, &one, &other] {
        let answer = probe.function.handle(get_of("/")).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    let before = usage(&one).await;
    assert_eq!((before.requests, before.cold_starts), (3, 2));
    drop((one, other));
    let next = load();
    next.function.handle(get_of("/trap")).await.unwrap_err();
    let usage = usage(&next).await;
    assert_eq!((usage.requests, usage.errors), (4, 1));
    assert_eq!(usage.cold_starts, 3);
    assert!(usage.memory_kib_micros >= before.memory_kib_micros);
}
