//! Wherever a guest spends time, it is held to its limits, and others are answered meanwhile.

use std::time::Duration;

use hive_functions::{BoxBody, FunctionOptions, InvokeError, Limits, Reason};
use http_body_util::BodyExt;

use super::{answer, both, both_with};
use crate::guests::{Loaded, TIMEOUT, eventually, get, get_of, limits, load, silent};

/// For guests that answer nothing: however late they begin, that is how they end.
const SHORT: Duration = Duration::from_millis(200);

fn briefly(options: &mut FunctionOptions) {
    options.limits.timeout = TIMEOUT;
}

async fn is_gone(loaded: &Loaded) {
    eventually("the guest is gone", || {
        loaded.function.usage().in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn what_starts_before_the_handler_has_the_same_limits() {
    let first = "(func $first (loop (br 0))) (start $first)";
    let endless = silent(first);
    let cpu_time = Duration::from_millis(50);
    let by_timeout = Limits {
        timeout: SHORT,
        ..limits()
    };
    let by_cpu_time = Limits {
        cpu_time,
        ..limits()
    };
    for (limits, expected) in [
        (by_timeout, InvokeError::Timeout(SHORT)),
        (by_cpu_time, InvokeError::CpuTimeout(cpu_time)),
    ] {
        for endless in &endless {
            let error = load(endless, limits.clone()).function.handle(get()).await;
            assert_eq!(error.unwrap_err(), expected);
        }
    }
}

#[tokio::test]
async fn a_guest_that_computes_on_after_its_answer_is_stopped() {
    for probe in both_with(briefly) {
        assert_eq!(answer(&probe, "/after").await, "answered\n");
        is_gone(&probe).await;
        // At the timeout of its request, and not when its processor time was over, minutes later.
        let errors = probe.function.usage().errors_by_reason;
        assert_eq!(errors[Reason::Timeout as usize], 1);
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off_at_the_timeout() {
    for probe in both_with(briefly) {
        let response = probe.function.handle(get_of("/stream?chunks=100000&ms=5"));
        let mut body: BoxBody = response.await.unwrap().into_body();
        let error = loop {
            match body.frame().await.expect("the body must not look complete") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let error: Box<InvokeError> = error.downcast().unwrap();
        assert_eq!(*error, InvokeError::Timeout(TIMEOUT));
        is_gone(&probe).await;
    }
}

#[tokio::test]
async fn a_guest_that_sleeps_for_ever_is_stopped() {
    for probe in both_with(|options| options.limits.timeout = SHORT) {
        let stopped = probe.function.handle(get_of("/slow?ms=4000000000")).await;
        assert_eq!(stopped.unwrap_err(), InvokeError::Timeout(SHORT));
        assert!(probe.function.usage().cpu_micros < SHORT.as_micros() as u64);
        is_gone(&probe).await;
    }
}

/// On a single thread: what loops, what polls without end and what goes on after its answer must
/// all let others run.
#[tokio::test]
async fn busy_guests_of_every_kind_let_others_be_answered() {
    for (target, busy) in ["/spin", "/poll0", "/after"]
        .into_iter()
        .flat_map(|target| both().map(|busy| (target, busy)))
    {
        let running = tokio::spawn({
            let function = busy.function.clone();
            async move {
                let answered = function.handle(get_of(target)).await;
                // Holds on to the body of what has answered.
                std::future::pending::<()>().await;
                drop(answered);
            }
        });
        eventually("it runs", || busy.function.usage().in_flight == 1).await;
        for neighbour in both() {
            for _ in 0..5 {
                assert_eq!(answer(&neighbour, "/").await, "hello\n", "{target}");
            }
        }
        assert_eq!(busy.function.usage().in_flight, 1, "{target}");
        running.abort();
        is_gone(&busy).await;
    }
}
