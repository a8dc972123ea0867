//! Which places of the code an input reached, if the compiler was asked to count.
//!
//! `-C passes=sancov-module` with `inline-8bit-counters` puts a counter at every branch and tells
//! where they are before `main`. Without it nothing is counted, and verdicts alone tell inputs apart.

use std::sync::Mutex;

/// One crate's counters.
struct Counters {
    first: *mut u8,
    count: usize,
}

// SAFETY: the counters live as long as the program. Only `Coverage` goes through the pointers, and it
// takes counts that another thread changes meanwhile for what they are: hints.
#[allow(unsafe_code)]
unsafe impl Send for Counters {}

static COUNTERS: Mutex<Vec<Counters>> = Mutex::new(Vec::new());

// SAFETY: the name belongs to this interface of LLVM's; nothing else in a program of tests has it.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(first: *mut u8, end: *mut u8) {
    let count = (end as usize).saturating_sub(first as usize);
    if let Ok(mut counters) = COUNTERS.lock() {
        counters.push(Counters { first, count });
    }
}

/// What all inputs reached together.
#[derive(Default)]
pub struct Coverage {
    seen: Vec<u8>,
    places: usize,
}

/// Once, some times, often: a loop that runs longer is something new, one more round is not.
fn bucket(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=15 => 4,
        16..=127 => 8,
        128.. => 16,
    }
}

/// Counters looked at together: nearly all of them are 0.
const TOGETHER: usize = 64;

impl Coverage {
    pub fn begin(&mut self) {
        each(|counters| counters.fill(0));
    }

    /// Whether anything new was reached since it began.
    pub fn end(&mut self) -> bool {
        let (mut from, mut news) = (0, false);
        each(|counters| {
            for part in counters.chunks(TOGETHER) {
                if part.iter().any(|count| *count != 0) {
                    news |= self.reached(from, part);
                }
                from += part.len();
            }
        });
        news
    }

    fn reached(&mut self, from: usize, counts: &[u8]) -> bool {
        if self.seen.len() < from + counts.len() {
            self.seen.resize(from + counts.len(), 0);
        }
        let mut news = false;
        for (seen, count) in self.seen[from..].iter_mut().zip(counts) {
            let how_often = bucket(*count);
            if *seen & how_often != how_often {
                self.places += usize::from(*seen == 0);
                *seen |= how_often;
                news = true;
            }
        }
        news
    }

    pub fn places(&self) -> usize {
        self.places
    }
}

#[allow(unsafe_code)]
fn each(mut act: impl FnMut(&mut [u8])) {
    let Ok(counters) = COUNTERS.lock() else {
        return;
    };
    for Counters { first, count } in counters.iter() {
        // SAFETY: what the compiler handed over, which is never freed. Targets that count run one at
        // a time (`--test-threads=1`) and end their own threads, so nothing else writes meanwhile.
        act(unsafe { std::slice::from_raw_parts_mut(*first, *count) });
    }
}
