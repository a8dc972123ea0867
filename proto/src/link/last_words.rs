//! A TCP socket whose peer may have closed it with a last word on the way: why it refuses this side, or
//! goodbye. Who writes at that moment is told of a broken pipe before the word is read, and would take a
//! refusal for a bad network. So such a write counts as done, and reading says how it ended: what was
//! received comes first, and then the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct LastWords<T> {
    io: T,
    /// Nobody reads what is written.
    unheard: bool,
}

impl<T> LastWords<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, unheard: false }
    }

    /// What to say of a write, given what would be said if it were done.
    fn told<R>(&mut self, written: Poll<io::Result<R>>, done: R) -> Poll<io::Result<R>> {
        match written {
            Poll::Ready(Err(error)) if is_of_peer(&error) => {
                self.unheard = true;
                Poll::Ready(Ok(done))
            }
            other => other,
        }
    }
}

/// After these, reading ends by itself.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl<T: AsyncRead + Unpin> AsyncRead for LastWords<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for LastWords<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unheard {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.told(written, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.told(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.told(shut, ())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_the_peer_said_last_is_read_after_writes_in_vain() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap());
        let (here, there) = tokio::join!(here, listener.accept());
        let (mut here, mut there) = (LastWords::new(here.unwrap()), there.unwrap().0);

        // Unread when it closes: the kernel resets the connection.
        here.write_all(b"hello").await.unwrap();
        there.readable().await.unwrap();
        there.write_all(b"go away").await.unwrap();
        drop(there);
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
        while !here.unheard {
            assert!(tokio::time::Instant::now() < deadline);
            here.write_all(b"still here").await.unwrap();
            tokio::task::yield_now().await;
        }
        here.write_all(b"and on").await.unwrap();
        let mut said = [0; 7];
        here.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"go away");
        let end = here.read(&mut said).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
