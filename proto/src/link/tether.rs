//! Ties a stream to its link: when the link ends, whoever waits on the stream wakes to an error.
//! What arrived before the end can still be read. For carriers that leave their streams asleep:
//! pipes in memory, and yamux closing from this side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(super) struct Tethered<T> {
    carrier: T,
    // One for each direction, since halves of a stream are polled by different tasks and a future
    // wakes only the last of them.
    reading: LinkEnd,
    writing: LinkEnd,
    /// The stream's place among those that may be open; given back after the carrier is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl<T> Tethered<T> {
    pub(super) fn new(
        carrier: T,
        link_ended: &CancellationToken,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            carrier,
            reading: LinkEnd::new(link_ended),
            writing: LinkEnd::new(link_ended),
            _place: place,
        }
    }
}

struct LinkEnd {
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    came: bool,
}

impl LinkEnd {
    fn new(link_ended: &CancellationToken) -> Self {
        Self {
            waiting: Box::pin(link_ended.clone().cancelled_owned()),
            came: false,
        }
    }

    /// What the carrier says, or the error that ends waiting for it.
    fn cut<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            return poll;
        }
        self.came = self.came || self.waiting.as_mut().poll(cx).is_ready();
        if self.came {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the link ended",
            )));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tethered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.carrier).poll_read(cx, buf);
        self.reading.cut(cx, poll)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tethered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.carrier).poll_write(cx, buf);
        self.writing.cut(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.carrier).poll_flush(cx);
        self.writing.cut(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.carrier).poll_shutdown(cx);
        self.writing.cut(cx, poll)
    }
}
