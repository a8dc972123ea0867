//! A collector of spans in this process, by OTLP over HTTP, that can go away and come back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::ports::{free, loopback};

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    spans: Vec<Collected>,
    /// Of the last message.
    headers: HeaderMap,
    /// What it answers instead of taking anything.
    refuses: Option<StatusCode>,
    asked: usize,
}

/// One span, and who told it.
#[derive(Clone, Debug)]
pub struct Collected {
    pub span: Span,
    resource: Vec<KeyValue>,
}

impl Collected {
    /// An attribute of the span, as text; empty where there is none.
    pub fn attribute(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }

    /// An attribute of who told it.
    pub fn resource(&self, name: &str) -> String {
        text(&self.resource, name)
    }
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(loopback(free()))
            .await
            .expect("nobody took its port");
        let address = listener.local_addr().expect("it is bound");
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let task = Some(tokio::spawn(serve(listener, shared.clone())));
        Self {
            address,
            shared,
            task,
        }
    }

    /// As `--otlp-endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nobody listens at its port from then on.
    pub async fn go_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// At the same port, with what it has collected.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address)
            .await
            .expect("nobody took its port");
        self.task = Some(tokio::spawn(serve(listener, self.shared.clone())));
    }

    /// Answers with that status, or takes spans again.
    pub fn refuse(&self, status: Option<StatusCode>) {
        self.lock().refuses = status;
    }

    /// All that it took.
    pub fn spans(&self) -> Vec<Collected> {
        self.lock().spans.clone()
    }

    /// Of the last message, whether it was taken or not.
    pub fn headers(&self) -> HeaderMap {
        self.lock().headers.clone()
    }

    /// How many messages it was offered.
    pub fn asked(&self) -> usize {
        self.lock().asked
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(answer(&shared, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        connections.spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(shared: &Mutex<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let message = body.collect().await.map(|all| all.to_bytes());
    let mut shared = lock(shared);
    shared.asked += 1;
    shared.headers = head.headers;
    let status = match (shared.refuses, message) {
        (Some(status), _) => status,
        (None, Ok(message)) if head.uri.path() == "/v1/traces" => shared.take(&message),
        (None, _) => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

impl Shared {
    fn take(&mut self, message: &[u8]) -> StatusCode {
        let Ok(request) = ExportTraceServiceRequest::decode(message) else {
            return StatusCode::BAD_REQUEST;
        };
        for told in request.resource_spans {
            let resource = told.resource.unwrap_or_default().attributes;
            let spans = told.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.extend(spans.map(|span| Collected {
                span,
                resource: resource.clone(),
            }));
        }
        StatusCode::OK
    }
}
