//! Calls and answers as bytes: put together to be written, and taken apart as they come.
//!
//! A frame is its length, the call's number, one byte that says what is asked or how it went, and
//! the content. Lengths are the peer's word: nothing is allocated for one over the bound.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::grpc::MAX_MESSAGE_BYTES;

/// Before the content: length, number, kind.
const HEAD_BYTES: usize = 9;
const LENGTH_BYTES: usize = 4;

/// The first byte of whoever answers calls.
const WELCOME: u8 = 1;

/// Room for what is read at once: a batch of small calls.
const READ_BYTES: usize = 32 * 1024;

/// Content up to this length is copied behind its head, so that both leave in one packet; more is
/// handed on as it is.
const COPIED_BYTES: usize = 16 * 1024;

/// What waits to be written.
#[derive(Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// Not written yet.
    pub bytes: usize,
    /// Small frames, not yet a piece.
    open: BytesMut,
    unflushed: bool,
}

impl Outgoing {
    pub fn put_welcome(&mut self) {
        self.open.put_u8(WELCOME);
        self.bytes += 1;
    }

    pub fn put(&mut self, number: u32, kind: u8, content: &Bytes) {
        let length = u32::try_from(HEAD_BYTES - LENGTH_BYTES + content.len())
            .expect("what is sent is bounded far below this");
        self.bytes += HEAD_BYTES + content.len();
        self.open
            .reserve(HEAD_BYTES + content.len().min(COPIED_BYTES));
        self.open.put_u32_le(length);
        self.open.put_u32_le(number);
        self.open.put_u8(kind);
        if content.len() <= COPIED_BYTES {
            self.open.put_slice(content);
        } else {
            self.pieces.push_back(self.open.split().freeze());
            self.pieces.push_back(content.clone());
        }
    }

    /// Writes what it can; ready when nothing is left.
    pub fn poll_pour(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(piece) = self.pieces.front_mut() else {
                if self.open.is_empty() {
                    break;
                }
                self.pieces.push_back(self.open.split().freeze());
                continue;
            };
            let written = ready!(Pin::new(&mut *io).poll_write(cx, piece))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.bytes -= written;
            piece.advance(written);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// One call or answer as it came.
pub struct Frame {
    pub number: u32,
    pub kind: u8,
    pub content: Bytes,
}

#[derive(Default)]
pub struct Incoming {
    pub(super) bytes: BytesMut,
}

impl Incoming {
    /// Whether the other end answers calls, once it has said so.
    ///
    /// # Errors
    /// When it says something else.
    pub fn welcome(&mut self) -> io::Result<bool> {
        match self.bytes.first() {
            None => Ok(false),
            Some(&WELCOME) => {
                self.bytes.advance(1);
                Ok(true)
            }
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// # Errors
    /// When the peer announces a frame that nobody may send.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        if self.bytes.len() < LENGTH_BYTES {
            return Ok(None);
        }
        let length = (&self.bytes[..LENGTH_BYTES]).get_u32_le() as usize;
        let rest = HEAD_BYTES - LENGTH_BYTES;
        if length < rest || length - rest > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {length} bytes"),
            ));
        }
        if self.bytes.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(LENGTH_BYTES);
        let (number, kind) = (self.bytes.get_u32_le(), self.bytes.get_u8());
        let content = length - rest;
        let content = if content <= COPIED_BYTES {
            // Whoever keeps it keeps no more than it.
            let copy = Bytes::copy_from_slice(&self.bytes[..content]);
            self.bytes.advance(content);
            copy
        } else {
            self.bytes.split_to(content).freeze()
        };
        Ok(Some(Frame {
            number,
            kind,
            content,
        }))
    }

    /// Reads once; false at the end.
    pub fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        self.bytes.reserve(READ_BYTES);
        let read = ready!(tokio_util::io::poll_read_buf(
            Pin::new(io),
            cx,
            &mut self.bytes
        ))?;
        Poll::Ready(Ok(read > 0))
    }
}
