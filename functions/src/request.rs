//! What a function sees of a request, and what the log calls it.

use std::sync::Arc;

use http::{
    Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

/// The id that its log lines carry.
pub(crate) fn request_id<B>(request: &http::Request<B>) -> Option<Arc<str>> {
    /// Longer ones are not ids, and would be repeated in every line.
    const LONGEST: usize = 128;
    let id = request.headers().get("x-request-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LONGEST).then(|| id.into())
}

/// A request whose URI is whole: guests of both versions expect scheme and authority, HTTP/1.1
/// sends neither.
pub(crate) fn addressed<B>(request: http::Request<B>) -> http::Request<B> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    if uri.authority.is_none() {
        let host = head.headers.get(header::HOST);
        uri.authority = host
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .or(Some(Authority::from_static("localhost")));
    }
    head.uri = Uri::from_parts(uri).expect("scheme, authority and path are all there");
    http::Request::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_request_gets_the_address_it_was_sent_to() {
        let cases = [
            (
                "/a?b",
                Some("example.com:8080"),
                "http://example.com:8080/a?b",
            ),
            ("/", None, "http://localhost/"),
            ("/", Some("not a host"), "http://localhost/"),
            ("https://a.b/c", Some("d.e"), "https://a.b/c"),
            ("*", Some("a.b"), "http://a.b*"),
        ];
        for (uri, host, expected) in cases {
            let mut request = http::Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let uri = addressed(request.body(()).unwrap()).into_parts().0.uri;
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn only_short_printable_ids_are_kept() {
        let id = |value: &[u8]| {
            request_id(
                &http::Request::builder()
                    .header("x-request-id", value)
                    .body(())
                    .unwrap(),
            )
        };
        assert_eq!(id(b"abc-1").as_deref(), Some("abc-1"));
        assert_eq!(id(b""), None);
        assert_eq!(id(b"\xff"), None);
        assert_eq!(id(&[b'a'; 129]), None);
    }
}
