//! How an answer's bytes are sent: indented for people, compressed where that pays.
//!
//! Both are asked for by the head of the request and happen while the body is sent. What is not
//! ours to change passes as it is: events of watches, logs, what functions answer.

mod pretty;

use std::io::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::path::Target;
use super::watch;
use pretty::Indented;

/// Smaller answers are sent as they are: on most links that is faster. Kubernetes' own.
const MIN_COMPRESSED_BYTES: usize = 128 << 10;

/// The fastest level, as in Kubernetes: JSON shrinks to a tenth with it already.
const LEVEL: Compression = Compression::new(1);

/// Bytes that are made before they are sent on: large frames, small beside what a request may hold.
const CHUNK_BYTES: usize = 16 << 10;

/// Who look at answers themselves, by the beginning of their User-Agent. Kubernetes' own list.
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

type Failure = axum::Error;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    pretty: bool,
    gzip: bool,
}

impl Encoding {
    pub fn asked(request: &Request, target: Option<&Target>) -> Self {
        // A function's answer is the function's affair.
        let is_ours = !matches!(target, Some(Target::Objects(path)) if path.is_proxy());
        let has_body = is_ours && request.method() != Method::HEAD;
        Self {
            pretty: has_body && wants_pretty(request.uri(), request.headers()),
            gzip: has_body && takes_gzip(request.headers()),
        }
    }

    pub async fn encode(self, response: Response) -> Response {
        let Some(content_type) = response.headers().get(header::CONTENT_TYPE) else {
            return response;
        };
        let content_type = content_type.to_str().unwrap_or_default();
        let is_empty = response.status() == StatusCode::NOT_MODIFIED;
        if is_empty || content_type == watch::CONTENT_TYPE {
            return response;
        }
        let is_json = content_type.split(';').next() == Some("application/json");
        let is_document = is_json || content_type == super::openapi::PROTOBUF;
        let mut response = response;
        if self.pretty && is_json {
            response = response.map(|body| converted(body, Indented::default()));
        }
        if self.gzip && is_document {
            response = compress(response).await;
        }
        response
    }
}

fn wants_pretty(uri: &Uri, headers: &HeaderMap) -> bool {
    let query = uri.query().unwrap_or_default();
    let asked = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, value)| name == "pretty" && !value.is_empty());
    match asked {
        Some((_, value)) => matches!(&*value, "1" | "t" | "T" | "true" | "True" | "TRUE"),
        None => headers
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .is_some_and(|agent| READERS.iter().any(|reader| agent.starts_with(reader))),
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_gzip = parts.next() == Some("gzip");
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            is_gzip && quality.is_none_or(|q| q.parse().is_ok_and(|q: f32| q > 0.0))
        })
}

/// What turns a body into another while it is sent.
trait Conversion: Send + 'static {
    /// Takes a piece in; what there is of the other body goes to `out`.
    fn push(&mut self, piece: &[u8]);
    /// What is ready to be sent.
    fn ready(&mut self) -> &mut Vec<u8>;
    fn finish(&mut self);
}

fn converted(body: Body, conversion: impl Conversion) -> Body {
    let pieces = body.into_data_stream();
    Body::from_stream(converting(pieces, conversion))
}

fn converting(
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin + 'static,
    conversion: impl Conversion,
) -> impl Stream<Item = Result<Bytes, Failure>> {
    let under_way = Some((pieces, conversion));
    futures::stream::try_unfold(under_way, |under_way| async move {
        let Some((mut pieces, mut conversion)) = under_way else {
            return Ok(None);
        };
        while let Some(piece) = pieces.try_next().await? {
            conversion.push(&piece);
            if conversion.ready().len() >= CHUNK_BYTES {
                let chunk = std::mem::take(conversion.ready());
                return Ok(Some((chunk.into(), Some((pieces, conversion)))));
            }
        }
        conversion.finish();
        Ok(Some((std::mem::take(conversion.ready()).into(), None)))
    })
}

