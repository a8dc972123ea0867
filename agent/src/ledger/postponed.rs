//! A disk that is written to later: an agent that was killed serves before its ledger is mended.
//!
//! redb opens a file that was not closed in five to eight syncs, of milliseconds each on a slow disk. None of
//! them is needed to read it. They are done in the same order, with the same writes between them, only later:
//! at each moment the disk has what it would have had without this.

use std::fmt;
use std::io;
use std::mem;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// Opening takes some twenty, of which each write is a header of some hundred bytes. What takes more is not
/// postponed, since all of it is in memory.
const MAX_STEPS: usize = 64;

/// A clone is the same.
#[derive(Clone)]
pub struct Postponed(Arc<Shared>);

struct Shared {
    disk: Box<dyn StorageBackend>,
    state: Mutex<State>,
}

enum State {
    /// What the disk is to be told, in this order.
    Behind(Vec<Step>),
    /// Nothing is postponed any more.
    Through,
    /// The disk did some of it, and this is what it said. A sync that is tried again succeeds over what is lost.
    Failed(String),
}

enum Step {
    Write { offset: u64, data: Vec<u8> },
    Sync,
}

impl Postponed {
    pub fn new(disk: impl StorageBackend) -> Self {
        Self(Arc::new(Shared {
            disk: Box::new(disk),
            state: Mutex::new(State::Behind(Vec::new())),
        }))
    }

    /// Does what was postponed, and postpones nothing from now on. Blocks for some disk syncs.
    pub fn settle(&self) -> io::Result<()> {
        self.catch_up(&mut self.state())
    }

    fn catch_up(&self, state: &mut State) -> io::Result<()> {
        let steps = match state {
            State::Behind(steps) => mem::take(steps),
            State::Through => return Ok(()),
            State::Failed(why) => return Err(failed(why)),
        };
        // Whoever panics on the way leaves it so.
        *state = State::Failed("it was not told everything".to_owned());
        let told = steps.into_iter().try_for_each(|step| match step {
            Step::Write { offset, data } => self.0.disk.write(offset, &data),
            Step::Sync => self.0.disk.sync_data(),
        });
        *state = match &told {
            Ok(()) => State::Through,
            Err(error) => State::Failed(error.to_string()),
        };
        told
    }

    /// Whether it is. If not, all that came before it is done.
    fn postpone(&self, step: impl FnOnce() -> Step) -> io::Result<bool> {
        let mut state = self.state();
        if let State::Behind(steps) = &mut *state
            && steps.len() < MAX_STEPS
        {
            steps.push(step());
            return Ok(true);
        }
        self.catch_up(&mut state)?;
        Ok(false)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the bytes: there may be secrets of functions among them.
impl fmt::Debug for Postponed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Postponed");
        shown.field("disk", &self.0.disk).finish_non_exhaustive()
    }
}

impl StorageBackend for Postponed {
    fn len(&self) -> io::Result<u64> {
        self.0.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        self.0.disk.read(offset, out)?;
        match &*state {
            State::Behind(steps) => {
                for step in steps {
                    if let Step::Write { offset: at, data } = step {
                        lay_over(out, offset, data, *at);
                    }
                }
                Ok(())
            }
            State::Through => Ok(()),
            State::Failed(why) => Err(failed(why)),
        }
    }

    /// No part of opening: closing may do it.
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.settle()?;
        self.0.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.postpone(|| Step::Sync)? {
            true => Ok(()),
            false => self.0.disk.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let step = || Step::Write {
            offset,
            data: data.to_vec(),
        };
        match self.postpone(step)? {
            true => Ok(()),
            false => self.0.disk.write(offset, data),
        }
    }

    /// What is still postponed is given up: it is as if the file had not been opened.
    fn close(&self) -> io::Result<()> {
        self.0.disk.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.disk.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.query_lock_range(start, end)
    }
}

fn failed(why: &str) -> io::Error {
    io::Error::other(format!("the disk failed before: {why}"))
}

/// Puts over what was read at `offset` what of `data` is written there, at `at`.
fn lay_over(out: &mut [u8], offset: u64, data: &[u8], at: u64) {
    let begin = offset.max(at);
    let end = (offset + out.len() as u64).min(at + data.len() as u64);
    if begin < end {
        // All three are at most the length of one of the two.
        let (to, from) = ((begin - offset) as usize, (begin - at) as usize);
        let length = (end - begin) as usize;
        out[to..to + length].copy_from_slice(&data[from..from + length]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use redb::backends::InMemoryBackend;

    use super::*;

    const LENGTH: usize = 8;

    fn disk() -> Postponed {
        let disk = InMemoryBackend::new();
        disk.set_len(LENGTH as u64).unwrap();
        Postponed::new(disk)
    }

    #[test]
    fn what_was_written_is_read_before_it_is_on_the_disk_and_after() {
        let ranges = || (0..LENGTH).flat_map(|from| (from + 1..=LENGTH).map(move |to| from..to));
        for first in ranges() {
            for second in ranges() {
                let disk = disk();
                let mut expected = [0; LENGTH];
                for (range, with) in [(first.clone(), 1), (second, 2)] {
                    expected[range.clone()].fill(with);
                    let offset = range.start as u64;
                    disk.write(offset, &expected[range]).unwrap();
                }
                let same = || {
                    for range in ranges() {
                        let mut read = vec![9; range.len()];
                        disk.read(range.start as u64, &mut read).unwrap();
                        assert_eq!(read, expected[range]);
                    }
                };
                same();
                disk.settle().unwrap();
                same();
            }
        }
    }

    /// A disk that takes writes, and no sync.
    #[derive(Debug)]
    struct Failing(InMemoryBackend);

    impl StorageBackend for Failing {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(io::Error::other("no space left"))
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    #[test]
    fn what_a_disk_said_when_it_failed_is_said_from_then_on() {
        let disk = InMemoryBackend::new();
        disk.set_len(LENGTH as u64).unwrap();
        let disk = Postponed::new(Failing(disk));
        disk.write(0, &[1]).unwrap();
        disk.sync_data().unwrap();
        let text = |done: io::Result<()>| done.unwrap_err().to_string();
        assert_eq!(text(disk.settle()), "no space left");
        let before = "the disk failed before: no space left";
        for _ in 0..2 {
            assert_eq!(text(disk.settle()), before);
            assert_eq!(text(disk.write(0, &[1])), before);
            assert_eq!(text(disk.read(0, &mut [0])), before);
        }
    }

    #[test]
    fn what_is_postponed_is_bounded() {
        let disk = disk();
        for step in 0..=MAX_STEPS {
            assert!(matches!(&*disk.state(), State::Behind(steps) if steps.len() == step));
            disk.sync_data().unwrap();
        }
        assert!(matches!(&*disk.state(), State::Through));
    }
}
