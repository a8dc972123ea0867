//! Says where one direction of a stream really ends, over carriers whose end of file says too little.
//! Yamux shows a reset, a lost connection and a finished sender alike as the end of file, and after
//! a half-close it can't tell the sender that its reader is gone. So bytes go in chunks (two bytes of
//! length, then that many), an empty chunk is the end, and the carrier's own half-close isn't used.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HEADER: usize = 2;

/// With its header one yamux frame at most (16 KiB), so that a chunk isn't split once more.
const MAX_CHUNK: usize = 16 * 1024 - HEADER;

/// Dropping it before both directions have ended must reset the carrier.
pub(super) struct Chunked<T> {
    carrier: T,
    reading: Reading,
    /// The chunk on its way out, header included; `sent` of it are with the carrier.
    outgoing: Vec<u8>,
    sent: usize,
    shut_down: bool,
}

enum Reading {
    Header { bytes: [u8; HEADER], have: usize },
    Body { left: usize },
    Ended,
}

const NEXT_HEADER: Reading = Reading::Header {
    bytes: [0; HEADER],
    have: 0,
};

impl<T> Chunked<T> {
    pub(super) fn new(carrier: T) -> Self {
        Self {
            carrier,
            reading: NEXT_HEADER,
            outgoing: Vec::new(),
            sent: 0,
            shut_down: false,
        }
    }
}

impl<T: AsyncWrite + Unpin> Chunked<T> {
    /// Hands the pending chunk to the carrier.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.carrier).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(reset())),
                Ok(n) => self.sent += n,
                // yamux has this one kind for all that can happen to a stream.
                Err(error) if error.kind() == io::ErrorKind::WriteZero => {
                    return Poll::Ready(Err(reset()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn put_chunk(&mut self, body: &[u8]) {
        let length = u16::try_from(body.len()).expect("MAX_CHUNK fits two bytes");
        self.outgoing.extend_from_slice(&length.to_be_bytes());
        self.outgoing.extend_from_slice(body);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Chunked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.reading {
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Header { bytes, have } => {
                    let mut header = ReadBuf::new(&mut bytes[*have..]);
                    ready!(Pin::new(&mut this.carrier).poll_read(cx, &mut header))?;
                    match header.filled().len() {
                        0 => return Poll::Ready(Err(reset())),
                        n => *have += n,
                    }
                    if *have == HEADER {
                        this.reading = match u16::from_be_bytes(*bytes) {
                            0 => Reading::Ended,
                            length => Reading::Body {
                                left: length.into(),
                            },
                        };
                    }
                }
                Reading::Body { left } => {
                    // On an uninitialised tail of `buf` this would need unsafe code to avoid
                    // zeroing; callers reuse their buffers, so it is done once.
                    let room = buf.remaining().min(*left);
                    let mut body = ReadBuf::new(buf.initialize_unfilled_to(room));
                    ready!(Pin::new(&mut this.carrier).poll_read(cx, &mut body))?;
                    let n = body.filled().len();
                    if n == 0 {
                        return Poll::Ready(Err(reset()));
                    }
                    buf.advance(n);
                    *left -= n;
                    if *left == 0 {
                        this.reading = NEXT_HEADER;
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Chunked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_drain(cx))?;
        // An empty chunk would be the end.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let body = &buf[..buf.len().min(MAX_CHUNK)];
        self.put_chunk(body);
        // Taken is taken: what the carrier refuses now goes out with the next call.
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(body.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.carrier).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            ready!(self.poll_drain(cx))?;
            self.put_chunk(&[]);
            self.shut_down = true;
        }
        self.poll_flush(cx)
    }
}

fn reset() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the peer dropped the stream or the link ended",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    proptest! {
        /// Whatever sizes are written and however small the carrier: the same bytes arrive, then the end.
        #[test]
        fn carries_what_was_written(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..4), room in 1_usize..40_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (here, there) = duplex(room);
            let received = runtime.block_on(async {
                let mut here = Chunked::new(here);
                let mut there = Chunked::new(there);
                let mut received = Vec::new();
                let sending = async {
                    for bytes in &writes {
                        here.write_all(bytes).await.unwrap();
                    }
                    here.shutdown().await.unwrap();
                };
                let (_, read) = tokio::join!(sending, there.read_to_end(&mut received));
                read.unwrap();
                received
            });
            prop_assert_eq!(received, writes.concat());
        }
    }

    #[tokio::test]
    async fn an_end_without_the_mark_is_an_error() {
        for cut in [0, 1, 2, 4] {
            let (mut here, there) = duplex(64);
            here.write_all(&[0, 3, b'a', b'b', b'c'][..cut])
                .await
                .unwrap();
            drop(here);
            let error = Chunked::new(there)
                .read_to_end(&mut Vec::new())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_end() {
        let (here, _there) = duplex(64);
        let mut here = Chunked::new(here);
        here.shutdown().await.unwrap();
        let error = here.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
