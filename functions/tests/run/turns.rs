//! Requests beyond those that a function may run at once.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hive_functions::{InvokeError, Limits, LogStream, Waited};
use http::StatusCode;

use crate::{
    guests::{Loaded, eventually, get, get_of, limits, load, looping},
    sandbox::probe_with,
};

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
