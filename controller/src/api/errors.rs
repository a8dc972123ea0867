//! Everything that can go wrong with a request, and how Kubernetes says it.
//!
//! Each handler returns an [`ApiError`]; here and nowhere else it becomes a `Status` object with its
//! HTTP code. What is internal goes to the log, never to the client.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hive_manifests::Resource;
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ListMeta, Status, StatusCause, StatusDetails,
};

use crate::state::{Key, Rejection};
use crate::store::ProposeError;

/// Seconds a client should wait when there is no leader: an election takes one or two.
const ELECTION_RETRY_SECONDS: i32 = 1;
/// Seconds a client should wait when this controller is at its limit of concurrent requests.
const OVERLOAD_RETRY_SECONDS: i32 = 1;

/// One field that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub field: String,
    /// A Kubernetes cause type, such as `FieldValueInvalid`.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("Unauthorized: {0}")]
    Unauthenticated(&'static str),
    #[error("{0}")]
    Forbidden(String),
    #[error("{} {name:?} not found", qualified(*resource))]
    NotFound { resource: Resource, name: String },
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// Something that is not a stored object, such as the metrics of a node.
    #[error("{0}")]
    Absent(String),
    #[error("{} {name:?} already exists", qualified(*resource))]
    AlreadyExists { resource: Resource, name: String },
    #[error("Operation cannot be fulfilled on {} {name:?}: {message}", qualified(*resource))]
    Conflict {
        resource: Resource,
        name: String,
        message: String,
    },
    #[error("{}", invalid_message(*resource, name, causes))]
    Invalid {
        resource: Resource,
        name: String,
        causes: Vec<Cause>,
    },
    /// Fields that no schema knows or that are there twice, where the client wants to hear of them.
    #[error("{0} in version {version:?} cannot be handled as a {0}: strict decoding error: {1}",
        resource.kind(), strictly(causes), version = resource.version())]
    Strict {
        resource: Resource,
        causes: Vec<Cause>,
    },
    /// Fields that other managers own.
    #[error("{message}")]
    ApplyConflict { message: String, causes: Vec<Cause> },
    /// What is wrong is not the object but the options in the query.
    #[error("{kind}.meta.k8s.io \"\" is invalid: {}", listed(causes))]
    InvalidOptions {
        kind: &'static str,
        causes: Vec<Cause>,
    },
    #[error("{0}")]
    BadRequest(String),
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    #[error(
        "only application/json can be answered, as an object, a Table or PartialObjectMetadata"
    )]
    NotAcceptable,
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The asked revision is no longer kept. `restart` is a continue token that goes on regardless.
    #[error("{message}")]
    Expired {
        message: String,
        restart: Option<String>,
    },
    #[error("too many {0} at once on this controller, please try again later")]
    Overloaded(&'static str),
    #[error("{0}")]
    Unavailable(String),
    /// Nothing came of it; it may be asked again.
    #[error("{0}")]
    TimedOut(String),
    /// What came of a write is unknown. Clients send again by themselves what is answered with
    /// Retry-After, creations too: so this has none, as Kubernetes' own timeout.
    #[error("{0}")]
    Unconfirmed(String),
    /// Logged whole; the client learns only that it happened.
    #[error("internal error; the controller's log says more")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// `functions.hive.dev`, `secrets`.
pub(super) fn qualified(resource: Resource) -> String {
    match resource.group() {
        "" => resource.plural().to_owned(),
        group => format!("{}.{group}", resource.plural()),
    }
}

fn invalid_message(resource: Resource, name: &str, causes: &[Cause]) -> String {
    let kind = match resource.group() {
        "" => resource.kind().to_owned(),
        group => format!("{}.{group}", resource.kind()),
    };
    format!("{kind} {name:?} is invalid: {}", listed(causes))
}

/// As Kubernetes lists them: `unknown field "spec.replica", duplicate field "spec.env"`.
fn strictly(causes: &[Cause]) -> String {
    let each: Vec<String> = causes.iter().map(Cause::strictly).collect();
    each.join(", ")
}

fn listed(causes: &[Cause]) -> String {
    let each: Vec<String> = causes.iter().map(Cause::to_string).collect();
    match each.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl ApiError {
    pub(super) fn not_found(key: &Key) -> Self {
        Self::NotFound {
            resource: key.resource,
            name: key.name.clone(),
        }
    }

    pub(super) fn conflict(key: &Key, message: impl Into<String>) -> Self {
        Self::Conflict {
            resource: key.resource,
            name: key.name.clone(),
            message: message.into(),
        }
    }

    /// Somebody else changed the object after the writer read it.
    pub(super) fn modified(key: &Key) -> Self {
        Self::conflict(
            key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) fn forbidden(key: &Key, why: impl std::fmt::Display) -> Self {
        Self::Forbidden(format!(
            "{} {:?} is forbidden: {why}",
            qualified(key.resource),
            key.name
        ))
    }

    pub(super) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    /// An option of the query that cannot be; `kind` is that of the options.
    pub(super) fn option(
        kind: &'static str,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::InvalidOptions {
            kind,
            causes: vec![Cause {
                field: field.to_owned(),
                reason,
                message: message.into(),
            }],
        }
    }

    /// What became of a command about `key`.
    pub(super) fn proposing(key: &Key, error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(Rejection::AlreadyExists) => Self::AlreadyExists {
                resource: key.resource,
                name: key.name.clone(),
            },
            ProposeError::Rejected(Rejection::NotFound) => Self::not_found(key),
            ProposeError::Rejected(Rejection::NoNamespace) => Self::NotFound {
                resource: Resource::Namespace,
                name: key.namespace.clone(),
            },
            ProposeError::Rejected(Rejection::Conflict { .. }) => Self::modified(key),
            ProposeError::Rejected(exceeded @ Rejection::QuotaExceeded { .. }) => {
                Self::forbidden(key, exceeded)
            }
            other => Self::replicating(other),
        }
    }

    /// What became of a command or a read barrier that is about no single object.
    pub(super) fn replicating(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader => Self::Unavailable(
                "the controllers have no leader at the moment: a majority of them must be up and linked. \
                 Nothing was written; reads with resourceVersion=0 are answered from what this controller knows"
                    .into(),
            ),
            ProposeError::TimedOut => Self::Unconfirmed(
                "the controllers did not confirm in time; the write may still happen: read the object before trying again"
                    .into(),
            ),
            ProposeError::Stopped => {
                Self::Unavailable("this controller is shutting down: try another".into())
            }
            ProposeError::TooLarge(error) => Self::TooLarge(error.to_string()),
            // The store logs it and stops this controller.
            ProposeError::Storage(_) => {
                Self::Unavailable("this controller's disk failed and it is stopping: try another".into())
            }
            // What a rejection means depends on the command, so whoever proposes one says.
            ProposeError::Rejected(rejection) => Self::internal(rejection),
        }
    }

    fn code(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } | Self::NoSuchPath | Self::Absent(_) => StatusCode::NOT_FOUND,
            Self::AlreadyExists { .. } | Self::Conflict { .. } | Self::ApplyConflict { .. } => {
                StatusCode::CONFLICT
            }
            Self::Invalid { .. } | Self::InvalidOptions { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadRequest(_) | Self::Strict { .. } => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Expired { .. } => StatusCode::GONE,
            Self::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut(_) | Self::Unconfirmed(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound { .. } | Self::NoSuchPath | Self::Absent(_) => "NotFound",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict { .. } => "Conflict",
            Self::Invalid { .. } | Self::InvalidOptions { .. } => "Invalid",
            Self::BadRequest(_) | Self::Strict { .. } => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Expired { .. } => "Expired",
            Self::Overloaded(_) => "TooManyRequests",
            Self::Unavailable(_) => "ServiceUnavailable",
            Self::TimedOut(_) | Self::Unconfirmed(_) => "Timeout",
            Self::Internal(_) => "InternalError",
        }
    }

    fn retry_after_seconds(&self) -> Option<i32> {
        match self {
            Self::Overloaded(_) => Some(OVERLOAD_RETRY_SECONDS),
            Self::Unavailable(_) | Self::TimedOut(_) => Some(ELECTION_RETRY_SECONDS),
            _ => None,
        }
    }

    fn details(&self) -> Option<StatusDetails> {
        let about = |resource: Resource, name: &str| StatusDetails {
            group: Some(resource.group().to_owned()).filter(|group| !group.is_empty()),
            kind: Some(resource.plural().to_owned()),
            name: Some(name.to_owned()),
            ..StatusDetails::default()
        };
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. } => Some(about(*resource, name)),
            Self::Invalid {
                resource,
                name,
                causes,
            } => Some(StatusDetails {
                // As Kubernetes has it: for this reason alone, the kind and not the plural.
                kind: Some(resource.kind().to_owned()),
                causes: Some(causes.iter().map(Cause::to_status).collect()),
                ..about(*resource, name)
            }),
            Self::ApplyConflict { causes, .. } | Self::Strict { causes, .. } => {
                Some(StatusDetails {
                    causes: Some(causes.iter().map(Cause::to_status).collect()),
                    ..StatusDetails::default()
                })
            }
            Self::InvalidOptions { kind, causes } => Some(StatusDetails {
                group: Some("meta.k8s.io".to_owned()),
                kind: Some((*kind).to_owned()),
                causes: Some(causes.iter().map(Cause::to_status).collect()),
                ..StatusDetails::default()
            }),
            _ => self.retry_after_seconds().map(|seconds| StatusDetails {
                retry_after_seconds: Some(seconds),
                ..StatusDetails::default()
            }),
        }
    }

    /// The error as a Kubernetes `Status`.
    pub fn status(&self) -> Status {
        Status {
            code: Some(self.code().as_u16().into()),
            details: self.details(),
            message: Some(self.to_string()),
            metadata: ListMeta {
                continue_: match self {
                    Self::Expired { restart, .. } => restart.clone(),
                    _ => None,
                },
                ..ListMeta::default()
            },
            reason: Some(self.reason().to_owned()),
            status: Some("Failure".to_owned()),
        }
    }
}

