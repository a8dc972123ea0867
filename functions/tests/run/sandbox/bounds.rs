//! What the host holds for a guest, and what it sends for it, is bounded too.

use std::time::Duration;

use hive_functions::{BoxBody, InvokeError, Limits};
use http_body_util::BodyExt;

use super::{answer, both, both_with};
use crate::guests::{Loaded, eventually, get, get_of, handler, handler_0_3, limits, load};

const RESPONSE_BYTES: u64 = 1 << 20;

async fn stopped(probe: &Loaded, target: &str) -> InvokeError {
    probe.function.handle(get_of(target)).await.unwrap_err()
}

#[tokio::test]
async fn handles_are_counted_whatever_they_are_to() {
    let by_0_2 = ["fields", "request", "pollable", "stream"];
    // There, who waits has a call under way, streams have two ends, and a request has some.
    let by_0_3 = ["fields", "request", "call", "stream", "future"];
    for (probe, kinds) in both().iter().zip([&by_0_2[..], &by_0_3]) {
        for kind in kinds {
            let (few, many) = (
                format!("/handles?kind={kind}&count=100"),
                format!("/handles?kind={kind}&count=1000000"),
            );
            assert_eq!(answer(probe, &few).await, "held 100\n", "{kind}");
            let error = stopped(probe, &many).await;
            assert_eq!(error, InvokeError::HandleLimit(Limits::HANDLES), "{kind}");
            assert_eq!(error.status(), 502);
        }
        // Those that answered may go on for a moment after that.
        eventually("the guests are gone", || {
            probe.function.usage().in_flight == 0
        })
        .await;
        let usage = probe.function.usage();
        assert_eq!((usage.errors, usage.memory_bytes), (kinds.len() as u64, 0));
    }
}

#[tokio::test]
async fn handles_are_as_many_as_the_function_says() {
    let handles = 64;
    let limited = |options: &mut hive_functions::FunctionOptions| options.limits.handles = handles;
    for probe in both_with(limited) {
        assert_eq!(answer(&probe, "/handles?count=20").await, "held 20\n");
        let error = stopped(&probe, "/handles?count=70").await;
        assert_eq!(error, InvokeError::HandleLimit(handles));
    }
}

#[tokio::test]
async fn handles_of_wasi_0_3_and_of_the_guest_itself_are_counted_as_well() {
    let of_the_guest = handler("(loop (drop (call $own (i32.const 1))) (br 0))");
    let of_0_3 = handler_0_3("(loop (drop (call $fields)) (br 0)) unreachable");
    for guest in [of_the_guest, of_0_3] {
        let error = load(&guest, limits()).function.handle(get()).await;
        assert_eq!(
            error.unwrap_err(),
            InvokeError::HandleLimit(Limits::HANDLES)
        );
    }
}

#[tokio::test]
async fn what_one_call_hands_over_is_bounded() {
    for probe in both() {
        assert_eq!(answer(&probe, "/argument?kib=32").await, "passed 32 KiB\n");
        // That is no path, and the host may say so.
        let long = answer(&probe, "/argument?kib=8000").await;
        assert!(long.starts_with("refused "), "{long}");
        let error = stopped(&probe, "/argument?kib=9000").await;
        assert!(
            matches!(&error, InvokeError::Trap(why) if why.contains("too much data")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn random_bytes_come_in_pieces_that_the_host_can_hold() {
    let [earlier, later] = both();
    for probe in [&earlier, &later] {
        let most = answer(probe, "/random?bytes=1048576").await;
        assert_eq!(most, "got 1048576 bytes\n");
    }
    let error = stopped(&earlier, "/random?bytes=1048577").await;
    assert!(
        matches!(&error, InvokeError::Trap(why) if why.contains("exceeds limit")),
        "{error}"
    );
    // By 0.3 a guest says how many it takes at most.
    let less = answer(&later, "/random?bytes=1000000000").await;
    assert_eq!(less, "got 1048576 bytes\n");
}

#[tokio::test]
async fn one_set_of_headers_is_bounded() {
    let [earlier, later] = both();
    for probe in [&earlier, &later] {
        assert_eq!(answer(probe, "/headers?kib=32").await, "appended 32 KiB\n");
    }
    let error = stopped(&earlier, "/headers?kib=70").await;
    assert!(
        matches!(&error, InvokeError::Trap(why) if why.contains("fields exceeds limit")),
        "{error}"
    );
    // By 0.3 a guest is told.
    let told = answer(&later, "/headers?kib=70").await;
    assert!(
        told.starts_with("refused after 6") && told.contains("SizeExceeded"),
        "{told}"
    );
}

fn with_short_responses() -> [Loaded; 2] {
    both_with(|options| options.limits.response_bytes = RESPONSE_BYTES)
}

#[tokio::test]
async fn a_response_that_is_too_long_is_broken_off_and_its_guest_stopped() {
    for probe in with_short_responses() {
        let complete = answer(&probe, "/large?kib=1024").await;
        assert_eq!(complete.len() as u64, RESPONSE_BYTES);

        let response = probe.function.handle(get_of("/large?kib=4096")).await;
        let mut body: BoxBody = response.unwrap().into_body();
        let mut received = 0;
        let error = loop {
            match body.frame().await.expect("the body must not look complete") {
                Ok(frame) => received += frame.into_data().unwrap().len() as u64,
                Err(error) => break error,
            }
        };
        assert!(received <= RESPONSE_BYTES, "{received}");
        let error: Box<InvokeError> = error.downcast().unwrap();
        assert_eq!(*error, InvokeError::ResponseTooLarge(RESPONSE_BYTES));
        // With the body still there.
        eventually("the guest is gone", || {
            probe.function.usage().in_flight == 0
        })
        .await;
        assert_eq!(probe.function.usage().errors, 1);
    }
}

#[tokio::test]
async fn a_response_that_says_it_is_too_long_does_not_begin() {
    for probe in with_short_responses() {
        let error = stopped(&probe, "/large?kib=2048&declared=2097152").await;
        assert_eq!(error, InvokeError::ResponseTooLarge(RESPONSE_BYTES));
        assert_eq!(error.status(), 502);
        assert_eq!(probe.function.usage().errors, 1);
    }
}

#[tokio::test]
async fn cpu_time_is_counted_over_many_short_turns() {
    let cpu_time = Duration::from_millis(50);
    for probe in both_with(|options| options.limits.cpu_time = cpu_time) {
        let error = stopped(&probe, "/poll0").await;
        assert_eq!(error, InvokeError::CpuTimeout(cpu_time));
    }
}
