//! A connection to a target, whatever is spoken on it.
//!
//! Its bytes are counted and kept to the tunnel's bandwidth. It breaks where the tunnel ends, and where nothing
//! moved for too long: whoever reads then sees an error, never an end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hive_tunnels::RelayLimits;
use hive_tunnels::bandwidth::{Bandwidth, Share};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::tunnels::live::Live;

pub struct Wire<S> {
    stream: S,
    live: Arc<Live>,
    limits: RelayLimits,
    reading: Pace,
    writing: Pace,
    activity: Activity,
    /// Set once there was silence.
    silence: Option<Pin<Box<Sleep>>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// When bytes last moved. A clone is the same.
#[derive(Clone)]
pub struct Activity {
    begin: Instant,
    /// Milliseconds after the begin.
    last: Arc<AtomicU64>,
}

impl Activity {
    fn begin() -> Self {
        Self {
            begin: Instant::now(),
            last: Arc::default(),
        }
    }

    pub fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn goes_on(&self) {
        let passed = self.begin.elapsed().as_millis();
        let passed = passed.try_into().unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }
}

/// Until when nothing may move in one direction.
#[derive(Default)]
struct Pace(Option<Pin<Box<Sleep>>>);

impl Pace {
    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<()> {
        if let Some(turn) = &mut self.0 {
            ready!(turn.as_mut().poll(cx));
            self.0 = None;
            // Who waits for its turn does not stand still.
            activity.goes_on();
        }
        Poll::Ready(())
    }

    fn pay(&mut self, share: Option<Share<'_>>, bytes: usize) {
        let Some(share) = share else {
            return;
        };
        let now = Instant::now();
        let turn = share.pay(bytes, now);
        if turn > now {
            self.0 = Some(Box::pin(sleep_until(turn)));
        }
    }
}

impl<S> Wire<S> {
    pub fn new(stream: S, live: Arc<Live>) -> Self {
        Self {
            stream,
            limits: live.limits(),
            reading: Pace::default(),
            writing: Pace::default(),
            activity: Activity::begin(),
            silence: None,
            ended: Box::pin(live.ended().clone().cancelled_owned()),
            live,
        }
    }

    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Ready when it may go on no longer. To be asked where nothing can be read at the moment: that wakes
    /// whoever reads.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(gone());
        }
        let Some(idle) = self.limits.idle else {
            return Poll::Pending;
        };
        let until = self.activity.last() + idle;
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        // Bytes do not move the timer: it finds out when it ends.
        loop {
            ready!(silence.as_mut().poll(cx));
            if silence.deadline() >= until {
                let text = "nothing moved for as long as the tunnel waits";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            silence.as_mut().reset(until);
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the tunnel ended")
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.live.ended().is_cancelled() {
            return Poll::Ready(Err(gone()));
        }
        ready!(this.reading.poll(cx, &this.activity));
        let share = this.limits.bandwidth.as_deref().map(Bandwidth::outward);
        let before = buf.filled().len();
        let stream = Pin::new(&mut this.stream);
        let read = match share {
            None => stream.poll_read(cx, buf),
            Some(share) => read_at_most(stream, cx, buf, share.turn()),
        };
        if read.is_pending() {
            return this.poll_cut(cx).map(Err);
        }
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            this.activity.goes_on();
            let count = &this.live.counts().out_bytes;
            count.fetch_add(bytes as u64, Ordering::Relaxed);
            this.reading.pay(share, bytes);
        }
        read
    }
}

fn read_at_most<S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    let room = buf.remaining().min(most);
    let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
    ready!(stream.poll_read(cx, &mut part))?;
    let read = part.filled().len();
    buf.advance(read);
    Poll::Ready(Ok(()))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.live.ended().is_cancelled() {
            return Poll::Ready(Err(gone()));
        }
        ready!(this.writing.poll(cx, &this.activity));
        let share = this.limits.bandwidth.as_deref().map(Bandwidth::inward);
        let most = share.map_or(bytes.len(), |share| share.turn().min(bytes.len()));
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..most]))?;
        this.activity.goes_on();
        let count = &this.live.counts().in_bytes;
        count.fetch_add(written as u64, Ordering::Relaxed);
        this.writing.pay(share, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
