//! Memory to read into, one piece for each thread: connections that wait for bytes hold none.

use std::cell::Cell;

/// Read at a time. More gains little; as much as a partial write can leave behind for one connection. Every datagram
/// fits in.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the thread's piece, with whatever was left in it.
pub(crate) fn lend<T>(to: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|cell| {
        let mut scratch = cell
            .take()
            .unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
        let result = to(&mut scratch);
        cell.set(Some(scratch));
        result
    })
}
