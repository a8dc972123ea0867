//! A small HTTP/1.1 client that says exactly what happened to a request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than any function of the tests may take.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The answer, if it is a success.
    pub fn ok(self) -> Result<Self, String> {
        match self.status {
            200..300 => Ok(self),
            _ => Err(format!("{}: {}", self.status, self.text())),
        }
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("broken off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
}

/// One connection, kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self, HttpError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with its sender, and tells it why.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub async fn send(
        &mut self,
        method: Method,
        host: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .body(Full::new(body))
            .expect("hosts and paths of tests are well-formed");
        self.exchange(request).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or(Err(HttpError::Timeout))
    }
}

/// A GET on a connection of its own.
pub async fn get(address: &str, host: &str, path: &str) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(address).await?;
    connection.send(Method::GET, host, path, Bytes::new()).await
}

/// A GET with more headers, on a connection of its own.
pub async fn get_with(
    address: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, HttpError> {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::default())
        .expect("paths and headers of tests are well-formed");
    Connection::open(address).await?.exchange(request).await
}

/// A POST on a connection of its own.
pub async fn post(address: &str, host: &str, path: &str, body: Bytes) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(address).await?;
    connection.send(Method::POST, host, path, body).await
}
