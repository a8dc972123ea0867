//! Why a request came to nothing, and what a person can do about it.
//!
//! Failures of the connection, refusals of the server and answers that make no sense are told
//! apart, because each is treated differently: another server is asked, the refusal is shown, or
//! a bug is reported.

use std::time::Duration;

use kube::core::Status;

use super::credential::Credential;

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("cannot reach the swarm: {}", attempts(.0))]
    Unreachable(Vec<Attempt>),
    #[error("{server} did not answer within {}", crate::age::human(*.after))]
    TimedOut { server: String, after: Duration },
    #[error("the connection to {server} broke")]
    Broken {
        server: String,
        #[source]
        source: kube::Error,
    },
    /// The server answered with a failure.
    #[error("{}", .0.message)]
    Status(Box<Status>),
    /// The server does not know who asks (401).
    #[error("{}", status.message)]
    Unauthenticated {
        status: Box<Status>,
        shown: Credential,
    },
    #[error("the kubeconfig's plugin gave no credential: {0}")]
    Plugin(String),
    #[error("the answer of {server} is not what was asked for: {message}")]
    Answer { server: String, message: String },
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
}

/// A server that could not be reached.
#[derive(Debug)]
pub struct Attempt {
    pub server: String,
    pub kind: Unreachable,
    pub message: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Unreachable {
    Refused,
    Certificate,
    Other,
}

fn attempts(attempts: &[Attempt]) -> String {
    let shown: Vec<String> = attempts
        .iter()
        .map(|attempt| format!("{} ({})", attempt.server, attempt.message))
        .collect();
    shown.join(", ")
}

impl RequestError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) | Self::Unauthenticated { status, .. } => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    pub fn is_bad_request(&self) -> bool {
        self.status().is_some_and(|status| status.code == 400)
    }

    /// Whoever asks may not.
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    /// The watched history is gone: list again.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410)
    }

    /// Why, where the server is named already.
    pub fn reason(&self) -> String {
        match self {
            Self::Unreachable(attempts) => match attempts.last() {
                Some(attempt) => attempt.message.clone(),
                None => self.to_string(),
            },
            other => other.to_string(),
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable(attempts)
                if attempts
                    .iter()
                    .all(|attempt| attempt.kind == Unreachable::Refused) =>
            {
                Some("is the swarm running? `hive up` starts one here".into())
            }
            Self::Unreachable(attempts)
                if attempts
                    .iter()
                    .any(|attempt| attempt.kind == Unreachable::Certificate) =>
            {
                Some(
                    "the kubeconfig may be of another swarm: compare its certificate-authority-data with the swarm's ca.crt"
                        .into(),
                )
            }
            Self::Unauthenticated { shown, .. } => Some(shown.remedy()),
            _ => None,
        }
    }
}

/// Why no connection came about, if that is what the error says.
pub fn connect_failure(error: &kube::Error) -> Option<(Unreachable, String)> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut is_connect = false;
    let mut kind = Unreachable::Other;
    let mut innermost = error.to_string();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<hyper_util::client::legacy::Error>() {
            is_connect = error.is_connect();
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            kind = Unreachable::Refused;
        }
        innermost = cause.to_string();
        source = cause.source();
    }
    // rustls' errors arrive inside io::Error without a source of their own.
    if innermost.contains("certificate") {
        kind = Unreachable::Certificate;
    }
    let message = match kind {
        Unreachable::Refused => "connection refused".to_owned(),
        Unreachable::Certificate | Unreachable::Other => innermost,
    };
    is_connect.then_some((kind, message))
}
