//! Answers: objects and lists in the form that the client asked for.
//!
//! Objects are encoded once, by [`Object::encoded`]; a list streams those shared bytes, piece by piece.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use hive_manifests::Resource;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::media::Form;
use super::query::IncludeObject;
use super::table;
use crate::state::{Key, Object};

/// How the client wants what it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub form: Form,
    pub include: IncludeObject,
}

pub(super) fn json_bytes(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub(super) fn json(code: StatusCode, body: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
    Ok(json_bytes(code, body))
}

/// A body that changes only with its tag; not sent to a client that has it already.
pub(super) fn unless_known(headers: &HeaderMap, etag: &str, body: impl Into<Body>) -> Response {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag)
        });
    let mut response = match known {
        true => Response::new(Body::empty()),
        false => Response::new(body.into()),
    };
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// One object.
pub(super) fn object(code: StatusCode, shape: Shape, object: &Object) -> Response {
    match shape.form {
        Form::Object => json_bytes(code, object.encoded().clone()),
        Form::Table | Form::Metadata => {
            body(code, shape, object.key().resource, &object.to_value())
        }
    }
}

/// One object that is not stored: what a dry run would have made.
pub(super) fn body(code: StatusCode, shape: Shape, resource: Resource, body: &Value) -> Response {
    let shown = match shape.form {
        Form::Object => body.to_string(),
        Form::Metadata => table::partial(body).to_string(),
        Form::Table => {
            let metadata = json!({ "resourceVersion": body["metadata"]["resourceVersion"] });
            let rows = [body].into_iter();
            table::table(resource, rows, metadata, shape.include, Timestamp::now()).to_string()
        }
    };
    json_bytes(code, shown)
}

/// A list's own metadata.
pub(super) struct ListMetadata {
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMetadata {
    fn to_json(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

pub(super) fn list(
    shape: Shape,
    resource: Resource,
    objects: Vec<Arc<Object>>,
    metadata: &ListMetadata,
) -> Response {
    let metadata = metadata.to_json();
    let (kind, api_version) = match shape.form {
        Form::Table => {
            let rows = objects.iter().map(|object| object.to_value());
            let shown = table::table(resource, rows, metadata, shape.include, Timestamp::now());
            return json_bytes(StatusCode::OK, shown.to_string());
        }
        Form::Object => (format!("{}List", resource.kind()), resource.api_version()),
        Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1"),
    };
    let head = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":["
    );
    let items = objects.into_iter().map(move |object| match shape.form {
        Form::Metadata => Bytes::from(table::partial(&object.to_value()).to_string()),
        Form::Object | Form::Table => object.encoded().clone(),
    });
    let pieces = pieces(head, items).map(Ok::<_, Infallible>);
    json_bytes(
        StatusCode::OK,
        Body::from_stream(futures::stream::iter(pieces)),
    )
}

/// A list is copied together as it is sent: each piece of a body costs a frame and a turn of the
/// connection, which is more than the copying of so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

fn pieces(head: String, items: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let mut items = items.peekable();
    let mut piece = BytesMut::from(head.as_bytes());
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        piece.reserve(PIECE_BYTES);
        while let Some(item) = items.next() {
            piece.put_slice(&item);
            if items.peek().is_some() {
                piece.put_u8(b',');
            }
            if piece.len() >= PIECE_BYTES {
                return Some(piece.split().freeze());
            }
        }
        ended = true;
        piece.put_slice(b"]}\n");
        Some(piece.split().freeze())
    })
}

/// What a deletion that left nothing behind is answered with.
pub(super) fn deleted(key: &Key, uid: &str) -> Result<Response, ApiError> {
    let mut details = json!({
        "name": key.name,
        "kind": key.resource.plural(),
        "uid": uid,
    });
    if !key.resource.group().is_empty() {
        details["group"] = json!(key.resource.group());
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    json(StatusCode::OK, &status)
}

/// Bytes of all warnings of one answer: clients refuse heads that are too long. Kubernetes' own.
const MAX_WARNING_BYTES: usize = 4 << 10;

/// Adds what the client should know although it got what it asked for.
pub(super) fn warn(mut response: Response, warnings: &[String]) -> Response {
    let mut bytes = 0;
    for warning in warnings {
        let value = format!("299 - \"{}\"", quoted(warning));
        bytes += value.len();
        if bytes > MAX_WARNING_BYTES {
            break;
        }
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// What may stand between quotation marks in a header: it is of ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn warnings_fit_into_a_head() {
        let odd = "unknown field \"a\\b\u{e9}\n\"".to_owned();
        let response = warn(Response::new(Body::empty()), &[odd]);
        assert_eq!(
            response.headers()[header::WARNING],
            "299 - \"unknown field \\\"a\\\\b??\\\"\""
        );
        let many: Vec<String> = (0..1000).map(|n| format!("unknown field {n}")).collect();
        let response = warn(Response::new(Body::empty()), &many);
        let sent = response.headers().get_all(header::WARNING).iter();
        assert!((100..200).contains(&sent.count()));
    }

    proptest! {
        #[test]
        fn a_list_in_pieces_is_the_list(lengths in proptest::collection::vec(0usize..40_000, 0..12)) {
            let items: Vec<Value> = lengths.iter().map(|n| json!("x".repeat(*n))).collect();
            let encoded = items.iter().map(|item| Bytes::from(item.to_string()));
            let all: Vec<u8> = pieces("{\"items\":[".into(), encoded).flatten().collect();
            prop_assert_eq!(serde_json::from_slice::<Value>(&all).ok(), Some(json!({ "items": items })));
        }
    }
}
