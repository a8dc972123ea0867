//! Asks a cloudflared how many connections to Cloudflare's network it has.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// It is on this machine, and counts to four.
const PATIENCE: Duration = Duration::from_secs(3);

/// An answer is one small object.
const MAX_ANSWER: usize = 4096;

/// Why it did not say.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    #[error("no connection")]
    Connect(#[from] std::io::Error),
    #[error("no answer of HTTP")]
    Http(#[from] hyper::Error),
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    #[error("an answer that is none of cloudflared's")]
    Other,
}

/// As it answers with 200, and with 503 where there are none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ready_connections: u32,
}

pub async fn connections(at: SocketAddr) -> Result<u32, ReadyError> {
    timeout(PATIENCE, ask(at))
        .await
        .unwrap_or(Err(ReadyError::Silent))
}

async fn ask(at: SocketAddr) -> Result<u32, ReadyError> {
    let stream = TcpStream::connect(at).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its sender.
    tokio::spawn(connection);
    let request = Request::get("/ready")
        .header(HOST, at.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|_| ReadyError::Other)?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|_| ReadyError::Other)?;
    let answer: Answer = serde_json::from_slice(&body.to_bytes()).map_err(|_| ReadyError::Other)?;
    Ok(answer.ready_connections)
}
