//! Why a controller gets no connection: the one place where that becomes what it is answered.

use std::io;
use std::time::Duration;

use hive_proto::tunnel::{BAD_REQUEST, BUSY, NOT_ALLOWED, REFUSED, RESOLVE, TIMEOUT, UNREACHABLE};
use hive_proto::v1::TunnelOpened;

#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("the node carries as many connections of tunnels as it can")]
    Busy,
    #[error("the node's agent is stopping")]
    Stopping,
    #[error(
        "the node does not let tunnels lead to {0}: its agent's --tunnel-targets would have to name it"
    )]
    NotAllowed(String),
    #[error("the node cannot look {name} up")]
    Lookup { name: String, source: io::Error },
    #[error("the node knows no address of {0}")]
    NoAddress(String),
    #[error("nobody told the node within {within:?} where {name} is")]
    LookupTimeout { name: String, within: Duration },
    #[error("nothing listens at {0}")]
    Refused(String),
    #[error("{target} did not answer within {within:?}")]
    Timeout { target: String, within: Duration },
    #[error("nothing listens at {0} for datagrams")]
    RefusedDatagrams(String),
    #[error("the node does not reach {target}")]
    Unreachable { target: String, source: io::Error },
}

impl Refusal {
    /// What connecting to `target` failed with.
    pub(super) fn of_connecting(target: String, within: Duration, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(target),
            io::ErrorKind::TimedOut => Self::Timeout { target, within },
            _ => Self::Unreachable {
                target,
                source: error,
            },
        }
    }

    /// What a socket for `target` failed with, if it says that the target is not there. Other errors are of one
    /// datagram, such as one that is too long.
    pub(super) fn of_datagrams(target: &str, error: io::Error) -> Option<Self> {
        let target = target.to_owned();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::RefusedDatagrams(target)),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Some(Self::Unreachable {
                    target,
                    source: error,
                })
            }
            _ => None,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => BAD_REQUEST,
            Self::Busy | Self::Stopping => BUSY,
            Self::NotAllowed(_) => NOT_ALLOWED,
            Self::Lookup { .. } | Self::NoAddress(_) | Self::LookupTimeout { .. } => RESOLVE,
            Self::Refused(_) | Self::RefusedDatagrams(_) => REFUSED,
            Self::Timeout { .. } => TIMEOUT,
            Self::Unreachable { .. } => UNREACHABLE,
        }
    }

    pub(super) fn answer(&self) -> TunnelOpened {
        let message = match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        TunnelOpened {
            reason: self.reason().to_owned(),
            message,
        }
    }
}
