//! Requests that can be sent again, because their bodies are small and here as a whole.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};

use crate::gateway::Body;

/// A body that says it is no longer is read whole before a node is chosen: it can then be sent
/// again, and a slow client takes up no place at a function meanwhile.
const GATHERED_BODY: u64 = 16 << 10;

/// For such a body to come.
const GATHER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request's body did not come.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request's body ended early")]
    Cut,
    #[error("the request's body did not come in time")]
    Slow,
}

/// A request that can be sent again.
#[derive(Clone)]
pub struct Copy {
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Copy {
    pub fn method(&self) -> &Method {
        &self.method
    }

    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(full(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Reads a small body whole, so that the request can be sent again; lets a larger one stream.
pub async fn gather(request: Request<Body>) -> Result<(Request<Body>, Option<Copy>), BodyError> {
    let size = request.body().size_hint();
    if size.exact().is_none_or(|size| size > GATHERED_BODY) {
        return Ok((request, None));
    }
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        tokio::time::timeout(GATHER_TIMEOUT, body.collect())
            .await
            .map_err(|_| BodyError::Slow)?
            .map_err(|_| BodyError::Cut)?
            .to_bytes()
    };
    let copy = Copy {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    };
    Ok((Request::from_parts(head, full(body)), Some(copy)))
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer in words.
pub fn text(status: StatusCode, said: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(said));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;
    use crate::gateway::BoxError;

    fn streaming(text: &'static str) -> Body {
        let frames = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(
            text.as_bytes(),
        )))]);
        StreamBody::new(frames).boxed_unsync()
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again() {
        for text in ["", "hello"] {
            let request = Request::post("/x").body(full(text)).unwrap();
            let (request, copy) = gather(request).await.unwrap();
            for request in [request, copy.unwrap().request()] {
                assert_eq!(
                    (request.method(), request.uri().path()),
                    (&Method::POST, "/x")
                );
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, text);
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_unknown_or_great_length_streams() {
        let large = vec![0; GATHERED_BODY as usize + 1];
        for body in [streaming("hello"), full(large)] {
            let (_, copy) = gather(Request::new(body)).await.unwrap();
            assert!(copy.is_none());
        }
    }
}
