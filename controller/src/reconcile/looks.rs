//! When a reconciler looks at the state: when something changed that it looks at, and every so
//! often while it has something left to do.
//!
//! An idle swarm costs next to nothing: a pass parses what it plans for, so it is not done for
//! what cannot matter to it. In a busy one those that look at everything leave time to others: what
//! changes meanwhile is looked at together.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::state::{Change, State};
use crate::store::Replica;

/// From the begin of one look to that of the next: what hundreds of clients write is looked at
/// together, and nobody notices a delay that short.
const PACE: Duration = Duration::from_millis(5);

/// The rest after a pass, in times of what it took: it has a fifth of a processor at most. A swarm of
/// three nodes is looked at in a millisecond, one of ten thousand in a third of a second.
const REST: u32 = 4;

/// The longest rest: a pass may have waited for writes, which is not work.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// How a pass left things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is left to do until something changes.
    Settled,
    /// Something failed, or falls due by time alone: look again after the interval.
    Again,
    /// Something falls due after that long.
    In(Duration),
}

impl Outlook {
    pub fn settled_if(settled: bool) -> Self {
        if settled { Self::Settled } else { Self::Again }
    }

    /// What falls due at a time, if something does.
    pub fn at(due: Option<Timestamp>, now: Timestamp) -> Self {
        match due {
            None => Self::Settled,
            Some(due) => Self::In(Duration::try_from(due.duration_since(now)).unwrap_or_default()),
        }
    }
}

pub struct Looks {
    replica: Replica,
    interval: Duration,
    cancel: CancellationToken,
    relevant: fn(&Change) -> bool,
    rests: bool,
    wakes: Arc<Notify>,
}

impl Looks {
    pub fn new(replica: &Replica, interval: Duration, cancel: &CancellationToken) -> Self {
        Self {
            replica: replica.clone(),
            interval,
            cancel: cancel.clone(),
            relevant: |_| true,
            rests: false,
            wakes: Arc::default(),
        }
    }

    /// For passes that cost the more the more there is, and may be asked for at every commit.
    pub fn with_rests(self) -> Self {
        Self {
            rests: true,
            ..self
        }
    }

    /// Looks also when something is told that is no part of the state.
    pub fn woken_by(self, wakes: Arc<Notify>) -> Self {
        Self { wakes, ..self }
    }

    /// Looks at changes only that are `relevant`. Those of controllers and artifacts always are.
    pub fn only_for(self, relevant: fn(&Change) -> bool) -> Self {
        Self { relevant, ..self }
    }

    pub async fn run<F>(self, mut pass: F)
    where
        F: AsyncFnMut(&Replica, &State) -> Outlook,
    {
        let mut touched = self.replica.touched(self.relevant);
        loop {
            // Before the state is read: a change in between wakes the next look.
            touched.borrow_and_update();
            let began = Instant::now();
            let state = self.replica.state();
            let outlook = tokio::select! {
                () = self.cancel.cancelled() => return,
                outlook = pass(&self.replica, &state) => outlook,
            };
            if self.rests {
                let rest = (began.elapsed() * REST).min(LONGEST_REST);
                tokio::select! {
                    () = self.cancel.cancelled() => return,
                    () = tokio::time::sleep(rest) => {}
                }
            }
            let due = async {
                match outlook {
                    Outlook::Settled => std::future::pending().await,
                    Outlook::Again => tokio::time::sleep(self.interval).await,
                    Outlook::In(time) => tokio::time::sleep(time).await,
                }
            };
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = due => {}
                () = self.wakes.notified() => {}
                changed = touched.changed() => if changed.is_err() { return },
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep_until(began + PACE) => {}
            }
        }
    }
}
