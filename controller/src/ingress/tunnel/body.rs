//! Bodies on their way through a tunnel: of the request, and of the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::kept::{Connection, Kept};
use crate::gateway::{Body, BoxError};
use crate::state::Key;
use crate::tunnels::health::UnderWay;
use crate::tunnels::live::Place;

/// What comes from a client, and whether it is the client who is waited for.
pub struct Upload {
    body: Body,
    is_awaited: Arc<AtomicBool>,
}

impl Upload {
    pub fn new(body: Body, is_awaited: Arc<AtomicBool>) -> Self {
        Self { body, is_awaited }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.is_awaited.store(frame.is_pending(), Ordering::Relaxed);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a target answers. At its end the connection is free for another request; where it is dropped before, the
/// connection is closed.
pub struct Download {
    body: Incoming,
    free: Option<Free>,
    _place: Place,
    _under_way: UnderWay,
}

struct Free {
    kept: Kept,
    tunnel: Key,
    connection: Connection,
}

impl Download {
    pub fn new(
        body: Incoming,
        kept: Kept,
        tunnel: Key,
        connection: Connection,
        place: Place,
        under_way: UnderWay,
    ) -> Self {
        let free = Free {
            kept,
            tunnel,
            connection,
        };
        let is_whole = body.is_end_stream();
        let mut made = Self {
            body,
            free: Some(free),
            _place: place,
            _under_way: under_way,
        };
        if is_whole {
            made.free();
        }
        made
    }

    fn free(&mut self) {
        if let Some(free) = self.free.take() {
            free.kept.keep(&free.tunnel, free.connection);
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Often nobody asks for what comes after the last byte.
        if frame.is_none() || self.body.is_end_stream() {
            self.free();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
