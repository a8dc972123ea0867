//! Both halves of a QUIC stream, reset when it is dropped unfinished.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reads::{Reads, Tally};

/// A stream dropped before its end.
const DROPPED: VarInt = VarInt::from_u32(0);

pub(in crate::link) struct Bidi {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    shut_down: bool,
    /// Counts what is unread of it, unless nothing is.
    tally: Option<Tally>,
}

impl Bidi {
    pub(super) fn new(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        reads: &Arc<Reads>,
    ) -> Self {
        let tally = Some(reads.count(send.id()));
        Self {
            send,
            recv,
            shut_down: false,
            tally,
        }
    }

    /// Says whether it may be left unread, which is then counted.
    pub(in crate::link) fn settle(&mut self, may_be_left: bool) {
        match may_be_left {
            true => {
                if let Some(tally) = &self.tally {
                    tally.begin_to_tell();
                }
            }
            false => {
                if let Some(tally) = self.tally.take() {
                    tally.forget();
                }
            }
        }
    }

    /// It is the one in which the other side tells what it has read.
    pub(in crate::link) fn hear_reads(mut self) {
        if let Some(reads) = self.tally.take().map(Tally::forget) {
            tokio::spawn(async move { reads.hear(self).await });
        }
    }
}

impl Drop for Bidi {
    fn drop(&mut self) {
        // Quinn would end it in good order, and half a message would pass for a whole one.
        if !self.shut_down {
            let _ = self.send.reset(DROPPED);
        }
        if let Some(tally) = self.tally.take() {
            tally.close(!self.shut_down);
        }
    }
}

impl AsyncRead for Bidi {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.recv).poll_read(cx, buf))?;
        if let Some(tally) = &mut self.tally {
            tally.was_read(buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bidi {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let send = Pin::new(&mut this.send);
        match &this.tally {
            Some(tally) => {
                tally.poll_write(cx, buf, |cx, buf| AsyncWrite::poll_write(send, cx, buf))
            }
            None => AsyncWrite::poll_write(send, cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
