//! The body of a response, tied to the guest that writes it.
//!
//! Frames pass through and are counted. It must never let a body that was cut off look complete,
//! pass on more than the function may send, nor keep a guest running for a caller that went away.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::WasiBody;

use crate::{
    abort::AbortOnDrop,
    invoke::{BoxError, InvokeError},
    meter::Tally,
    run::Run,
};

/// Whether a head announces a body of more than so many bytes.
pub(crate) fn announces_more_than(limit: u64, headers: &HeaderMap) -> bool {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    announced.is_some_and(|length| length > limit)
}

pub(crate) struct ResponseBody {
    body: WasiBody,
    limit: u64,
    sent: u64,
    run: Arc<Run>,
    task: AbortOnDrop,
    /// Until the end of the body.
    tally: Option<Tally>,
}

impl ResponseBody {
    /// A body of at most `limit` bytes.
    pub(crate) fn new(
        body: WasiBody,
        limit: u64,
        run: Arc<Run>,
        task: AbortOnDrop,
        tally: Tally,
    ) -> Self {
        Self {
            body,
            limit,
            sent: 0,
            run,
            task,
            tally: Some(tally),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(polled) => polled,
            // Its guest goes on for others, and lets go of no body by itself.
            Poll::Pending if self.task.has_failed(cx) => None,
            Poll::Pending => return Poll::Pending,
        };
        let frame = match polled {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.sent = self.sent.saturating_add(length as u64);
                if self.sent > self.limit {
                    let error = self.run.fail(InvokeError::ResponseTooLarge(self.limit));
                    self.task.abort();
                    return Poll::Ready(Some(Err(error.into())));
                }
                self.run.meter.sent(length);
                return Poll::Ready(Some(Ok(frame)));
            }
            // A guest that was stopped in the middle looks like one that ended its body.
            None => self.run.failure().cloned().map(|error| Err(error.into())),
            Some(Err(error)) => Some(Err(match self.run.failure() {
                Some(failure) => failure.clone().into(),
                None => error.into(),
            })),
        };
        // The caller has all there is; the guest may still do what it does after responding.
        self.task.release();
        self.tally = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.run.failure().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Callers need not poll a body that says it has ended.
        if self.body.is_end_stream() {
            self.task.release();
        }
    }
}
