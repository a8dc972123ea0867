//! How many connections are open, and who waits for one.
//!
//! A place is taken before a connection is made and given back when it has ended. What waits is
//! woken when a place may be free; it must look again, since others look too.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

pub(super) struct Connections {
    limit: u32,
    open: AtomicU32,
    /// Something ended or became idle.
    pub changed: Notify,
}

/// One place, given back when dropped.
pub(super) struct Place(Arc<Connections>);

impl Connections {
    pub(super) fn up_to(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: AtomicU32::new(0),
            changed: Notify::new(),
        })
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn has_room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.limit
    }

    /// None where there is no room, also when it went to somebody else just now.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < self.limit).then_some(open + 1)
            })
            .is_ok()
            .then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}
