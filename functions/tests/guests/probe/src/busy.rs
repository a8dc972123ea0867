//! What takes processor time, or waits for nothing.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use wasip2::{clocks::monotonic_clock::subscribe_duration, io::poll};

pub fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Computes for so long by the clock.
pub fn for_time(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        black_box(compute(1000));
    }
}

/// The same work for the same number of turns: xorshift, whose loop no compiler shortens.
pub fn compute(turns: u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..turns {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// Polls what is ready at once, again and again, for so long or for ever.
pub fn poll(time: Option<Duration>) -> u64 {
    let started = Instant::now();
    let mut polls = 0;
    while time.is_none_or(|time| started.elapsed() < time) {
        poll::poll(&[&subscribe_duration(0)]);
        polls += 1;
    }
    polls
}

/// Calls itself until the stack has ended.
pub fn recurse(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        return depth;
    }
    // Used after the call: no loop can take its place.
    recurse(depth + 1).wrapping_add(black_box(depth))
}