/// Compressed, if there is enough of it.
async fn compress(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut rest = body.into_data_stream();
    let (mut begun, mut bytes) = (Vec::new(), 0);
    // Nothing that is compressed waits for anything while it is sent.
    while bytes < MIN_COMPRESSED_BYTES {
        match rest.next().await {
            Some(piece) => {
                bytes += piece.as_ref().map_or(0, Bytes::len);
                begun.push(piece);
            }
            None => break,
        }
    }
    let is_large = bytes >= MIN_COMPRESSED_BYTES;
    let body = futures::stream::iter(begun).chain(rest);
    if !is_large {
        return Response::from_parts(parts, Body::from_stream(body));
    }
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(Vec::with_capacity(CHUNK_BYTES), LEVEL);
    let body = Body::from_stream(converting(body, encoder));
    Response::from_parts(parts, body)
}

impl Conversion for GzEncoder<Vec<u8>> {
    fn push(&mut self, piece: &[u8]) {
        self.write_all(piece).expect("a Vec takes everything");
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn finish(&mut self) {
        self.try_finish().expect("a Vec takes everything");
    }
}

impl Conversion for Indented {
    fn push(&mut self, piece: &[u8]) {
        Indented::push(self, piece);
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn finish(&mut self) {
        self.out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    fn asked(path: &str, headers: &[(&str, &str)]) -> (bool, bool) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let target = Target::parse(request.uri().path());
        let Encoding { pretty, gzip } = Encoding::asked(&request, target.as_ref());
        (pretty, gzip)
    }

    #[test]
    fn the_head_says_what_is_wanted() {
        let curl = ("user-agent", "curl/7.88.1");
        let kubectl = ("user-agent", "kubectl/v1.20.2");
        let gzip = ("accept-encoding", "gzip");
        for (path, headers, expected) in [
            ("/api/v1/secrets", vec![], (false, false)),
            ("/api/v1/secrets", vec![kubectl, gzip], (false, true)),
            ("/api/v1/secrets", vec![curl], (true, false)),
            ("/api/v1/secrets?pretty=false", vec![curl], (false, false)),
            ("/api/v1/secrets?pretty=", vec![curl], (true, false)),
            ("/api/v1/secrets?pretty=1", vec![kubectl], (true, false)),
            ("/api/v1/secrets?pretty=x", vec![curl], (false, false)),
            (
                "/apis/hive.dev/v1/namespaces/a/functions/f/proxy/?pretty=1",
                vec![curl, gzip],
                (false, false),
            ),
        ] {
            assert_eq!(asked(path, &headers), expected, "{path} {headers:?}");
        }
        for (accept, expected) in [
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("br,gzip", true),
            ("gzip;q=0", false),
            ("x-gzip", false),
            ("identity", false),
        ] {
            let (_, gzip) = asked("/", &[("accept-encoding", accept)]);
            assert_eq!(gzip, expected, "{accept}");
        }
    }

    async fn encoded(encoding: Encoding, pieces: Vec<String>) -> (HeaderMap, Vec<u8>) {
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures::stream::iter(pieces));
        let mut response = Response::new(body);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        let (parts, body) = encoding.encode(response).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.headers, body.to_vec())
    }

    #[tokio::test]
    async fn large_answers_are_compressed() {
        let encoding = Encoding {
            pretty: false,
            gzip: true,
        };
        for (pieces, compressed) in [(0, false), (127, false), (128, true), (3000, true)] {
            // No two alike, so that compression is not all there is to see.
            let pieces: Vec<String> = (0..pieces).map(|n| format!("{n:>1024}")).collect();
            let plain = pieces.concat();
            let (headers, body) = encoded(encoding, pieces).await;
            assert_eq!(headers.contains_key("content-encoding"), compressed);
            if compressed {
                assert_eq!(headers["vary"], "Accept-Encoding");
                assert!(body.len() < plain.len() / 8, "{}", body.len());
                let mut text = String::new();
                GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
                assert_eq!(text, plain);
            } else {
                assert_eq!(body, plain.as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_by_people_is_indented_before_it_is_compressed() {
        let encoding = Encoding {
            pretty: true,
            gzip: true,
        };
        let list = serde_json::json!({ "items": (0..20_000).collect::<Vec<_>>() });
        let (_, body) = encoded(encoding, vec![list.to_string()]).await;
        let mut text = String::new();
        GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, serde_json::to_string_pretty(&list).unwrap() + "\n");
    }
}
