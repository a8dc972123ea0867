//! Bytes between two connections, both ways at once.
//!
//! What is read from one side is written to the other, and nothing more is read until that was taken: so whoever
//! reads slowly slows down whoever writes. The end of one direction is passed on, and the other goes on. What must
//! never happen: that the end of a connection that broke looks like the end of what was to be said.

mod direction;
pub(crate) mod scratch;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::bandwidth::Bandwidth;
use direction::Direction;

/// Silence after one side ended its direction, where no less is asked for: a side that only writes now may not
/// learn that its reader left. As long as a quiet connection can be asked to stay.
const HALF_CLOSED: Duration = Duration::from_secs(24 * 3600);

/// What holds for one connection.
#[derive(Clone, Debug, Default)]
pub struct RelayLimits {
    /// With no byte in either direction for this long it ends. None: it may be quiet for ever.
    pub idle: Option<Duration>,
    /// How fast it is, together with all who share this.
    pub bandwidth: Option<Arc<Bandwidth>>,
}

/// Bytes that were passed on, counted as they are written.
#[derive(Debug, Default)]
pub struct Counts {
    /// From the client to the target.
    pub in_bytes: AtomicU64,
    /// From the target to the client.
    pub out_bytes: AtomicU64,
}

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Target,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Target => "target",
        })
    }
}

/// Why bytes do not flow any more, though neither side said that all were sent.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the connection was idle for too long")]
    Idle,
    #[error("cannot read from the {0}")]
    Read(Side, #[source] io::Error),
    #[error("cannot write to the {0}")]
    Write(Side, #[source] io::Error),
}

/// Passes bytes on until both sides ended, each in its direction.
///
/// After an error neither side has been told anything: the caller must drop both in such a way that they see one.
/// Streams of a link do so by themselves; for TCP there is [`abort`].
pub async fn relay<C, T>(
    client: &mut C,
    target: &mut T,
    limits: &RelayLimits,
    counts: &Counts,
) -> Result<(), RelayError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let bandwidth = limits.bandwidth.as_deref();
    let mut relay = Relay {
        inward: Direction::new(
            Side::Client,
            bandwidth.map(Bandwidth::inward),
            &counts.in_bytes,
        ),
        outward: Direction::new(
            Side::Target,
            bandwidth.map(Bandwidth::outward),
            &counts.out_bytes,
        ),
        idle: limits.idle,
        moved: Instant::now(),
        timer: None,
    };
    poll_fn(|cx| relay.poll(cx, client, target)).await
}

/// Closes a connection so that its peer sees an error instead of an end.
pub fn abort(connection: TcpStream) {
    // Where the system does not know how, it is closed as ever.
    let _ = connection.set_zero_linger();
}

struct Relay<'a> {
    inward: Direction<'a>,
    outward: Direction<'a>,
    idle: Option<Duration>,
    /// When bytes moved last.
    moved: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Relay<'_> {
    fn poll<C, T>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        target: &mut T,
    ) -> Poll<Result<(), RelayError>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        // The target is read before it is written to, and nothing is read from a side that could not be written
        // to: the kernel tells of a reset once, and then calls it the end. What a target answered before it
        // refused the rest gets through.
        self.outward.poll(cx, target, client)?;
        self.inward.poll(cx, client, target)?;
        if self.inward.is_done() && self.outward.is_done() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_idle(cx));
        Poll::Ready(Err(RelayError::Idle))
    }

    /// Ready when nothing moved for as long as that may be.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inward.take_moved() | self.outward.take_moved() {
            self.moved = Instant::now();
        }
        let half_closed = self.inward.is_done() || self.outward.is_done();
        let patience = match self.idle {
            Some(idle) if half_closed => idle.min(HALF_CLOSED),
            Some(idle) => idle,
            None if half_closed => HALF_CLOSED,
            None => return Poll::Pending,
        };
        let until = self.moved + patience;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        // Bytes do not move the timer: it finds out when it ends.
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}
