//! One direction of a relay: reads from one side, writes to the other.
//!
//! It keeps bytes only while the writer does not take them, or while they wait for their turn in what a tunnel may
//! send; and reads nothing then.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{RelayError, Side, scratch};
use crate::bandwidth::Share;

/// A sender that is never empty lets others of its thread have their turn after so many bytes: some 100 us.
const YIELD_AFTER: usize = 256 * 1024;

pub(super) struct Direction<'a> {
    from: Side,
    share: Option<Share<'a>>,
    count: &'a AtomicU64,
    /// Read, and not all written yet.
    kept: Vec<u8>,
    /// So much of it was.
    sent: usize,
    /// When what is kept may go.
    turn: Option<Pin<Box<Sleep>>>,
    /// The writer may hold on to what it took.
    unflushed: bool,
    /// Whether bytes moved since somebody asked.
    moved: bool,
    progress: Progress,
}

enum Progress {
    Copying,
    /// All was read and written.
    Ending,
    /// The writer was told so.
    Done,
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: Side, share: Option<Share<'a>>, count: &'a AtomicU64) -> Self {
        Self {
            from,
            share,
            count,
            kept: Vec::new(),
            sent: 0,
            turn: None,
            unflushed: false,
            moved: false,
            progress: Progress::Copying,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Done)
    }

    /// Whether bytes moved since this was asked last; those that wait for their turn do not stand still.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved) || self.turn.is_some()
    }

    /// Goes as far as both sides let it.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Result<(), RelayError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        scratch::lend(|scratch| {
            let mut copied = 0;
            while let Progress::Copying = self.progress {
                if !self.write_kept(cx, to)? {
                    return Ok(());
                }
                if copied >= YIELD_AFTER {
                    cx.waker().wake_by_ref();
                    return self.flush(cx, to);
                }
                let Poll::Ready(read) = self.read(cx, from, scratch)? else {
                    return self.flush(cx, to);
                };
                copied += read.len();
                self.pass_on(cx, to, read)?;
            }
            if let Progress::Ending = self.progress
                && let Poll::Ready(told) = Pin::new(to).poll_shutdown(cx)
            {
                told.map_err(|error| self.cannot_write(error))?;
                self.progress = Progress::Done;
            }
            Ok(())
        })
    }

    /// Whether nothing is kept any more.
    fn write_kept<W>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Result<bool, RelayError>
    where
        W: AsyncWrite + Unpin,
    {
        if let Some(turn) = &mut self.turn {
            if turn.as_mut().poll(cx).is_pending() {
                self.flush(cx, to)?;
                return Ok(false);
            }
            self.turn = None;
        }
        // Taken, so that it is freed as soon as it is empty.
        let kept = std::mem::take(&mut self.kept);
        self.sent += self.write(cx, to, &kept[self.sent..])?;
        let all = self.sent == kept.len();
        match all {
            true => self.sent = 0,
            false => self.kept = kept,
        }
        Ok(all)
    }

    /// The next bytes; none at the end.
    fn read<'s, R>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        scratch: &'s mut [u8],
    ) -> Result<Poll<&'s [u8]>, RelayError>
    where
        R: AsyncRead + Unpin,
    {
        let room = scratch.len();
        let most = self.share.map_or(room, |share| share.turn().min(room));
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(read) => read.map_err(|error| RelayError::Read(self.from, error))?,
        }
        let filled = buffer.filled().len();
        Ok(Poll::Ready(&scratch[..filled]))
    }

    /// Writes what was read, or keeps what cannot go now.
    fn pass_on<W>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        read: &[u8],
    ) -> Result<(), RelayError>
    where
        W: AsyncWrite + Unpin,
    {
        if read.is_empty() {
            self.progress = Progress::Ending;
            return Ok(());
        }
        self.moved = true;
        if let Some(share) = self.share {
            let now = Instant::now();
            let turn = share.pay(read.len(), now);
            if turn > now {
                self.turn = Some(Box::pin(sleep_until(turn)));
                self.kept = read.to_vec();
                return Ok(());
            }
        }
        let written = self.write(cx, to, read)?;
        if written < read.len() {
            self.kept = read[written..].to_vec();
        }
        Ok(())
    }

    /// Writes until all is taken, or the writer takes no more and will wake whoever waits. How much that was.
    fn write<W>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
    ) -> Result<usize, RelayError>
    where
        W: AsyncWrite + Unpin,
    {
        let mut written = 0;
        while written < bytes.len() {
            let taken = match Pin::new(&mut *to).poll_write(cx, &bytes[written..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => {
                    return Err(self.cannot_write(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(error)) => return Err(self.cannot_write(error)),
            };
            written += taken;
            self.count.fetch_add(taken as u64, Ordering::Relaxed);
            self.unflushed = true;
            self.moved = true;
        }
        Ok(written)
    }

    /// Nothing comes for now: what the writer took is to get through.
    fn flush<W>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Result<(), RelayError>
    where
        W: AsyncWrite + Unpin,
    {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(to).poll_flush(cx)
        {
            flushed.map_err(|error| self.cannot_write(error))?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn cannot_write(&self, error: io::Error) -> RelayError {
        RelayError::Write(self.from.other(), error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_writer_did_not_take_is_kept_no_longer_than_that() {
        let (mut client, mut from) = duplex(4096);
        let (mut to, mut target) = duplex(100);
        let count = AtomicU64::new(0);
        let mut direction = Direction::new(Side::Client, None, &count);
        let mut cx = Context::from_waker(Waker::noop());

        direction.poll(&mut cx, &mut from, &mut to).unwrap();
        assert_eq!(direction.kept.capacity(), 0, "nothing was sent");

        client.write_all(&[7; 4096]).await.unwrap();
        direction.poll(&mut cx, &mut from, &mut to).unwrap();
        assert_eq!(direction.kept.len(), 3996);
        assert!(direction.take_moved() && !direction.take_moved());

        let mut read = [0; 4096];
        let mut taken = 0;
        while taken < read.len() {
            taken += target.read(&mut read[taken..]).await.unwrap();
            direction.poll(&mut cx, &mut from, &mut to).unwrap();
        }
        assert_eq!(read, [7; 4096]);
        assert_eq!(count.load(Ordering::Relaxed), 4096);
        assert_eq!(direction.kept.capacity(), 0, "all was taken");
    }
}
