//! Where spans wait that have ended: bounded, and nobody waits for a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

/// As many as OpenTelemetry's own queues hold: a busy second, in some MB.
const WAITING_AT_MOST: usize = 2048;

/// What became of the spans since the start.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn add_exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, spans: u64) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }
}

/// Takes spans in as they end.
#[derive(Debug)]
pub struct Queue {
    places: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
}

pub fn queue() -> (Queue, mpsc::Receiver<SpanData>) {
    let (places, spans) = mpsc::channel(WAITING_AT_MOST);
    let counts = Arc::default();
    (Queue { places, counts }, spans)
}

impl Queue {
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.places.try_send(span).is_err() {
            self.counts.add_dropped(1);
        }
    }

    /// The exporter does that, when it stops.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn what_finds_no_place_is_dropped_and_counted() {
        let (queue, mut spans) = queue();
        let counts = queue.counts();
        let provider = SdkTracerProvider::builder().with_span_processor(queue);
        let tracer = provider.build().tracer("test");
        for _ in 0..WAITING_AT_MOST + 3 {
            drop(tracer.start("one"));
        }
        assert_eq!(counts.dropped(), 3);
        spans.try_recv().unwrap();
        drop(tracer.start("another"));
        assert_eq!(counts.dropped(), 3);
        drop(spans);
        drop(tracer.start("too late"));
        assert_eq!(counts.dropped(), 4);
    }
}
