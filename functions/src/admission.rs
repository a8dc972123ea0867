//! Who runs now, and who waits for its turn.
//!
//! A request takes a place of its function, then a slot for each memory of its instance and the bytes
//! that these begin with, of those that all functions share. Where none is free it waits, first come first served, until its time
//! is up: a burst is answered late rather than refused. While the machine is short of memory only seats in
//! instances that there are are given, and one instance at a time starts. Nothing of a function runs while its
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
    sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified},
    time::{Instant, timeout_at},
};

use crate::{
    invoke::InvokeError,
    limits::budget::{Budget, MachineMemory, Share},
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
    all_slots: usize,
    memory: Arc<Budget>,
    waiting: AtomicU32,
    /// Those of them that have their function's turn, and want slots or memory.
    wanting: AtomicU32,
    wanted: Notify,
}

const NEVER_CLOSED: &str = "nothing closes these semaphores";

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

/// A place among a function's requests under way.
pub(crate) struct Turn {
    _running: OwnedSemaphorePermit,
    waited: Option<Waited>,
}

/// In the extensions of a response: how long its request waited for its turn. Who got it at once has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited(pub Duration);

impl Turn {
    pub(crate) fn waited(&self) -> Option<Waited> {
        self.waited
    }
}

/// What an instance holds while it lives.
pub(crate) struct Room {
    pub slots: OwnedSemaphorePermit,
    /// Of the memory: goes on to the store, which adds to it.
    pub share: Share,
}

/// Where a request is answered.
pub(crate) enum Place<S> {
    /// By an instance that there is.
    Seat(S),
    New(Room),
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
            all_slots: slots as usize,
            memory: Arc::new(Budget::new(memory_bytes)),
            waiting: AtomicU32::new(0),
            wanting: AtomicU32::new(0),
            wanted: Notify::new(),
        }
    }

    /// Waits for a turn for `patience` at most, counted from the request's arrival. It is answered by
    /// who offers it a seat, or else in a new instance.
    pub(crate) async fn admit<S>(
        &self,
        turns: &Turns,
        arrived: Instant,
        patience: Duration,
        seat: impl Fn() -> Option<S>,
    ) -> Result<(Turn, Place<S>), InvokeError> {
        if let Some(admitted) = self.try_admit(turns, &seat) {
            return Ok(admitted);
        }
        if patience.is_zero() {
            return Err(InvokeError::Overloaded);
        }
        let _node = Waiting::bounded(&self.waiting, WAITING_AT_MOST)?;
        let _function = Waiting::bounded(&turns.waiting, WAITING_OF_ONE)?;
        let until = arrived + patience;
        // In this order: of one function's requests, at most `concurrency` compete with the others'.
        let running = timeout_at(until, turns.running.clone().acquire_owned()).await;
        let running = running.map_err(|_| InvokeError::QueueTimeout(patience))?;
        let place = timeout_at(until, self.place(turns, seat)).await;
        let place = place.map_err(|_| match self.memory.is_held_up(turns.needs.bytes) {
            true if self.has_slots_for(turns) => InvokeError::MemoryPressure(patience),
            _ => InvokeError::QueueTimeout(patience),
        })?;
        let turn = Turn {
            _running: running.expect(NEVER_CLOSED),
            waited: Some(Waited(arrived.elapsed())),
        };
        Ok((turn, place))
    }

    fn has_slots_for(&self, turns: &Turns) -> bool {
        self.slots.available_permits() >= turns.needs.slots as usize
    }

    /// What the machine has for instances changed.
    pub(crate) fn set_machine_memory(&self, machine: MachineMemory) {
        self.memory.set_machine(machine);
        if machine.is_short {
            // Instances with nothing to do end.
            self.wanted.notify_waiters();
        }
    }

    /// A place for a request that has its turn, and waits for as long as it takes.
    pub(crate) async fn place<S>(&self, turns: &Turns, seat: impl Fn() -> Option<S>) -> Place<S> {
        if let Some(place) = self.try_place(turns, &seat) {
            return place;
        }
        let _wanting = Waiting::new(&self.wanting);
        self.wanted.notify_waiters();
        let needs = turns.needs;
        let slots = self.slots.clone().acquire_many_owned(needs.slots).await;
        Place::New(Room {
            slots: slots.expect(NEVER_CLOSED),
            share: self.memory.share(needs.bytes).await,
        })
    }

    /// One slot more for what runs already, if there is one that nobody waits for.
    pub(crate) fn try_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    pub(crate) fn memory(&self) -> &Budget {
        &self.memory
    }

    /// Whether instances with nothing to do are in the way: they may have what nobody wants, and of
    /// that half, so that who can't wait is not refused for them.
    pub(crate) fn is_scarce(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
            || self.slots.available_permits() < self.all_slots / 2
            || self.memory.is_scarce()
    }

    /// Comes when somebody begins to wait for what instances have.
    pub(crate) fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// Passes nobody who waits: tokio gives what becomes free to them first.
    fn try_admit<S>(
        &self,
        turns: &Turns,
        seat: &impl Fn() -> Option<S>,
    ) -> Option<(Turn, Place<S>)> {
        let running = turns.running.clone().try_acquire_owned().ok()?;
        let turn = Turn {
            _running: running,
            waited: None,
        };
        Some((turn, self.try_place(turns, seat)?))
    }

    fn try_place<S>(&self, turns: &Turns, seat: &impl Fn() -> Option<S>) -> Option<Place<S>> {
        if let Some(seat) = seat() {
            return Some(Place::Seat(seat));
        }
        let needs = turns.needs;
        let slots = self.slots.clone().try_acquire_many_owned(needs.slots);
        Some(Place::New(Room {
            slots: slots.ok()?,
            share: self.memory.try_share(needs.bytes)?,
        }))
    }
}

/// One of those that wait, while it lives.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }

    fn bounded(waiting: &'a AtomicU32, most: u32) -> Result<Self, InvokeError> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        if before < most {
            Ok(place)
        } else {
            Err(InvokeError::Overloaded)
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use futures::FutureExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    type Admitted = (Turn, Place<Infallible>);

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
        admission
            .admit(turns, Instant::now(), patience, || None)
            .await
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

        assert_eq!(first.0.waited(), None);
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().unwrap().unwrap();
        assert!(second.0.waited().is_some());
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
        let late = admission
            .admit(&turns, arrived, patience, || None::<Infallible>)
            .await;
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
    async fn while_the_machine_is_short_of_memory_seats_are_given_and_one_instance_starts() {
        let admission = slots(10);
        let turns = turns(10, 1, 100);
        let machine = |is_short| MachineMemory {
            ceiling: u64::MAX,
            is_short,
        };
        admission.set_machine_memory(machine(true));
        let running = admit(&admission, &turns, PATIENCE).await.unwrap();
        let hasty = admit(&admission, &turns, Duration::ZERO).await;
        assert_eq!(hasty.err(), Some(InvokeError::Overloaded));
        let patience = Duration::from_millis(20);
        let late = admit(&admission, &turns, patience).await;
        assert_eq!(late.err(), Some(InvokeError::MemoryPressure(patience)));
        let seated = admission
            .admit(&turns, Instant::now(), PATIENCE, || Some(()))
            .await;
        assert!(matches!(seated, Ok((_, Place::Seat(())))));

        let mut waiting = Box::pin(admit(&admission, &turns, PATIENCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(running);
        let running = waiting.now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(admit(&admission, &turns, PATIENCE));
        assert!(waiting.as_mut().now_or_never().is_none());
        admission.set_machine_memory(machine(false));
        assert!(waiting.now_or_never().unwrap().is_ok());
        drop(running);
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
