//! Linearizable reads that wait together ask the leader once.
//!
//! A read joins a round that has not begun yet, and a round begins when the one before it is over:
//! its answer holds all that was committed before any of its reads came. One that has begun takes
//! nobody in any more.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::{ProposeError, Replica};

/// How far a replica must have applied before it may answer.
type Round = Shared<BoxFuture<'static, Result<u64, ProposeError>>>;

#[derive(Default)]
pub(super) struct Rounds(Mutex<Made>);

#[derive(Default)]
struct Made {
    /// Not begun yet.
    next: Option<Round>,
    last: Option<Round>,
}

impl Rounds {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0
            .lock()
            .expect("nothing panics while it holds the rounds")
    }
}

impl Replica {
    pub(super) fn next_round(&self) -> Round {
        let mut made = self.shared.rounds.lock();
        if let Some(next) = &made.next {
            return next.clone();
        }
        let before = made.last.take();
        // A round that nobody waits for any more must not keep the replica alive.
        let replica = Arc::downgrade(&self.shared);
        let round = async move {
            if let Some(before) = before {
                // Whatever came of it: this round asks by itself.
                drop(before.await);
            }
            let shared = replica.upgrade().ok_or(ProposeError::Stopped)?;
            shared.rounds.lock().next = None;
            Self { shared }.ask_how_far().await
        };
        let round = round.boxed().shared();
        made.next = Some(round.clone());
        made.last = Some(round.clone());
        round
    }
}
