//! Why a request got no response, or not all of it.
//!
//! [`InvokeError`] is the one place that says which status a caller gets, and which word an Event.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::combinators::UnsyncBoxBody;

use crate::reason::Reason;

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
    /// The same where its function could run: no instance of it may start.
    #[error("no turn within {0:?}: the node is short of memory, and starts no more instances")]
    MemoryPressure(Duration),
    #[error("no complete response within {0:?}")]
    Timeout(Duration),
    #[error("more than {0:?} of CPU time used (spec.limits.cpuTime)")]
    CpuTimeout(Duration),
    #[error("memory limit of {0} bytes reached")]
    MemoryLimit(u64),
    /// Together, the functions of this node use all that it has for them.
    #[error("the node has no memory left for functions")]
    NodeMemory,
    #[error("more than {0} handles held at once (spec.limits.handles)")]
    HandleLimit(u32),
    #[error("a response of more than {0} bytes (spec.limits.responseSize)")]
    ResponseTooLarge(u64),
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
    /// Its code was given back while nobody asked for it, and is not to be had again. Nothing of it ran.
    #[error("the function's code cannot be used: {0}")]
    Code(String),
}

impl InvokeError {
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Overloaded
            | Self::QueueTimeout(_)
            | Self::MemoryPressure(_)
            | Self::NodeMemory
            | Self::Code(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) | Self::CpuTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::MemoryLimit(_)
            | Self::HandleLimit(_)
            | Self::ResponseTooLarge(_)
            | Self::Trap(_)
            | Self::NoResponse
            | Self::ErrorCode(_) => StatusCode::BAD_GATEWAY,
            Self::Host(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it came to nothing before anything of the function ran: then the same request can
    /// be sent elsewhere.
    pub const fn nothing_ran(&self) -> bool {
        match self {
            Self::Overloaded | Self::QueueTimeout(_) | Self::MemoryPressure(_) | Self::Code(_) => {
                true
            }
            Self::Timeout(_)
            | Self::CpuTimeout(_)
            | Self::MemoryLimit(_)
            | Self::NodeMemory
            | Self::HandleLimit(_)
            | Self::ResponseTooLarge(_)
            | Self::Trap(_)
            | Self::NoResponse
            | Self::ErrorCode(_)
            | Self::Host(_) => false,
        }
    }

    /// As it is displayed, without what the guest says itself: many requests that fail for one
    /// cause are to be one Event.
    pub fn cause(&self) -> String {
        match self {
            Self::ErrorCode(code) => {
                let name = code.split('(').next().unwrap_or_default();
                Self::ErrorCode(name.to_owned()).to_string()
            }
            other => other.to_string(),
        }
    }

    /// For machines: the reason of an Event.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Overloaded => Reason::Overloaded,
            Self::QueueTimeout(_) => Reason::QueueTimeout,
            Self::MemoryPressure(_) => Reason::MemoryPressure,
            Self::Timeout(_) => Reason::Timeout,
            Self::CpuTimeout(_) => Reason::CpuTimeout,
            Self::MemoryLimit(_) => Reason::MemoryLimit,
            Self::NodeMemory => Reason::NodeMemory,
            Self::HandleLimit(_) => Reason::HandleLimit,
            Self::ResponseTooLarge(_) => Reason::ResponseTooLarge,
            Self::Trap(_) => Reason::Trap,
            Self::NoResponse => Reason::NoResponse,
            Self::ErrorCode(_) => Reason::ErrorCode,
            Self::Host(_) => Reason::HostError,
            Self::Code(_) => Reason::CodeUnusable,
        }
    }
}
