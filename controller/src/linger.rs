//! Request bodies that nobody reads to their end, because the answer was clear before.
//!
//! Closing a connection while the other side still sends makes its system throw away the answer
//! (RFC 9112, 9.6): what is left of the body is read and dropped for a while first.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Bytes read for the sake of an answer. Beyond, the sender loses it: he was told the limit.
const MAX_BYTES: usize = 32 << 20;

/// How long a slow sender is heard out.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A body whose rest is read after its last reader let go.
pub struct Lingering(Option<Incoming>);

impl From<Incoming> for Lingering {
    fn from(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.0.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            // Nothing is left to hear.
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(TIMEOUT, read_out(rest)));
        }
    }
}

async fn read_out(mut body: Incoming) {
    let mut read = 0;
    while read < MAX_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        drop(request.map(Lingering::from));
        let mut response = Response::new(Full::new(Bytes::from_static(b"too large")));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        Ok(response)
    }

    /// Who sends everything before he reads gets his answer, however large the body is.
    #[tokio::test]
    async fn the_answer_reaches_a_sender_that_was_refused_early() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(refuse))
                .await;
        });
        // Far more than the sockets' buffers hold.
        let body = vec![b'x'; 16 << 20];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 413"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}
