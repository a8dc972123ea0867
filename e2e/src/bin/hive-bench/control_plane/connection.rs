//! One connection over TLS, HTTP/1.1 or HTTP/2, and one call on it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A list of 10 MB should not wait for its window at every 64 KB.
const WINDOW: u32 = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// Where a member of a system is reached.
#[derive(Clone)]
pub struct Member {
    pub address: SocketAddr,
    /// In PEM.
    pub ca: Arc<Vec<u8>>,
}

/// What is asked, and how success looks.
#[derive(Clone)]
pub struct Call {
    pub request: Request<Full<Bytes>>,
    pub grpc: bool,
}

#[derive(Clone)]
pub enum Connection {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// The server has too much to do, and did nothing.
#[derive(Debug, thiserror::Error)]
#[error("answered 429")]
pub struct Refused;

impl Connection {
    pub async fn open(member: &Member, version: Version) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&member.ca) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocol: &[u8] = match version {
            Version::Http1 => b"http/1.1",
            Version::Http2 => b"h2",
        };
        tls.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(member.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(member.address.ip());
        let connector = TlsConnector::from(Arc::new(tls));
        let stream = TokioIo::new(connector.connect(name, stream).await?);
        match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Ok(Self::Http1(Arc::new(sender.into())))
            }
            Version::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .handshake(stream)
                    .await?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            }
        }
    }

    /// The body of a success.
    pub async fn call(&mut self, call: Call) -> anyhow::Result<Bytes> {
        let response = self.send(call.request).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let collected = response.into_body().collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Refused.into());
        }
        if !status.is_success() {
            bail!("answered {status}: {}", String::from_utf8_lossy(&body));
        }
        match call.grpc {
            true => message(body, &headers, &trailers),
            false => Ok(body),
        }
    }

    /// For answers that go on.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                Ok(sender.send_request(request).await?)
            }
            Self::Http2(sender) => Ok(sender.send_request(request).await?),
        }
    }
}

/// The message of a unary gRPC answer.
fn message(mut body: Bytes, headers: &HeaderMap, trailers: &HeaderMap) -> anyhow::Result<Bytes> {
    let status = trailers.get("grpc-status").or(headers.get("grpc-status"));
    let status = status.context("no grpc-status")?;
    if status != "0" {
        let why = trailers.get("grpc-message").or(headers.get("grpc-message"));
        bail!("grpc-status {status:?} {why:?}");
    }
    if body.len() < 5 {
        bail!("a gRPC answer without a message");
    }
    body.advance(5);
    Ok(body)
}
