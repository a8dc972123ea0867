//! Sends spans to the collector, many in one message.
//!
//! While the collector is away, one message is offered again and again and the queue fills behind it; what
//! finds no place there is dropped. One warning is all that is said of it until the collector is back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, ExportError};
use super::options::OtlpOptions;
use super::queue::Counts;

/// As OpenTelemetry's own exporters have it: 2 MB at worst, of which collectors take more.
const SPANS_OF_A_MESSAGE: usize = 512;

/// How long the first span of a message waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// Between two offers to a collector that does not take what it is offered; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For what is left when the controller stops.
const FLUSHING: Duration = Duration::from_secs(3);

/// What sends them.
pub struct Exporter {
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    spans: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    /// For the next message.
    gathered: Vec<SpanData>,
    /// Until the collector has taken or refused it.
    message: Option<Message>,
}

struct Message {
    bytes: Bytes,
    spans: u64,
}

impl Exporter {
    pub(super) fn new(
        options: OtlpOptions,
        spans: mpsc::Receiver<SpanData>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            collector: options.collector,
            resource: (&options.resource).into(),
            spans,
            counts,
            gathered: Vec::new(),
            message: None,
        }
    }

    /// Until `stop`; what is left then is sent at once, if the collector takes it.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve() => {}
        }
        let in_time = tokio::time::timeout(FLUSHING, self.flush()).await;
        let waiting = self.message.as_ref().map_or(0, |message| message.spans);
        let left = waiting + (self.gathered.len() + self.spans.len()) as u64;
        if left > 0 {
            let collector = self.collector.name();
            let in_time = in_time.is_ok();
            tracing::warn!(
                collector,
                spans = left,
                in_time,
                "spans were lost at the stop"
            );
        }
    }

    /// Until no span can come any more. May be dropped at any await: nothing is lost by that.
    async fn serve(&mut self) {
        let mut outage: Option<Duration> = None;
        while self.gather().await {
            let Err(error) = self.offer().await else {
                if outage.take().is_some() {
                    let collector = self.collector.name();
                    tracing::info!(collector, "the collector takes spans again");
                }
                continue;
            };
            if outage.is_none() {
                let error = &error as &dyn std::error::Error;
                let collector = self.collector.name();
                tracing::warn!(collector, error, "the collector does not take spans");
            }
            let pause = outage.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
            outage = Some(pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for a message, if there is none. False when no span can come any more.
    async fn gather(&mut self) -> bool {
        if self.message.is_some() {
            return true;
        }
        if self.gathered.is_empty() && !self.receive().await {
            return false;
        }
        let others =
            async { while self.gathered.len() < SPANS_OF_A_MESSAGE && self.receive().await {} };
        let _ = tokio::time::timeout(GATHERING, others).await;
        self.pack();
        true
    }

    /// Takes spans that have ended, as many as there is room for in a message.
    async fn receive(&mut self) -> bool {
        let room = SPANS_OF_A_MESSAGE - self.gathered.len();
        self.spans.recv_many(&mut self.gathered, room).await > 0
    }

    fn pack(&mut self) {
        let spans = std::mem::take(&mut self.gathered);
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.resource),
        };
        self.message = Some(Message {
            bytes: request.encode_to_vec().into(),
            spans: count,
        });
    }

    /// Offers the message once. Only one that may be taken later is kept.
    async fn offer(&mut self) -> Result<(), ExportError> {
        let Some(message) = &self.message else {
            return Ok(());
        };
        let spans = message.spans;
        let taken = self.collector.take(message.bytes.clone()).await;
        let refused = match &taken {
            Ok(refused) => spans.min(*refused),
            Err(error) if error.may_pass() => return taken.map(drop),
            Err(_) => spans,
        };
        self.message = None;
        self.counts.add_dropped(refused);
        self.counts.add_exported(spans - refused);
        taken.map(drop)
    }

    async fn flush(&mut self) {
        loop {
            if self.message.is_none() {
                while self.gathered.len() < SPANS_OF_A_MESSAGE
                    && let Ok(span) = self.spans.try_recv()
                {
                    self.gathered.push(span);
                }
                if self.gathered.is_empty() {
                    return;
                }
                self.pack();
            }
            if self.offer().await.is_err() {
                return;
            }
        }
    }
}
