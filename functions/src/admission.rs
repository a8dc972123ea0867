//! Who runs now, and who waits for its turn.
//!
//! A request takes a place of its function, then a slot for each memory of its instance and the bytes
//! that these begin with, of those that all functions share. Where none is free it waits, first come first served, until its time
//! is up: a burst is answered late rather than refused. Nothing of a function runs while its
//! request waits, and the number of those that wait is bounded. (Who needs ten slots holds up those
//! behind it that need one; to let them pass would starve it.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    invoke::InvokeError,
    limits::budget::{Budget, Share},
};

/// Requests that wait at once, over all functions. Each holds a head and what came of its body: some
/// 10 KB as a rule, 80 KB at most.
const WAITING_AT_MOST: u32 = 4096;

/// Of these, how many may be of one function: a flood of one leaves places for the others.
const WAITING_OF_ONE: u32 = 1024;

/// What all functions of a runtime share.
pub(crate) struct Admission {
    /// One permit a memory: the pool fails where it has none, it does not wait.
    slots: Arc<Semaphore>,
    memory: Arc<Budget>,
    waiting: AtomicU32,
}

/// What one instance of a function takes to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// For its memories and its stacks, whichever are more.
    pub slots: u32,
    pub bytes: u64,
}

/// One function's side of it.
pub(crate) struct Turns {
    running: Arc<Semaphore>,
    waiting: AtomicU32,
    needs: Needs,
}

/// What a request holds while its instance lives.
pub(crate) struct Admitted {
    pub places: Places,
    /// Of the memory: goes on to the instance, which adds to it.
    pub share: Share,
}

pub(crate) struct Places {
    _running: OwnedSemaphorePermit,
    _slots: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(concurrency: u32, needs: Needs) -> Self {
        Self {
            running: Arc::new(Semaphore::new(concurrency as usize)),
            waiting: AtomicU32::new(0),
            needs,
        }
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Admission {
    pub(crate) fn new(slots: u32, memory_bytes: u64) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots as usize)),
            memory: Arc::new(Budget::new(memory_bytes)),
            waiting: AtomicU32::new(0),
        }
    }

    /// Waits for a turn for `patience` at most, counted from the request's arrival.
    pub(crate) async fn admit(
        &self,
        turns: &Turns,
        arrived: Instant,
        patience: Duration,
    ) -> Result<Admitted, InvokeError> {
        if let Some(admitted) = self.try_admit(turns) {
            return Ok(admitted);
        }
        if patience.is_zero() {
            return Err(InvokeError::Overloaded);
        }
        let _node = Place::take(&self.waiting, WAITING_AT_MOST)?;
        let _function = Place::take(&turns.waiting, WAITING_OF_ONE)?;
        timeout_at(arrived + patience, self.turn(turns))
            .await
            .map_err(|_| InvokeError::QueueTimeout(patience))
    }

    pub(crate) fn memory(&self) -> &Budget {
        &self.memory
    }

    /// Passes nobody who waits: tokio gives what becomes free to them first.
    fn try_admit(&self, turns: &Turns) -> Option<Admitted> {
        let running = turns.running.clone().try_acquire_owned().ok()?;
        let needs = turns.needs;
        let slots = self.slots.clone().try_acquire_many_owned(needs.slots);
        Some(Admitted {
            places: Places {
                _running: running,
                _slots: slots.ok()?,
            },
            share: self.memory.try_share(needs.bytes)?,
        })
    }

    async fn turn(&self, turns: &Turns) -> Admitted {
        const NEVER_CLOSED: &str = "nothing closes these semaphores";
        // In this order: of one function's requests, at most `concurrency` compete with the others'.
        let running = turns.running.clone().acquire_owned().await;
        let needs = turns.needs;
        let slots = self.slots.clone().acquire_many_owned(needs.slots).await;
        Admitted {
            places: Places {
                _running: running.expect(NEVER_CLOSED),
                _slots: slots.expect(NEVER_CLOSED),
            },
            share: self.memory.share(needs.bytes).await,
        }
    }
}

