//! Where requests meet instances that can take them.
//!
//! An instance offers one seat at a time, and takes it back when it can't keep its word. A request
//! that was sent to a seat is the instance's; one that came too late stays with whoever sent it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use futures::channel::oneshot;

use super::job::Job;

/// Those of one function. When they are dropped, its instances end when they have nothing to do.
#[derive(Default)]
pub(crate) struct Seats {
    /// The one offered last is taken first: the others' instances go when there is less to do.
    offered: Mutex<Vec<(u64, Seat)>>,
    instances: AtomicU64,
}

pub(crate) type Seat = oneshot::Sender<Job>;

impl Seats {
    /// What another instance goes by.
    pub(super) fn instance(&self) -> u64 {
        self.instances.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn offer(&self, instance: u64) -> oneshot::Receiver<Job> {
        let (seat, taken) = oneshot::channel();
        self.lock().push((instance, seat));
        taken
    }

    pub(super) fn withdraw(&self, instance: u64) {
        self.lock().retain(|(other, _)| *other != instance);
    }

    pub(crate) fn take(&self) -> Option<Seat> {
        self.lock().pop().map(|(_, seat)| seat)
    }

    pub(crate) fn offered(&self) -> u32 {
        self.lock().len().try_into().unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Seat)>> {
        // Each change is one call, which a panic leaves done or not done.
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
