//! Which form a client sends and which it wants back.
//!
//! Answers are JSON; what differs is whether one is the object itself, a Table for people, or its
//! metadata alone.

mod json;

use hive_manifests::{FieldPath, document};
use http::{HeaderMap, header};

use serde_json::Value;

use super::errors::ApiError;
use super::protobuf::{self, ProtobufError};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    /// `meta.k8s.io/v1` Table: rows of cells as `get` prints them.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

/// How a patch is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    Merge,
    Json,
    Strategic,
    /// Server-side apply.
    Apply,
}

impl Form {
    /// The first acceptable form in the order the client names them.
    pub fn accepted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(accept) = headers.get(header::ACCEPT) else {
            return Ok(Self::Object);
        };
        let accept = accept.to_str().map_err(|_| ApiError::NotAcceptable)?;
        accept
            .split(',')
            .find_map(Self::of)
            .ok_or(ApiError::NotAcceptable)
    }

    fn of(media_range: &str) -> Option<Self> {
        let mut parts = media_range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (mut form, mut version) = (None, None);
        for parameter in parts {
            match parameter.split_once('=')? {
                ("as", value) => form = Some(value),
                ("v", value) => version = Some(value),
                _ => {}
            }
        }
        match form {
            None => Some(Self::Object),
            Some("Table") if version == Some("v1") => Some(Self::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if version == Some("v1") =>
            {
                Some(Self::Metadata)
            }
            // Aggregated discovery and whatever comes later: the next range is asked.
            Some(_) => None,
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// An object as a client sent it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub value: Value,
    /// Fields that were there more than once.
    pub repeated: Vec<FieldPath>,
}

/// What a body holds, whatever it holds twice.
pub(super) fn parse_body(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    parse_object(headers, body).map(|sent| sent.value)
}

/// What a body holds: JSON, which no content type means as well, or protobuf of Kubernetes' kinds.
pub(super) fn parse_object(headers: &HeaderMap, body: &[u8]) -> Result<Sent, ApiError> {
    let once = |value| Sent {
        value,
        repeated: Vec::new(),
    };
    match content_type(headers) {
        None | Some("" | "application/json") => parse_json(body)
            .map_err(|error| ApiError::BadRequest(format!("the body is not JSON: {error}"))),
        Some("application/vnd.kubernetes.protobuf") => {
            protobuf::decode(body)
                .map(once)
                .map_err(|error| match error {
                    ProtobufError::UnknownKind(_) => {
                        ApiError::UnsupportedMediaType(error.to_string())
                    }
                    ProtobufError::NoEnvelope | ProtobufError::Malformed => {
                        ApiError::BadRequest(error.to_string())
                    }
                })
        }
        Some(other) => Err(ApiError::UnsupportedMediaType(format!(
            "the body is {other:?}; objects are read as application/json (hivectl converts YAML)"
        ))),
    }
}

pub(super) fn parse_json(text: &[u8]) -> serde_json::Result<Sent> {
    let (value, repeated) = json::parse(text)?;
    Ok(Sent { value, repeated })
}

/// The declaration in the body of an apply: YAML, of which JSON is a part. YAML names nothing twice.
pub(super) fn parse_declaration(body: &[u8]) -> Result<Sent, ApiError> {
    if let Ok(sent) = parse_json(body) {
        return Ok(sent);
    }
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::BadRequest("the declaration is not text in UTF-8".into()))?;
    let mut documents = document::parse(text, "the declaration")
        .map_err(|error| ApiError::BadRequest(error.to_string()))?;
    match (documents.pop(), documents.is_empty()) {
        (Some(only), true) => Ok(Sent {
            value: only.value,
            repeated: Vec::new(),
        }),
        _ => Err(ApiError::BadRequest(
            "the body of an apply is one object: apply several one by one".into(),
        )),
    }
}

impl PatchKind {
    pub fn sent(headers: &HeaderMap) -> Result<Self, ApiError> {
        const SUPPORTED: &str = "application/merge-patch+json, application/json-patch+json, application/apply-patch+yaml";
        match content_type(headers) {
            Some("application/merge-patch+json") => Ok(Self::Merge),
            Some("application/json-patch+json") => Ok(Self::Json),
            Some("application/strategic-merge-patch+json") => Ok(Self::Strategic),
            Some("application/apply-patch+yaml") => Ok(Self::Apply),
            other => Err(ApiError::UnsupportedMediaType(format!(
                "the patch is {:?}; supported are {SUPPORTED}",
                other.unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accepting(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Form::accepted(&headers).ok()
    }

    #[test]
    fn the_first_form_that_can_be_answered_is_taken() {
        for (accept, form) in [
            ("*/*", Some(Form::Object)),
            ("application/json", Some(Form::Object)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Object),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Form::Table),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json",
                Some(Form::Object),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::Metadata),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some(Form::Object),
            ),
            ("text/html", None),
        ] {
            assert_eq!(accepting(accept), form, "{accept}");
        }
    }
}
