//! One collector: takes messages of OTLP over HTTP, or says why not.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::RootCertStore;
use url::Url;

use super::options::OtlpError;
use crate::client_tls;

/// As OpenTelemetry's own exporters have it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer is empty, or a number and a sentence.
const MAX_ANSWER_BYTES: usize = 64 << 10;

pub struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    /// Without what a path may hold of secrets.
    name: String,
}

/// Why it did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it did not answer within {TIMEOUT:?}")]
    TimedOut,
    #[error("it answered with status {0}")]
    Status(StatusCode),
}

impl ExportError {
    /// The same message may be taken later; by the list of OTLP's specification.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl Collector {
    pub fn new(endpoint: &Url, mut headers: HeaderMap) -> Result<Self, OtlpError> {
        let roots = match endpoint.scheme() {
            "https" => client_tls::system_roots(),
            _ => RootCertStore::empty(),
        };
        if endpoint.scheme() == "https" && roots.is_empty() {
            return Err(OtlpError::NoRoots);
        }
        let uri: Uri = endpoint.as_str().parse().map_err(|_| OtlpError::Endpoint)?;
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, protobuf);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls::config(roots))
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            name: endpoint.origin().ascii_serialization(),
            uri,
            headers,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many of the spans in it the collector refused.
    pub async fn take(&self, message: Bytes) -> Result<u64, ExportError> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| ExportError::Unreachable(error.into()))?;
            if !response.status().is_success() {
                return Err(ExportError::Status(response.status()));
            }
            let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            // It has taken them, whatever else it has to say.
            let answer = answer.collect().await.map(|all| all.to_bytes());
            Ok(answer.map_or(0, |answer| refused(&answer)))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or(Err(ExportError::TimedOut))
    }
}

fn refused(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let refused = answer.partial_success.map_or(0, |part| part.rejected_spans);
    u64::try_from(refused).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, may_pass) in [
            (400, false),
            (401, false),
            (429, true),
            (500, false),
            (503, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(ExportError::Status(status).may_pass(), may_pass, "{status}");
        }
        assert!(ExportError::TimedOut.may_pass());
    }
}
