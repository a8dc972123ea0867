//! Bodies of requests on their way through: they are cut off past a bound.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hive_functions::BoxError;
use http_body::{Body, Frame, SizeHint};

/// The body was longer than its bound.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is too long")]
pub struct TooLong;

/// Says whether a body was cut off.
#[derive(Clone, Debug, Default)]
pub struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body of at most so many bytes.
pub struct Bounded<B> {
    body: B,
    left: u64,
    exceeded: Exceeded,
}

impl<B> Bounded<B> {
    pub fn new(body: B, limit: u64) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        let bounded = Self {
            body,
            left: limit,
            exceeded: exceeded.clone(),
        };
        (bounded, exceeded)
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.exceeded.is_set() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining) as u64,
            _ => 0,
        };
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            None => {
                self.exceeded.0.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(TooLong.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exceeded.is_set() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::executor::block_on;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[test]
    fn a_body_is_cut_off_past_its_bound() {
        let (body, exceeded) = Bounded::new(Full::from("12345"), 5);
        assert_eq!(block_on(body.collect()).unwrap().to_bytes(), "12345");
        assert!(!exceeded.is_set());

        let (body, exceeded) = Bounded::new(Full::from("123456"), 5);
        let error = block_on(body.collect()).unwrap_err();
        assert!(error.is::<TooLong>());
        assert!(exceeded.is_set());
    }
}
