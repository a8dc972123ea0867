//! The body of an answer, tied to the connection that it comes from.
//!
//! Frames flow from the connection to the guest. At the end of the body the connection goes back to
//! those that wait for the next request; a guest that goes away before that closes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::Error;

use super::{client::Client, destination::Destination, error, idle::Connection};

pub(super) struct Response {
    body: Incoming,
    from: Option<(Arc<Client>, Destination, Connection)>,
    /// The longest that the guest waits for the next frame.
    pause: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Response {
    pub(super) fn new(
        body: Incoming,
        from: (Arc<Client>, Destination, Connection),
        pause: Option<Duration>,
    ) -> Self {
        let mut response = Self {
            body,
            from: Some(from),
            pause,
            waiting: None,
        };
        response.give_back_at_end();
        response
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some((client, to, connection)) = self.from.take() {
            client.give_back(to, connection);
        }
    }

    /// Nothing more comes.
    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.from = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Response {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.give_back();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.fail(error::of_http(&error)),
            Poll::Pending => {
                let Some(pause) = self.pause else {
                    return Poll::Pending;
                };
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(pause)));
                ready!(waiting.as_mut().poll(cx));
                self.fail(Error::ConnectionReadTimeout)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        // Readers need not poll a body that says it has ended.
        self.give_back_at_end();
    }
}
