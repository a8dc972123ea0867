//! Who waits for which log entry to be applied.
//!
//! Each is woken once, by the apply it waits for: with hundreds of writers, waking all of them at
//! each would cost more than the applying.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub struct Progress(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    applied: u64,
    ended: bool,
    /// By the entry's index, then by who came first.
    waiters: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    came: u64,
}

/// Nothing is applied any more.
#[derive(Debug)]
pub struct Ended;

impl Progress {
    pub fn starting_at(applied: u64) -> Self {
        Self(Mutex::new(Waiting {
            applied,
            ..Waiting::default()
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .lock()
            .expect("nothing panics while it holds the waiters")
    }

    /// Everything up to `index` is applied, and published.
    pub fn advance(&self, index: u64) {
        let mut waiting = self.lock();
        waiting.applied = waiting.applied.max(index);
        let next = waiting.applied + 1;
        let later = waiting.waiters.split_off(&(next, 0));
        let reached = std::mem::replace(&mut waiting.waiters, later);
        drop(waiting);
        for waiter in reached.into_values() {
            // Who gave up waiting is not there any more.
            let _ = waiter.send(());
        }
    }

    pub fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.waiters.clear();
    }

    /// Waits until entry `index` is applied.
    pub async fn reached(&self, index: u64) -> Result<(), Ended> {
        let told = {
            let mut waiting = self.lock();
            if waiting.applied >= index {
                return Ok(());
            }
            if waiting.ended {
                return Err(Ended);
            }
            let (waiter, told) = oneshot::channel();
            waiting.came += 1;
            let came = waiting.came;
            waiting.waiters.insert((index, came), waiter);
            told
        };
        told.await.map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;

    #[test]
    fn each_waiter_is_woken_by_the_entry_it_waits_for() {
        let progress = Progress::starting_at(3);
        assert!(progress.reached(3).now_or_never().unwrap().is_ok());
        let mut fifth = Box::pin(progress.reached(5));
        let mut ninth = Box::pin(progress.reached(9));
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(ninth.as_mut().now_or_never().is_none());
        progress.advance(4);
        assert!(fifth.as_mut().now_or_never().is_none());
        progress.advance(8);
        assert!(fifth.as_mut().now_or_never().unwrap().is_ok());
        assert!(ninth.as_mut().now_or_never().is_none());
        progress.end();
        assert!(ninth.as_mut().now_or_never().unwrap().is_err());
        assert!(progress.reached(10).now_or_never().unwrap().is_err());
        assert!(progress.reached(8).now_or_never().unwrap().is_ok());
    }
}
