//! The HTTP stack under the `kube` client: one for each server of the kubeconfig.
//!
//! Requests of the client flow through kube's own layers (base address, credentials) into hyper.
//! It differs from kube's default stack in three ways: a dead server is found out quickly, so that
//! the next one can be tried; large bodies go out in pieces, so that their progress can be shown;
//! and retries are left to the caller, who knows what may be repeated.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use tower::{BoxError, ServiceBuilder};

/// A server that does not answer within this is passed over for the next one. Long enough for two
/// lost SYNs on a mobile link (1 s and 3 s), short enough for a person to wait out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pieces in which a body is sent: small against a progress bar, large against a system call.
const PIECE_BYTES: usize = 64 * 1024;

/// A request extension: counts the bytes of the body that were handed to the connection.
#[derive(Clone, Default)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client of any HTTPS server, of those that a configuration's certificates vouch for.
pub type Https = hyper_util::client::legacy::Client<Connector, Full<Bytes>>;

type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

pub fn https(config: &kube::Config) -> Result<Https, kube::Error> {
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector(config)?))
}

fn connector(config: &kube::Config) -> Result<Connector, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    config.rustls_https_connector_with_connector(http)
}

pub fn client(config: kube::Config) -> Result<kube::Client, kube::Error> {
    let connector = connector(&config)?;
    let transport =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_request(|request: Request<Body>| {
            let sent = request.extensions().get::<Sent>().cloned();
            request.map(|body| Pieces {
                body,
                rest: Bytes::new(),
                sent: sent.unwrap_or_default(),
            })
        })
        .map_err(BoxError::from)
        .service(transport);
    Ok(kube::Client::new(service, config.default_namespace))
}

/// A body that hands out its bytes piece by piece and counts them.
struct Pieces {
    body: Body,
    rest: Bytes,
    sent: Sent,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, kube::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        let data = self.rest.split_to(piece);
        self.sent.0.fetch_add(data.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_arrives_whole_and_is_counted() {
        let content = vec![7; PIECE_BYTES * 2 + 5];
        let sent = Sent::default();
        let pieces = Pieces {
            body: Body::from(content.clone()),
            rest: Bytes::new(),
            sent: sent.clone(),
        };
        assert_eq!(pieces.size_hint().exact(), Some(content.len() as u64));
        assert_eq!(pieces.collect().await.unwrap().to_bytes(), content);
        assert_eq!(sent.bytes(), content.len() as u64);
    }
}
