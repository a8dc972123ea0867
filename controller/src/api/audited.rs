//! What the audit log is told of one request, gathered as the request goes through the API.

use std::net::IpAddr;
use std::time::SystemTime;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::auth::User;
use super::errors::ApiError;
use super::media::parse_body;
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::access::user::UserInfo;
use crate::audit::{
    Asked, Audit, Decision, Event, Identity, Level, ObjectReference, Stage, Subject,
};
use crate::https::RemoteAddress;

/// Names the event of a request to its sender, who may ask the operators about it.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A request on its way, as far as it got.
pub(super) struct Audited {
    event: Event,
}

impl Audited {
    pub fn begin(request: &Request) -> Self {
        let source = request
            .extensions()
            .get::<RemoteAddress>()
            .map(|RemoteAddress(address): &RemoteAddress| -> IpAddr { address.ip() });
        let user_agent = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut event = Event::begin(
            request.uri().to_string(),
            request.method().as_str().to_ascii_lowercase(),
        );
        event.source = source;
        event.user_agent = user_agent;
        Self { event }
    }

    /// Who asks what is known now.
    pub fn asks(&mut self, audit: &Audit, user: &User, attributes: &Attributes<'_>) {
        let event = &mut self.event;
        match &user.impersonator {
            None => event.user = Some(identity(&user.info)),
            Some(impersonator) => {
                event.user = Some(identity(impersonator));
                event.impersonated_user = Some(identity(&user.info));
            }
        }
        let subject = match attributes {
            Attributes::Path { path, .. } => Subject::Path(path),
            Attributes::Resource(asked) => {
                event.verb = asked.verb.to_owned();
                event.object = Some(reference(asked));
                Subject::Resource {
                    group: asked.group,
                    resource: asked.resource,
                    subresource: asked.subresource,
                    namespace: asked.namespace,
                    name: asked.name,
                }
            }
        };
        event.level = audit.level(&Asked {
            user: &user.info.name,
            groups: &user.info.groups,
            verb: &event.verb,
            subject,
        });
        if let Attributes::Resource(asked) = attributes {
            if holds_secrets(asked) {
                event.level = event.level.min(Level::Metadata);
            }
            if is_long(asked) {
                event.stage = Stage::ResponseStarted;
            }
        }
    }

    /// Whether that is allowed. `reason` is asked only where it is recorded.
    pub fn decided(&mut self, decision: &Result<(), ApiError>, reason: impl FnOnce() -> String) {
        self.event.decision = match decision {
            Ok(()) if self.event.level == Level::None => None,
            Ok(()) => Some(Decision {
                allowed: true,
                reason: reason(),
            }),
            Err(error @ ApiError::Forbidden(_)) => Some(Decision {
                allowed: false,
                reason: error.to_string(),
            }),
            Err(_) => None,
        };
    }

    pub fn wants_body(&self) -> bool {
        self.event.level == Level::Request
    }

    pub fn sent(&mut self, headers: &HeaderMap, body: &Bytes) {
        // What cannot be read is refused by whoever it was meant for.
        self.event.request = parse_body(headers, body).ok();
    }

    /// Records the request with its answer, where it is to be recorded.
    pub async fn answered(mut self, audit: &Audit, response: &mut Response) {
        let event = &mut self.event;
        let status = response.status();
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if let Ok(id) = HeaderValue::from_str(&event.audit_id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if is_refused {
            event.level = event.level.max(Level::Metadata);
        }
        if event.level == Level::None {
            return;
        }
        event.code = status.as_u16();
        event.staged = SystemTime::now();
        match event.user {
            Some(_) => audit.record(event).await,
            None => audit.record_stranger(event).await,
        }
    }
}

pub(super) fn identity(user: &UserInfo) -> Identity {
    Identity {
        username: user.name.clone(),
        uid: user.uid.clone().unwrap_or_default(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
    }
}

fn reference(asked: &ResourceAttributes<'_>) -> ObjectReference {
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    ObjectReference {
        resource: asked.resource.to_owned(),
        namespace: text(asked.namespace),
        name: text(asked.name),
        api_group: asked.group.to_owned(),
        subresource: text(asked.subresource),
    }
}

/// What is sent or answered there must be written down nowhere.
fn holds_secrets(asked: &ResourceAttributes<'_>) -> bool {
    asked.is_about("", "secrets")
        || asked.is_about("", "serviceaccounts") && asked.subresource == Some("token")
        || asked.is_about("authentication.k8s.io", "tokenreviews")
        || asked.subresource == Some("proxy")
}

/// Answered bit by bit: recorded when the answer begins.
fn is_long(asked: &ResourceAttributes<'_>) -> bool {
    asked.verb == "watch" || matches!(asked.subresource, Some("log" | "proxy"))
}
