//! What ends with whoever holds its end: a task, or a request's part in an instance.

use std::task::Context;

use tokio::task::AbortHandle;

use crate::reuse::{Claim, Wish};

/// Ends what a guest does for a caller when dropped, unless told otherwise.
pub(crate) struct AbortOnDrop(Option<End>);

enum End {
    Task(AbortHandle),
    /// Of an instance that goes on for others.
    Claim(Claim),
}

impl AbortOnDrop {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(Some(End::Task(task)))
    }

    pub(crate) fn claim(claim: Claim) -> Self {
        Self(Some(End::Claim(claim)))
    }

    /// Of a task that has ended already.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Lets it come to its own end.
    pub(crate) fn release(&mut self) {
        match self.0.take() {
            Some(End::Claim(claim)) => claim.end(Wish::Done),
            Some(End::Task(_)) | None => {}
        }
    }

    pub(crate) fn abort(&mut self) {
        match self.0.take() {
            Some(End::Task(task)) => task.abort(),
            Some(End::Claim(claim)) => claim.end(Wish::Gone),
            None => {}
        }
    }

    /// Whether it has failed while that which it was part of goes on; wakes whoever asked when it does.
    pub(crate) fn has_failed(&self, cx: &mut Context<'_>) -> bool {
        match &self.0 {
            Some(End::Claim(claim)) => claim.has_failed(cx),
            Some(End::Task(_)) | None => false,
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.abort();
    }
}
