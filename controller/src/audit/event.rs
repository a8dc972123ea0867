//! One recorded request, in the shape of Kubernetes' `audit.k8s.io/v1` Event.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Level;
use crate::objects;

/// How far a request was when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// It is answered, and the answer goes on: a watch, a followed log.
    ResponseStarted,
    ResponseComplete,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub groups: Vec<String>,
    /// Which of a user's credentials it was, among others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// Whether the sender may do it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub level: Level,
    pub stage: Stage,
    pub audit_id: String,
    pub request_uri: String,
    pub verb: String,
    /// `None` when nobody was authenticated.
    pub user: Option<Identity>,
    pub impersonated_user: Option<Identity>,
    pub source: Option<IpAddr>,
    pub user_agent: Option<String>,
    pub object: Option<ObjectReference>,
    /// HTTP status of the answer.
    pub code: u16,
    /// `None` where nobody was asked, as for what is public.
    pub decision: Option<Decision>,
    /// The object that was sent, at [`Level::Request`].
    pub request: Option<Value>,
    pub received: SystemTime,
    pub staged: SystemTime,
    /// Annotations: what the rest does not tell.
    pub notes: Vec<(&'static str, String)>,
    /// Requests of nobody known before this one that were not recorded.
    pub skipped: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a Identity>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Option::is_none")]
    source_ips: Option<[IpAddr; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectReference>,
    response_status: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    annotations: Value,
}

impl Event {
    /// A request that has just come, of which nothing else is known yet.
    pub fn begin(request_uri: String, verb: String) -> Self {
        let received = SystemTime::now();
        Self {
            level: Level::None,
            stage: Stage::ResponseComplete,
            audit_id: objects::fresh_uid(),
            request_uri,
            verb,
            user: None,
            impersonated_user: None,
            source: None,
            user_agent: None,
            object: None,
            code: 0,
            decision: None,
            request: None,
            received,
            staged: received,
            notes: Vec::new(),
            skipped: 0,
        }
    }

    /// One line of JSON with its newline.
    pub fn line(&self) -> Vec<u8> {
        let line = Line {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.level,
            audit_id: &self.audit_id,
            stage: self.stage,
            request_uri: &self.request_uri,
            verb: &self.verb,
            user: self.user.as_ref().map_or_else(
                || json!({ "username": "system:anonymous", "groups": ["system:unauthenticated"] }),
                |user| json!(user),
            ),
            impersonated_user: self.impersonated_user.as_ref(),
            source_ips: self.source.map(|address| [address]),
            user_agent: self.user_agent.as_deref(),
            object_ref: self.object.as_ref(),
            response_status: json!({ "metadata": {}, "code": self.code }),
            request_object: self.request.as_ref(),
            request_received_timestamp: micros(self.received),
            stage_timestamp: micros(self.staged),
            annotations: self.annotations(),
        };
        let mut text = serde_json::to_vec(&line).expect("plain data with text keys is JSON");
        text.push(b'\n');
        text
    }
}

impl Event {
    fn annotations(&self) -> Value {
        let mut annotations = Map::new();
        if let Some(decision) = &self.decision {
            let word = if decision.allowed { "allow" } else { "forbid" };
            annotations.insert("authorization.k8s.io/decision".into(), word.into());
            let reason = decision.reason.as_str();
            annotations.insert("authorization.k8s.io/reason".into(), reason.into());
        }
        for (name, text) in &self.notes {
            annotations.insert((*name).to_owned(), text.as_str().into());
        }
        if self.skipped > 0 {
            let skipped = self.skipped.to_string();
            annotations.insert("hive.dev/skipped-before".into(), skipped.into());
        }
        match annotations.is_empty() {
            true => Value::Null,
            false => annotations.into(),
        }
    }
}

/// RFC 3339 in UTC with microseconds, as Kubernetes' MicroTime.
fn micros(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_reads_as_kubernetes_writes_it() {
        let received = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        let event = Event {
            level: Level::Request,
            stage: Stage::ResponseComplete,
            audit_id: "6a1e".into(),
            request_uri: "/api/v1/namespaces/x/configmaps?fieldManager=kubectl".into(),
            verb: "create".into(),
            user: Some(Identity {
                username: "ada".into(),
                uid: String::new(),
                groups: vec!["system:authenticated".into()],
                extra: BTreeMap::new(),
            }),
            impersonated_user: None,
            source: Some([127, 0, 0, 1].into()),
            user_agent: Some("kubectl/v1.32".into()),
            object: Some(ObjectReference {
                resource: "configmaps".into(),
                namespace: "x".into(),
                ..ObjectReference::default()
            }),
            code: 403,
            decision: Some(Decision {
                allowed: false,
                reason: "no role".into(),
            }),
            request: Some(json!({ "kind": "ConfigMap" })),
            received,
            staged: received + Duration::from_millis(2),
            notes: vec![("hive.dev/certified-user", "eve".into())],
            skipped: 0,
        };
        let line = event.line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            read,
            json!({
                "kind": "Event",
                "apiVersion": "audit.k8s.io/v1",
                "level": "Request",
                "auditID": "6a1e",
                "stage": "ResponseComplete",
                "requestURI": "/api/v1/namespaces/x/configmaps?fieldManager=kubectl",
                "verb": "create",
                "user": { "username": "ada", "groups": ["system:authenticated"] },
                "sourceIPs": ["127.0.0.1"],
                "userAgent": "kubectl/v1.32",
                "objectRef": { "resource": "configmaps", "namespace": "x" },
                "responseStatus": { "metadata": {}, "code": 403 },
                "requestObject": { "kind": "ConfigMap" },
                "requestReceivedTimestamp": "2023-11-14T22:13:20.000001Z",
                "stageTimestamp": "2023-11-14T22:13:20.002001Z",
                "annotations": {
                    "authorization.k8s.io/decision": "forbid",
                    "authorization.k8s.io/reason": "no role",
                    "hive.dev/certified-user": "eve",
                },
            })
        );
    }
}
