//! What the audit log is told of those who come in by a link: who joined, whose certificate was issued
//! or renewed, which controller left. In the same form as requests to the API.

use std::time::SystemTime;

use hive_manifests::GROUP;
use hive_proto::grpc::LinkInfo;
use tonic::{Code, Request, Status};

use crate::audit::{Asked, Audit, Decision, Event, Identity, Level, ObjectReference, Subject};

/// As long as a name may be in a certificate.
const MAX_NAME_CHARS: usize = 63;

/// A call on its way.
pub struct Record {
    event: Event,
    /// Names the sender where its certificate does not.
    token: Option<String>,
}

impl Record {
    pub fn begin<T>(request: &Request<T>, method: &str, verb: &str) -> Self {
        let link = request.extensions().get::<LinkInfo>();
        let mut event = Event::begin(method.to_owned(), verb.to_owned());
        event.source = link.and_then(|link| link.remote).map(|remote| remote.ip());
        let peer = link.and_then(|link| link.peer.as_ref());
        event.user = peer.map(|peer| user(&peer.subject));
        Self { event, token: None }
    }

    /// What it is about: a node, a controller, or a part of one.
    pub fn about(&mut self, resource: &str, name: &str, subresource: &str) {
        self.event.object = Some(ObjectReference {
            resource: resource.to_owned(),
            // Before it is checked, whoever asks may say anything.
            name: name.chars().take(MAX_NAME_CHARS).collect(),
            api_group: GROUP.to_owned(),
            subresource: subresource.to_owned(),
            ..ObjectReference::default()
        });
    }

    pub fn note(&mut self, name: &'static str, text: String) {
        self.event.notes.push((name, text));
    }

    /// The token that proved good.
    pub fn token(&mut self, name: &str) {
        self.token = Some(name.to_owned());
    }

    /// The node whose key proved good, where it showed no certificate.
    pub fn node(&mut self, name: &str) {
        self.event.user = Some(user(&hive_identity::Subject::Node { name: name.into() }));
    }

    /// Records it with its outcome, as far as the policy wants.
    pub async fn ended<T>(mut self, audit: &Audit, outcome: &Result<T, Status>) {
        let event = &mut self.event;
        if let Some(token) = self.token {
            event.user = Some(Identity {
                username: format!("hive:{token}"),
                groups: vec!["system:authenticated".into()],
                ..Identity::default()
            });
        }
        let status = outcome.as_ref().err();
        event.code = status.map_or(200, |status| http_status(status.code()));
        event.decision = match status.map(Status::code) {
            None => Some(Decision {
                allowed: true,
                reason: String::new(),
            }),
            Some(Code::Unauthenticated | Code::PermissionDenied) => Some(Decision {
                allowed: false,
                reason: status.map(Status::message).unwrap_or_default().to_owned(),
            }),
            Some(_) => None,
        };
        let nobody = Identity::default();
        let user = event.user.as_ref().unwrap_or(&nobody);
        let object = event.object.clone().unwrap_or_default();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (subresource, name) = (some(&object.subresource), some(&object.name));
        event.level = audit.level(&Asked {
            user: &user.username,
            groups: &user.groups,
            verb: &event.verb,
            subject: Subject::Resource {
                group: GROUP,
                resource: &object.resource,
                subresource: subresource.as_deref(),
                namespace: None,
                name: name.as_deref(),
            },
        });
        if matches!(event.code, 401 | 403) {
            event.level = event.level.max(Level::Metadata);
        }
        if event.level == Level::None {
            return;
        }
        event.staged = SystemTime::now();
        match event.user {
            Some(_) => audit.record(event).await,
            None => audit.record_stranger(event).await,
        }
    }
}

/// Members by Kubernetes' names for its own.
fn user(subject: &hive_identity::Subject) -> Identity {
    let (username, group) = match subject {
        hive_identity::Subject::Node { name } => (format!("system:node:{name}"), "system:nodes"),
        hive_identity::Subject::Controller { raft_id } => {
            (format!("system:controller:{raft_id}"), "system:controllers")
        }
    };
    Identity {
        username,
        groups: vec![group.into(), "system:authenticated".into()],
        ..Identity::default()
    }
}

/// As the log's readers know outcomes.
fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => 409,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            500
        }
    }
}
