//! A span of each request that comes in, for whoever uses OpenTelemetry.
//!
//! A request's headers say which trace it belongs to; out come the same headers with this span as parent of
//! what comes after, and at its end the span, for [`Exporter`]. Nothing here waits or fails: what there is no
//! room for is dropped and counted. Libraries decide what is sampled and how it is encoded.

mod collector;
mod context;
mod export;
mod options;
mod queue;
mod traced;

use std::borrow::Cow;
use std::sync::Arc;

use hive_proto::invoke::{REASON, REQUEST_ID};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::gateway::Body;
use crate::state::Key;
pub use export::Exporter;
pub use options::{OtlpArgs, OtlpOptions};
pub use queue::Counts;
use queue::Queue;
use traced::Traced;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Callers make paths and hosts; with this bound, what waits in the queue is some MB at most. Bytes.
const LONGEST_VALUE: usize = 1024;

/// Makes the spans of requests. A clone is the same.
#[derive(Clone)]
pub struct Spans {
    tracer: SdkTracer,
    counts: Arc<Counts>,
}

/// What a request asks for, where that is known.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    pub function: Option<&'a Key>,
    /// Where targets of a tunnel answer instead.
    pub tunnel: Option<&'a Key>,
    /// The path of the route by which it came.
    pub route: Option<&'a str>,
}

/// In the extensions of an answer: who gave it.
#[derive(Clone)]
pub struct AnsweredBy {
    pub node: String,
    /// As which version it was asked.
    pub revision: Option<HeaderValue>,
}

/// The span of one request, until it is dropped.
pub struct RequestSpan(Span);

impl Spans {
    /// Beside what makes spans, what sends them on.
    pub fn new(options: OtlpOptions) -> (Self, Exporter) {
        let (queue, ended) = queue::queue();
        let made = Self::with_queue(queue, options.sample_ratio);
        let exporter = Exporter::new(options, ended, made.counts.clone());
        (made, exporter)
    }

    fn with_queue(queue: Queue, sample_ratio: f64) -> Self {
        let counts = queue.counts();
        let sampler = Sampler::TraceIdRatioBased(sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_span_processor(queue)
            .build();
        let tracer = provider.tracer("hive");
        Self { tracer, counts }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Begins the span of a request whose headers are as they go on, and makes it the parent that they name.
    pub fn begin<B>(&self, request: &mut Request<B>, asked: Asked<'_>) -> RequestSpan {
        let parent = context::parent(request.headers());
        let builder = self
            .tracer
            .span_builder(name(request.method(), asked))
            .with_kind(SpanKind::Server);
        let mut span = self.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attributes(attributes(request, asked));
        }
        context::make_parent(request.headers_mut(), span.span_context());
        RequestSpan(span)
    }
}

impl RequestSpan {
    /// It lasts until the answer has been read.
    pub fn answered(mut self, mut response: Response<Body>) -> Response<Body> {
        let by = response.extensions_mut().remove::<AnsweredBy>();
        if !self.0.is_recording() {
            return response;
        }
        if let Some(AnsweredBy { node, revision }) = by {
            self.0.set_attribute(KeyValue::new("hive.node", node));
            if let Some(revision) = revision.as_ref().and_then(|it| it.to_str().ok()) {
                let revision = revision.to_owned();
                self.0
                    .set_attribute(KeyValue::new("hive.revision", revision));
            }
        }
        let status = response.status();
        let code = i64::from(status.as_u16());
        self.0
            .set_attribute(KeyValue::new("http.response.status_code", code));
        if status.is_server_error() {
            // What a function answers by itself has no reason but its status, which is told already.
            let reason = text(response.headers(), REASON).unwrap_or_default();
            self.fail(match &*reason {
                "" => status.as_str().to_owned(),
                reason => reason.to_owned(),
            });
            self.0.set_status(Status::error(reason));
        }
        response.map(|body| Traced::new(body, self).boxed_unsync())
    }

    fn fail(&mut self, kind: impl Into<Cow<'static, str>>) {
        let kind: Cow<'static, str> = kind.into();
        self.0.set_attribute(KeyValue::new("error.type", kind));
    }

    /// The answer ended before its end.
    fn cut(&mut self) {
        const CUT: &str = "AnswerCut";
        self.fail(CUT);
        self.0.set_status(Status::error(CUT));
    }
}

/// Of these there are few: what tells requests apart is in their attributes.
fn name(method: &Method, asked: Asked<'_>) -> String {
    let method = known(method).unwrap_or("HTTP");
    match (asked.route, asked.function.or(asked.tunnel)) {
        (Some(route), _) => format!("{method} {route}"),
        (
            None,
            Some(Key {
                namespace, name, ..
            }),
        ) => format!("{method} {namespace}/{name}"),
        (None, None) => method.to_owned(),
    }
}

/// By OpenTelemetry's semantic conventions for HTTP servers and functions, and Hive's own words. Never the
/// query, which may hold what nobody else is to see.
fn attributes<B>(request: &Request<B>, asked: Asked<'_>) -> Vec<KeyValue> {
    let headers = request.headers();
    let scheme = match headers.get(FORWARDED_PROTO) {
        Some(proto) if proto == "https" => "https",
        _ => "http",
    };
    let mut all = vec![
        KeyValue::new("url.scheme", scheme),
        KeyValue::new("url.path", cut(request.uri().path())),
    ];
    match known(request.method()) {
        Some(method) => all.push(KeyValue::new("http.request.method", method)),
        None => {
            let original = cut(request.method().as_str());
            all.push(KeyValue::new("http.request.method", "_OTHER"));
            all.push(KeyValue::new("http.request.method_original", original));
        }
    }
    let mut add = |name: &'static str, value: Option<String>| {
        all.extend(value.map(|value| KeyValue::new(name, value)));
    };
    let host = text(headers, HOST);
    add("server.address", host.map(|host| cut(without_port(&host))));
    add("http.route", asked.route.map(str::to_owned));
    add("faas.name", asked.function.map(|it| it.name.clone()));
    add("hive.tunnel", asked.tunnel.map(|it| it.name.clone()));
    let asked = asked.function.or(asked.tunnel);
    add("hive.namespace", asked.map(|it| it.namespace.clone()));
    add("hive.request_id", text(headers, REQUEST_ID));
    all
}

/// The methods that the conventions know; of others there may be any number.
fn known(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => return None,
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_VALUE)].to_owned()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests;
