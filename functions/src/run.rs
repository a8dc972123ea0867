//! One request's run, as those who have a part in it share it: the task of the guest, the caller
//! that waits for an answer, and the body of that answer.
//!
//! Whoever finds out first how it failed says so here, once: that is what the caller reads, the
//! meter counts and the log tells.

use std::sync::{Arc, OnceLock};

use crate::{
    backtrace::Backtrace,
    invoke::InvokeError,
    limits::memory::Refusal,
    logs::{LogEvent, RequestLog},
    meter::Meter,
};

pub(crate) struct Run {
    pub log: RequestLog,
    pub meter: Arc<Meter>,
    /// Set before the guest is dropped.
    failure: OnceLock<InvokeError>,
    /// If a memory was not allowed to grow: whatever happened since, this is why.
    pub memory: Arc<Refusal>,
}

impl Run {
    pub(crate) fn new(log: RequestLog, meter: Arc<Meter>) -> Self {
        Self {
            log,
            meter,
            failure: OnceLock::new(),
            memory: Arc::default(),
        }
    }

    /// Says how the request failed, unless it has failed already. Returns the first failure.
    pub(crate) fn fail(&self, failed: impl Into<Failed>) -> InvokeError {
        let tell = || failed.into().tell(&self.meter, &self.log);
        self.failure.get_or_init(tell).clone()
    }

    pub(crate) fn failure(&self) -> Option<&InvokeError> {
        self.failure.get()
    }
}

/// What is said with the error of an instance that several requests shared.
const OF_SEVERAL: &str = "; other requests were under way in the same instance (spec.instances), and any may be the cause";

/// How a request failed, and where in the guest that was, if something of it was running.
pub(crate) struct Failed {
    pub error: InvokeError,
    pub backtrace: Option<Backtrace>,
    /// Others were under way in the same instance: whose fault it was is not known.
    pub is_of_several: bool,
}

impl From<InvokeError> for Failed {
    fn from(error: InvokeError) -> Self {
        Self {
            error,
            backtrace: None,
            is_of_several: false,
        }
    }
}

impl Failed {
    /// Counts and logs it; returns what the caller is told, which is nothing of the guest's inside.
    pub(crate) fn tell(self, meter: &Meter, log: &RequestLog) -> InvokeError {
        let Self {
            error,
            backtrace,
            is_of_several,
        } = self;
        let reason = error.reason();
        meter.failed(reason);
        let mut message = error.cause();
        if let Some(backtrace) = &backtrace {
            message = format!("{message} in {}", backtrace.place());
        }
        if is_of_several {
            message += OF_SEVERAL;
        }
        let reason = reason.as_str();
        let others = if is_of_several { OF_SEVERAL } else { "" };
        log.event(
            format!("{reason}: {error}{others}"),
            LogEvent { reason, message },
        );
        if let Some(backtrace) = &backtrace {
            backtrace.lines().for_each(|line| log.hive(line));
        }
        error
    }
}
