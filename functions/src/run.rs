//! One request's run, as those who have a part in it share it: the task of the guest, the caller
//! that waits for an answer, and the body of that answer.
//!
//! Whoever finds out first how it failed says so here, once: that is what the caller reads, the
//! counters count and the log tells.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use tokio::time::Instant;

use crate::{invoke::InvokeError, limits::memory::Refusal, logs::RequestLog, usage::Counters};

pub(crate) struct Run {
    pub deadline: Instant,
    pub log: RequestLog,
    counters: Arc<Counters>,
    /// Set before the guest is dropped.
    failure: OnceLock<InvokeError>,
    /// If a memory was not allowed to grow: whatever happened since, this is why.
    pub memory: Arc<Refusal>,
}

impl Run {
    pub(crate) fn new(deadline: Instant, log: RequestLog, counters: Arc<Counters>) -> Self {
        Self {
            deadline,
            log,
            counters,
            failure: OnceLock::new(),
            memory: Arc::default(),
        }
    }

    /// Says how the request failed, unless it has failed already. Returns the first failure.
    pub(crate) fn fail(&self, error: InvokeError) -> InvokeError {
        self.failure
            .get_or_init(|| {
                refuse(&self.counters, &self.log, &error);
                error
            })
            .clone()
    }

    pub(crate) fn failure(&self) -> Option<&InvokeError> {
        self.failure.get()
    }
}

/// Counts and logs a request's failure.
pub(crate) fn refuse(counters: &Counters, log: &RequestLog, error: &InvokeError) {
    counters.errors.fetch_add(1, Ordering::Relaxed);
    log.hive(format!("{}: {error}", error.reason()));
}
