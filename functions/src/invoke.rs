//! What comes out of a request: a response whose body still streams, or why there is none.
//!
//! [`InvokeError`] is the one place that says which status a caller gets. [`ResponseBody`] ties a
//! body to the guest that writes it: it must never let a body that was cut off look complete, nor
//! keep a guest running for a caller that went away.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::task::AbortHandle;
use wasmtime_wasi_http::WasiBody;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why a request got no response, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// Nothing of the function ran: trying elsewhere, or later, can help.
    #[error("the function has too many requests under way")]
    Overloaded,
    /// Nothing of the function ran here either.
    #[error("no turn within {0:?}: the function has too many requests under way")]
    QueueTimeout(Duration),
    #[error("no complete response within {0:?}")]
    Timeout(Duration),
    #[error("more than {0:?} of CPU time used")]
    CpuTimeout(Duration),
    #[error("memory limit of {0} bytes reached")]
    MemoryLimit(u64),
    #[error("the function stopped: {0}")]
    Trap(String),
    #[error("the function ended without a response")]
    NoResponse,
    /// The function answered with an error instead of a response.
    #[error("the function answered with the error {0}")]
    ErrorCode(String),
    /// Not the function's fault.
    #[error("the function could not be started: {0}")]
    Host(String),
}

impl InvokeError {
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Overloaded | Self::QueueTimeout(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) | Self::CpuTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::MemoryLimit(_) | Self::Trap(_) | Self::NoResponse | Self::ErrorCode(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Host(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it came to nothing before anything of the function ran: then the same request can
    /// be sent elsewhere.
    pub const fn nothing_ran(&self) -> bool {
        match self {
            Self::Overloaded | Self::QueueTimeout(_) => true,
            Self::Timeout(_)
            | Self::CpuTimeout(_)
            | Self::MemoryLimit(_)
            | Self::Trap(_)
            | Self::NoResponse
            | Self::ErrorCode(_)
            | Self::Host(_) => false,
        }
    }

    /// For machines: the reason of an Event.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Overloaded => "Overloaded",
            Self::QueueTimeout(_) => "QueueTimeout",
            Self::Timeout(_) => "Timeout",
            Self::CpuTimeout(_) => "CpuTimeout",
            Self::MemoryLimit(_) => "MemoryLimit",
            Self::Trap(_) => "Trap",
            Self::NoResponse => "NoResponse",
            Self::ErrorCode(_) => "ErrorCode",
            Self::Host(_) => "HostError",
        }
    }
}

/// How a guest's run ended, if it failed: set before the guest is dropped.
pub(crate) type Failure = Arc<OnceLock<InvokeError>>;

/// Ends a guest's task when dropped, unless told otherwise.
pub(crate) struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(Some(task))
    }

    /// Lets the task run to its own end.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

pub(crate) struct ResponseBody {
    pub body: WasiBody,
    pub failure: Failure,
    pub task: AbortOnDrop,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            // A guest that was stopped in the middle looks like one that ended its body.
            None => self.failure.get().cloned().map(|error| Err(error.into())),
            Some(Err(error)) => Some(Err(match self.failure.get() {
                Some(failure) => failure.clone().into(),
                None => error.into(),
            })),
        };
        // The caller has all there is; the guest may still do what it does after responding.
        self.task.release();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.failure.get().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Callers need not poll a body that says it has ended.
        if self.body.is_end_stream() {
            self.task.release();
        }
    }
}