impl Cause {
    /// What is wrong before where it is: `unknown field "spec.replica"; did you mean "replicas"?`.
    pub(super) fn strictly(&self) -> String {
        let (what, more) = match self.message.split_once(';') {
            Some((what, more)) => (what, format!(";{more}")),
            None => (&*self.message, String::new()),
        };
        format!("{what} {:?}{more}", self.field)
    }

    fn to_status(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()).filter(|field| !field.is_empty()),
            message: Some(self.message.clone()),
            reason: Some(self.reason.to_owned()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(error) = &self {
            tracing::error!(error = error_chain(error.as_ref()), "request failed");
        }
        let body = serde_json::to_vec(&self.status()).expect("a Status is plain data");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Unauthenticated(_)) {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"hive\""),
            );
        }
        response
    }
}

/// An error and its sources on one line.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_error_has_its_code_reason_and_hint_to_retry() {
        let key = Key::new(Resource::Function, "a", "f");
        let table = [
            (ApiError::NoSuchPath, 404, "NotFound", None),
            (ApiError::modified(&key), 409, "Conflict", None),
            (
                ApiError::Overloaded("requests"),
                429,
                "TooManyRequests",
                Some("1"),
            ),
            (
                ApiError::proposing(&key, ProposeError::NoLeader),
                503,
                "ServiceUnavailable",
                Some("1"),
            ),
            (
                ApiError::proposing(&key, ProposeError::TimedOut),
                504,
                "Timeout",
                None,
            ),
            (
                ApiError::proposing(&key, ProposeError::Rejected(Rejection::NoNamespace)),
                404,
                "NotFound",
                None,
            ),
            (
                ApiError::proposing(&key, ProposeError::Rejected(Rejection::AlreadyExists)),
                409,
                "AlreadyExists",
                None,
            ),
        ];
        for (error, code, reason, retry) in table {
            let status = error.status();
            assert_eq!(status.code, Some(code), "{error}");
            assert_eq!(status.reason.as_deref(), Some(reason), "{error}");
            let response = error.into_response();
            assert_eq!(i32::from(response.status().as_u16()), code);
            let header = response.headers().get(header::RETRY_AFTER);
            assert_eq!(header.map(|value| value.to_str().unwrap()), retry);
        }
    }

    #[test]
    fn what_is_internal_stays_inside() {
        let error = ApiError::internal(std::io::Error::other("/secret/path is full"));
        let status = serde_json::to_string(&error.status()).unwrap();
        assert!(!status.contains("secret"), "{status}");
    }
}
