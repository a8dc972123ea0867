//! What takes processor time, memory, or waits.

use std::{hint::black_box, time::Duration};

use wasip3::clocks::monotonic_clock;

pub fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

pub async fn wait(time: Duration) {
    monotonic_clock::wait_for(time.as_nanos() as u64).await;
}

pub async fn sleep(milliseconds: u64) -> String {
    wait(Duration::from_millis(milliseconds)).await;
    format!("slept {milliseconds} ms\n")
}

/// Waits for no time at all, again and again, for so long or for ever.
pub async fn poll(time: Option<Duration>) -> String {
    let started = monotonic_clock::now();
    let is_over = |time: Duration| u128::from(monotonic_clock::now() - started) >= time.as_nanos();
    let mut polls = 0u64;
    while !time.is_some_and(is_over) {
        wait(Duration::ZERO).await;
        polls += 1;
    }
    format!("polled {polls} times\n")
}

/// Grows its memory page by page until it gets no more.
pub fn grow() -> usize {
    let mut pages = 0;
    while core::arch::wasm32::memory_grow(0, 1) != usize::MAX {
        pages += 1;
    }
    pages
}
