//! How long the HTTP doors wait for those who connect to them.
//!
//! hyper bounds the time for a request's head, but only from where it knows which version of HTTP
//! it speaks: before that, a connection that says nothing would keep its place for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// HTTP/2 begins with as many bytes; no request of HTTP/1.1 has fewer.
const FIRST_BYTES: usize = 24;

/// A quiet connection whose other end may be gone is asked after this long; whoever watches through
/// a router that forgets idle connections keeps it open by that, too.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection that must say something soon.
pub struct Punctual<T> {
    io: T,
    /// Bytes still to come, and until when.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<T> Punctual<T> {
    pub fn new(io: T, within: Duration) -> Self {
        Self {
            io,
            awaited: Some((FIRST_BYTES, Box::pin(tokio::time::sleep(within)))),
        }
    }

    pub fn into_inner(self) -> T {
        self.io
    }

    fn came(&mut self, bytes: usize) {
        if let Some((missing, _)) = &mut self.awaited {
            *missing = missing.saturating_sub(bytes);
            // The end of the stream is for hyper to judge.
            if *missing == 0 || bytes == 0 {
                self.awaited = None;
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Punctual<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.came(buf.filled().len() - before);
            return read;
        }
        match &mut self.awaited {
            Some((_, late)) => late
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Punctual<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // An answer: enough was read.
        self.awaited = None;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.awaited = None;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Sets up an accepted connection. What it can't set is not worth refusing a client for.
pub fn prepare(stream: &TcpStream) {
    // Answers are small; waiting to fill a segment only adds latency.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
}

/// Gives a connection up whose client takes nothing of its answer for this long: the kernel knows
/// that, and counts a window that stays shut.
pub fn expect_reading(stream: &TcpStream, within: Duration) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(
        stream,
        within.as_millis().try_into().unwrap_or(u32::MAX),
    );
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, within);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_too_little_is_given_up() {
        for said in ["", "PRI * HTTP/2"] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(said.as_bytes()).await.unwrap();
            let mut text = String::new();
            let error = Punctual::new(server, SOON)
                .read_to_string(&mut text)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_enough_may_take_its_time() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Punctual::new(server, SOON);
        client.write_all(&b"x".repeat(FIRST_BYTES)).await.unwrap();
        let mut bytes = [0; FIRST_BYTES];
        server.read_exact(&mut bytes).await.unwrap();
        let rest = tokio::time::timeout(SOON * 3, server.read_exact(&mut bytes)).await;
        assert!(rest.is_err(), "still waiting, not failed: {rest:?}");
    }
}
