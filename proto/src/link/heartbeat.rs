//! The first stream of a link over TCP: what QUIC has of its own and yamux lacks.
//! A byte from either side every keep-alive tells a vanished peer from a quiet one, the first of
//! the server's tells the client that it is let in, and a last message says why a link is closed.
//! Any byte on the connection counts as a sign of life, so a long transfer delays no verdict.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::LinkSettings;

const ALIVE: u8 = 0;
/// Followed by a text until the end of the stream.
const GOODBYE: u8 = 1;

/// A goodbye is a sentence for a log.
pub(super) const MAX_REASON_BYTES: usize = 256;

/// How long the way of a goodbye may take, out of a crowded socket or into one.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a heartbeat ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing came for the idle timeout.
    Silent,
    /// The peer closes the link, saying why.
    Goodbye(Arc<str>),
    /// This side wished to close, and has said so.
    GoodbyeSaid,
    /// The stream ended without a word; the connection knows how.
    Ended,
}

/// This side's wish to close.
#[derive(Default)]
pub(super) struct Closing {
    reason: OnceLock<Box<str>>,
    wished: CancellationToken,
}

impl Closing {
    pub(super) fn wish(&self, reason: &str) {
        let cut = reason.floor_char_boundary(MAX_REASON_BYTES);
        let _ = self.reason.set(reason[..cut].into());
        self.wished.cancel();
    }

    /// Waits for the wish; gives the reason.
    pub(super) async fn wished(&self) -> &str {
        self.wished.cancelled().await;
        self.reason.get().map_or("", |reason| reason)
    }
}

/// Beats until there is a verdict. `control` may come late: the client's first stream has to
/// arrive at the server. `welcome` learns of the peer's first beat.
pub(super) async fn beat<S: AsyncRead + AsyncWrite>(
    control: impl Future<Output = Option<S>>,
    heard: &Heard,
    settings: &LinkSettings,
    closing: &Closing,
    welcome: oneshot::Sender<()>,
) -> Verdict {
    let control = tokio::select! {
        control = tokio::time::timeout(settings.idle_timeout, control) => match control {
            Ok(Some(control)) => control,
            Ok(None) => return Verdict::Ended,
            Err(_) => return Verdict::Silent,
        },
        _ = closing.wished() => return Verdict::GoodbyeSaid,
    };
    let (mut from_peer, mut to_peer) = tokio::io::split(control);
    let mut welcome = Some(welcome);
    let mut ticks = tokio::time::interval(settings.keep_alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = (heard.bytes(), Instant::now());
    let mut due = false;
    let mut byte = [0];
    loop {
        tokio::select! {
            reason = closing.wished() => {
                let goodbye = async {
                    to_peer.write_all(&[GOODBYE]).await?;
                    to_peer.write_all(reason.as_bytes()).await?;
                    to_peer.shutdown().await
                };
                // Whether or not it got out: the link ends.
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
                return Verdict::GoodbyeSaid;
            }
            now = ticks.tick() => {
                let bytes = heard.bytes();
                if bytes != last.0 {
                    last = (bytes, now);
                } else if now.duration_since(last.1) >= settings.idle_timeout {
                    return Verdict::Silent;
                }
                due = true;
            }
            // Not awaited in the branch above: while the socket is stuck, ticks must go on.
            written = to_peer.write(&[ALIVE]), if due => {
                if written.is_err() {
                    return Verdict::Ended;
                }
                due = false;
            }
            read = from_peer.read(&mut byte) => match (read, byte[0]) {
                (Ok(1), ALIVE) => {
                    if let Some(welcome) = welcome.take() {
                        let _ = welcome.send(());
                    }
                }
                (Ok(1), GOODBYE) => return Verdict::Goodbye(read_reason(from_peer).await),
                _ => return Verdict::Ended,
            },
        }
    }
}

async fn read_reason(from_peer: impl AsyncRead + Unpin) -> Arc<str> {
    let mut reason = Vec::new();
    let mut bounded = from_peer.take(MAX_REASON_BYTES as u64);
    // A reason cut short is better than none.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, bounded.read_to_end(&mut reason)).await;
    String::from_utf8_lossy(&reason).into()
}

/// How many bytes a connection has received.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Heard {
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that counts what it receives.
pub(super) struct Counted<T> {
    io: T,
    heard: Heard,
}

impl<T> Counted<T> {
    pub(super) fn new(io: T) -> (Self, Heard) {
        let heard = Heard::default();
        let counted = Self {
            io,
            heard: heard.clone(),
        };
        (counted, heard)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.heard.0.fetch_add(read as u64, Ordering::Relaxed);
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
