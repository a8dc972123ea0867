//! Makes the input of a finding small, so that a person sees what it is about.

use std::time::{Duration, Instant};

/// Some inputs take long, since that is what they show.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn least(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut least = input.to_vec();
    let begun = Instant::now();
    let mut size = least.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < least.len() && begun.elapsed() < PATIENCE {
            let mut smaller = least.clone();
            smaller.drain(start..(start + size).min(least.len()));
            match fails(&smaller) {
                true => least = smaller,
                false => start += size,
            }
        }
        size /= 2;
    }
    least
}