/// A place among those that wait; given back when dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, most: u32) -> Result<Self, InvokeError> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        if before < most {
            Ok(place)
        } else {
            Err(InvokeError::Overloaded)
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn slots(slots: u32) -> Admission {
        Admission::new(slots, 1000)
    }

    fn turns(concurrency: u32, slots: u32, bytes: u64) -> Turns {
        Turns::new(concurrency, Needs { slots, bytes })
    }

    async fn admit(
        admission: &Admission,
        turns: &Turns,
        patience: Duration,
    ) -> Result<Admitted, InvokeError> {
        admission.admit(turns, Instant::now(), patience).await
    }

    #[tokio::test]
    async fn turns_come_in_order_and_end_with_the_request() {
        let (admission, turns) = (slots(10), turns(1, 1, 1));
        let first = admit(&admission, &turns, PATIENCE).await.unwrap();
        let mut second = Box::pin(admit(&admission, &turns, PATIENCE));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(admit(&admission, &turns, PATIENCE));
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(turns.waiting(), 2);

        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().unwrap().unwrap();
        assert_eq!(turns.waiting(), 1);

        // Who goes away waits no longer, and its turn is not lost.
        drop(third);
        assert_eq!(turns.waiting(), 0);
        drop(second);
        assert!(
            admit(&admission, &turns, Duration::ZERO)
                .now_or_never()
                .unwrap()
                .is_ok()
        );
    }

    #[tokio::test]
    async fn who_waits_is_refused_when_its_time_is_up_or_at_once_without_patience() {
        let (admission, turns) = (slots(10), turns(1, 1, 1));
        let _running = admit(&admission, &turns, PATIENCE).await.unwrap();
        assert_eq!(
            admit(&admission, &turns, Duration::ZERO)
                .now_or_never()
                .unwrap()
                .err(),
            Some(InvokeError::Overloaded)
        );

        let (arrived, patience) = (Instant::now(), Duration::from_millis(20));
        let late = admission.admit(&turns, arrived, patience).await;
        assert_eq!(late.err(), Some(InvokeError::QueueTimeout(patience)));
        assert!(arrived.elapsed() >= patience);
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn functions_share_the_slots() {
        let admission = slots(10);
        let (large, small) = (turns(10, 8, 1), turns(10, 1, 1));
        let running = admit(&admission, &large, PATIENCE).await.unwrap();
        let mut waiting = Box::pin(admit(&admission, &large, PATIENCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        // It would fit, and goes behind the one that does not.
        let mut behind = Box::pin(admit(&admission, &small, PATIENCE));
        assert!(behind.as_mut().now_or_never().is_none());
        drop(running);
        let _large = waiting.now_or_never().unwrap().unwrap();
        assert!(behind.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn functions_share_the_memory() {
        let admission = slots(10);
        let (large, small) = (turns(10, 1, 600), turns(10, 1, 100));
        let running = admit(&admission, &large, PATIENCE).await.unwrap();
        let _beside = admit(&admission, &small, PATIENCE).await.unwrap();
        let mut waiting = Box::pin(admit(&admission, &large, PATIENCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        let hasty = admit(&admission, &small, Duration::ZERO).await;
        assert_eq!(hasty.err(), Some(InvokeError::Overloaded), "it would pass");
        drop(running);
        assert!(waiting.now_or_never().unwrap().is_ok());
        assert_eq!(admission.memory().used(), 100);
    }

    #[tokio::test]
    async fn the_queues_are_bounded_and_one_function_leaves_places_for_others() {
        let admission = slots(1);
        let functions: Vec<Turns> = (0..5).map(|_| turns(1, 1, 1)).collect();
        let _running = admit(&admission, &functions[0], PATIENCE).await.unwrap();

        let mut waiting = Vec::new();
        let mut refused = Vec::new();
        for turns in &functions {
            for _ in 0..=WAITING_OF_ONE {
                let mut request = Box::pin(admit(&admission, turns, PATIENCE));
                match request.as_mut().now_or_never() {
                    None => waiting.push(request),
                    Some(answer) => refused.push(answer.err()),
                }
            }
        }
        assert_eq!(waiting.len(), WAITING_AT_MOST as usize);
        // One of each of the four that filled the queue, and all of the last.
        assert_eq!(refused.len(), 4 + WAITING_OF_ONE as usize + 1);
        let overloaded = |error: &Option<InvokeError>| *error == Some(InvokeError::Overloaded);
        assert!(refused.iter().all(overloaded));

        drop(waiting);
        assert_eq!(functions[0].waiting(), 0);
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}
