//! Makes a link to an endpoint: follows the schedule of `prefer`, and the first to finish wins.
//! It makes no choices of its own, and never hands out a link that the server may yet refuse.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::prefer::{Attempt, Schedule};
use super::{Link, LinkError, LinkSettings, Transport, Transports, quic, tcp};

/// Why there is no link.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    #[error("{0:?} is no endpoint: expected host:port")]
    Endpoint(String),
    #[error("cannot resolve {endpoint:?}")]
    Resolve {
        endpoint: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("cannot reach {address}")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("no answer within {after:?}")]
    Timeout { after: Duration },
    /// Either side's certificate, or no TLS at all. The source says which and why.
    #[error("the TLS handshake failed")]
    Tls(#[source] Arc<dyn Error + Send + Sync>),
    /// The peer authenticated both sides, and closed.
    #[error("the peer refused the link: {reason}")]
    Refused { reason: Arc<str> },
}

impl DialError {
    /// Whether the same dial may succeed later without anybody changing something.
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::Tls(_) => false,
            Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Refused { .. } => true,
        }
    }

    pub(super) fn unreachable(address: SocketAddr, source: io::Error) -> Self {
        let source = Arc::new(source);
        Self::Unreachable { address, source }
    }

    pub(super) fn tls(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Tls(Arc::new(source))
    }

    /// Of a TLS connection: what TLS itself complains of comes wrapped as an I/O error.
    pub(super) fn from_io(address: SocketAddr, error: io::Error) -> Self {
        if error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>())
        {
            Self::tls(error)
        } else {
            Self::unreachable(address, error)
        }
    }

    /// Of a link that ended before it was let in.
    pub(super) fn from_end(address: SocketAddr, end: LinkError) -> Self {
        match end {
            LinkError::ClosedByPeer { reason } => Self::Refused { reason },
            LinkError::Failed(source) if tls_cause(&*source).is_some() => Self::Tls(source),
            other => Self::unreachable(address, io::Error::other(other)),
        }
    }

    /// The peer itself answered, and with no.
    fn is_definitive(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Refused { .. })
    }

    /// Of several failures the one that tells most is reported.
    fn weight(&self) -> u8 {
        match self {
            Self::Timeout { .. } => 0,
            Self::Endpoint(_) | Self::Resolve { .. } | Self::Unreachable { .. } => 1,
            Self::Refused { .. } => 2,
            Self::Tls(_) => 3,
        }
    }
}

fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    // io::Error's own `source` skips what it wraps.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .map(|inner| inner as &(dyn Error + 'static));
    tls_cause(wrapped.or_else(|| error.source())?)
}

/// Makes a link to `endpoint` (`host:port`) within the handshake timeout and QUIC's head start of
/// 1.5 s. `settings.transports` says which ways may be tried.
pub async fn dial(
    endpoint: &str,
    tls: Arc<rustls::ClientConfig>,
    settings: &LinkSettings,
) -> Result<Link, DialError> {
    dial_over(settings.transports, endpoint, tls, settings).await
}

pub(super) async fn dial_over(
    transports: Transports,
    endpoint: &str,
    tls: Arc<rustls::ClientConfig>,
    settings: &LinkSettings,
) -> Result<Link, DialError> {
    let addresses = resolve(endpoint, settings.handshake_timeout).await?;
    let begin = Instant::now();
    let mut schedule = Schedule::new(&addresses, transports);
    let mut under_way = FuturesUnordered::new();
    let mut worst: Option<DialError> = None;
    while !schedule.is_over() {
        let next = schedule.next_start().map(|start| begin + start);
        tokio::select! {
            () = sleep_until(next) => {
                if let Some(one) = schedule.begin() {
                    let tls = tls.clone();
                    under_way.push(async move { (one, attempt(one, tls, settings).await) });
                }
            }
            Some((one, outcome)) = under_way.next() => match outcome {
                Ok(link) => {
                    tracing::debug!(endpoint, link = link.id(), transport = %one.transport, address = %one.address, "linked");
                    return Ok(link);
                }
                Err(error) => {
                    tracing::debug!(endpoint, transport = %one.transport, address = %one.address, error = &error as &dyn Error, "no link this way");
                    schedule.failed(one, begin.elapsed(), error.is_definitive());
                    if worst.as_ref().is_none_or(|worst| worst.weight() <= error.weight()) {
                        worst = Some(error);
                    }
                }
            }
        }
    }
    Err(worst.unwrap_or(DialError::Timeout {
        after: begin.elapsed(),
    }))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn attempt(
    attempt: Attempt,
    tls: Arc<rustls::ClientConfig>,
    settings: &LinkSettings,
) -> Result<Link, DialError> {
    let after = settings.handshake_timeout;
    let linking = async {
        match attempt.transport {
            Transport::Quic => quic::dial(attempt.address, tls, settings.clone()).await,
            Transport::Tcp => tcp::dial(attempt.address, tls, settings.clone()).await,
            Transport::Memory => unreachable!("memory has no addresses to schedule"),
        }
    };
    tokio::time::timeout(after, linking)
        .await
        .unwrap_or(Err(DialError::Timeout { after }))
}

async fn resolve(endpoint: &str, timeout: Duration) -> Result<Vec<SocketAddr>, DialError> {
    let has_port = endpoint
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !has_port {
        return Err(DialError::Endpoint(endpoint.to_owned()));
    }
    let failed = |source| DialError::Resolve {
        endpoint: endpoint.to_owned(),
        source: Arc::new(source),
    };
    let looked_up = tokio::time::timeout(timeout, tokio::net::lookup_host(endpoint))
        .await
        .map_err(|_| DialError::Timeout { after: timeout })?;
    let addresses: Vec<_> = looked_up.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}
