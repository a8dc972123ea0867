//! When a machine is short of memory, as agents and controllers agree.

/// Available memory of which no less may be left: a part of all that there is, and bytes. A board is short of it at a
/// twentieth, a server not before the bytes.
const LEAST_PART: u64 = 20;
const LEAST_BYTES: u64 = 256 << 20;

/// What a machine with so much memory is short below. Once it is, it is so until twice that is available.
pub fn least_available(all: u64) -> u64 {
    (all / LEAST_PART).min(LEAST_BYTES)
}
