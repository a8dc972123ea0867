//! What one input may cost: time of the processor and memory, whatever else the machine does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of a thread's own time, in a build without optimisation: thousands of times what good inputs take.
const TIME: Duration = Duration::from_secs(2);

const MEMORY: usize = 64 * 1024 * 1024;

/// No input is worth so much in one piece: better to end here than to take the machine along.
const TOO_LARGE: usize = 4 * 1024 * 1024 * 1024;

pub struct Budget {
    pub time: Duration,
    pub memory: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            time: TIME,
            memory: MEMORY,
        }
    }
}

/// What was exceeded.
pub enum Excess {
    Time(Duration),
    Memory(usize),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(took) => write!(f, "it took {took:?} of the processor"),
            Self::Memory(bytes) => write!(f, "it took {bytes} bytes of memory"),
        }
    }
}

fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Budget {
    /// Only what happens on this thread counts.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> (T, Option<Excess>) {
        let before = HELD.get();
        PEAK.set(before);
        let begun = own_time();
        let result = work();
        let took = own_time().saturating_sub(begun);
        let peak = PEAK.get().saturating_sub(before).max(0) as usize;
        let excess = if took > self.time {
            Some(Excess::Time(took))
        } else if peak > self.memory {
            Some(Excess::Memory(peak))
        } else {
            None
        };
        (result, excess)
    }
}

thread_local! {
    /// What this thread allocated less what it freed; below 0 where it frees what others allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Threads allocate until they are gone, when their counters are gone already.
    let _ = HELD.try_with(|held| {
        let now = held.get().saturating_add(bytes);
        held.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

/// The system's allocator, counting. A crate whose targets are to be held to their memory names it
/// as the global one in its tests.
pub struct Counting;

// SAFETY: everything is passed to `System` as it came, or refused, which is an allocator's right;
// the counters are plain cells without a destructor and allocate nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > TOO_LARGE {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > TOO_LARGE {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > TOO_LARGE {
            return std::ptr::null_mut();
        }
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}
