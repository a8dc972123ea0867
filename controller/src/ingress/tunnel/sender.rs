//! What sends requests on a connection to a target, in the version of HTTP that the target speaks.

use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};

use super::shared::Share;
use crate::gateway::Body;

pub enum Sender {
    Http1(http1::SendRequest<Body>),
    /// One of those who share it.
    Http2(http2::SendRequest<Body>, Share),
}

impl Sender {
    /// Whether it can take one more request.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender, _) => sender.is_ready(),
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender, _) => sender.is_closed(),
        }
    }

    pub async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender, _) => {
                to_http2(&mut request);
                sender.try_send_request(request).await
            }
        }
    }
}

/// The host is in the target, nothing speaks of the connection, and trailers are understood, without which servers of
/// gRPC answer nothing.
pub fn to_http2<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_2;
    let path = request.uri().path_and_query().cloned();
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let host = headers.remove(HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    // One that was prepared already has it.
    if let Some(host) = host {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(host);
        parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
        if let Ok(target) = Uri::from_parts(parts) {
            *request.uri_mut() = target;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_of_http2_names_its_host_in_its_target() {
        let request = Request::post("/pkg.Service/Call?x=1");
        let request = request.header("host", "a.example:8443").body(());
        let mut request = request.unwrap();
        let wishes = [("connection", "upgrade"), ("upgrade", "websocket")];
        for (name, value) in wishes {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        // A second time changes nothing.
        for _ in 0..2 {
            to_http2(&mut request);
            assert_eq!(request.uri(), "http://a.example:8443/pkg.Service/Call?x=1");
            assert_eq!(request.version(), Version::HTTP_2);
            let names: Vec<_> = request.headers().keys().map(|it| it.as_str()).collect();
            assert_eq!(names, ["te"]);
        }
    }
}
