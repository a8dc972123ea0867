//! A client of one controller that knows exactly how far each request came.
//!
//! What was never sent has certainly not happened; what was sent and got no answer may have. A
//! checker of histories needs the two apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::network;

/// A handshake between neighbours takes milliseconds; a request is not sent through one that takes longer.
const CONNECT: Duration = Duration::from_millis(700);

/// Where controllers of a cluster serve their API.
pub const API_PORT: u16 = 6443;

/// What opens the doors of a swarm.
#[derive(Clone)]
pub struct Access {
    token: String,
    tls: TlsConnector,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// From the kubeconfig that `init` left.
    pub fn of(config: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("it is complete").to_owned();
        let ca = text(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
        let ca = base64::prelude::BASE64_STANDARD
            .decode(ca)
            .expect("it is base64");
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(&ca).expect("it is a certificate");
        roots.add(ca).expect("it is a CA's");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            token: text(&config["users"][0]["user"]["token"]),
            tls: TlsConnector::from(Arc::new(tls)),
        }
    }

    pub fn token(&self) -> &str {
        &self.token
    }
}

/// What came of a request.
#[derive(Debug)]
pub enum Heard {
    Answer {
        status: u16,
        body: Value,
    },
    /// It never left.
    NotSent(String),
    /// It left, and no answer came.
    Nothing(String),
}

/// One client's way to one controller, or to the one that took its place: at most one connection.
#[derive(Debug)]
pub struct Door {
    access: Access,
    /// In the network.
    place: Arc<AtomicUsize>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Door {
    pub fn new(access: &Access, place: Arc<AtomicUsize>) -> Self {
        Self {
            access: access.clone(),
            place,
            connection: None,
        }
    }

    fn address(&self) -> Ipv4Addr {
        network::address(self.place.load(Ordering::SeqCst))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let connecting = async {
            let address = self.address();
            let stream = TcpStream::connect(SocketAddr::from((address, API_PORT))).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.into());
            let stream = self.access.tls.connect(name, stream).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
            // Ends with its sender, and tells it why.
            tokio::spawn(connection);
            Ok::<_, std::io::Error>(sender)
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no connection in time".to_owned()),
        }
    }

    /// A connection that is ready for a request.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, String> {
        let mut sender = match self.connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await.map_err(|error| error.to_string())?;
        Ok(sender)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address().to_string())
            .header("authorization", format!("Bearer {}", self.access.token))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("paths of tests are well-formed")
    }

    /// Sends one request, and waits no longer than `patience` for its answer.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Heard {
        let mut sender = match self.sender().await {
            Ok(sender) => sender,
            Err(why) => return Heard::NotSent(why),
        };
        let request = self.request(method, path, body);
        let exchange = async {
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    let why = error.error().to_string();
                    return match error.take_message() {
                        Some(_) => Err(Heard::NotSent(why)),
                        None => Err(Heard::Nothing(why)),
                    };
                }
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await;
            let body = body.map_err(|error| Heard::Nothing(error.to_string()))?;
            Ok(Heard::Answer {
                status: head.status.as_u16(),
                body: serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(answer)) => {
                self.connection = Some(sender);
                answer
            }
            Ok(Err(unanswered)) => unanswered,
            Err(_) => Heard::Nothing(format!("no answer within {patience:?}")),
        }
    }

    /// The lines of an answer that goes on; the status of one that is no success, if there is one.
    pub async fn follow(&mut self, path: &str) -> Result<Lines, Option<u16>> {
        let mut sender = self.sender().await.map_err(|_| None)?;
        let request = self.request(Method::GET, path, None);
        let response = sender.send_request(request).await.map_err(|_| None)?;
        match response.status().as_u16() {
            200 => Ok(Lines {
                _sender: sender,
                body: response.into_body(),
                read: BytesMut::new(),
            }),
            status => Err(Some(status)),
        }
    }

    /// The body of a successful answer.
    pub async fn get(&mut self, path: &str) -> Result<Value, String> {
        match self.ask(Method::GET, path, None, CALM).await {
            Heard::Answer {
                status: 200, body, ..
            } => Ok(body),
            other => Err(format!("{other:?}")),
        }
    }
}

/// An answer that comes line by line.
#[derive(Debug)]
pub struct Lines {
    /// The connection ends with it.
    _sender: SendRequest<Full<Bytes>>,
    body: Incoming,
    read: BytesMut,
}

impl Lines {
    /// The next one, which is JSON; `None` where it ended or broke off, even in the middle of a line.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line).ok();
            }
            let frame = self.body.frame().await?.ok()?;
            self.read.extend_from_slice(frame.data_ref()?);
        }
    }
}

/// For requests while nothing is broken: as long as the controllers themselves wait, and a little.
pub const CALM: Duration = Duration::from_secs(12);
