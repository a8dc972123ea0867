//! Random bytes for secrets and serial numbers, from the operating system and nowhere else.

use ring::rand::{SecureRandom, SystemRandom};

/// Panics where the system has no random source: `getrandom(2)` fails only before Linux 3.17 or
/// under a filter that forbids it, and there no key and no TLS connection could be made either.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system provides random bytes");
    bytes
}
