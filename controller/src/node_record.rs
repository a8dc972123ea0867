//! What the gateway and some reconcilers ask of a Node time and again, read from its text: ten
//! thousand nodes kept parsed would take more memory than all else that a controller holds of them.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use crate::state::Object;

/// Of a Node; what is missing in it is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeRecord<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    creation_timestamp: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status<'a> {
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
    #[serde(borrow, rename = "nodeInfo")]
    node_info: NodeInfo<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo<'a> {
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow)]
    wasmtime_version: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, rename = "lastTransitionTime")]
    since: Cow<'a, str>,
}

/// What is known of one condition.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub status: &'a str,
    /// Since when it is so, where that can be read.
    pub since: Option<Timestamp>,
}

impl<'a> NodeRecord<'a> {
    /// One that cannot be read says nothing: its key is nobody's.
    pub fn of(object: &'a Object) -> Self {
        serde_json::from_slice(object.encoded()).unwrap_or_default()
    }

    /// The fingerprint of the device's key.
    pub fn key(&self) -> &str {
        &self.spec.key
    }

    /// The session that counts; empty before the first.
    pub fn session(&self) -> &str {
        &self.status.session
    }

    /// The status of its Ready condition.
    pub fn ready(&self) -> Option<&str> {
        Some(&self.find("Ready")?.status)
    }

    pub fn condition(&self, kind: &str) -> Option<Known<'_>> {
        let found = self.find(kind)?;
        Some(Known {
            status: &found.status,
            since: found.since.parse().ok(),
        })
    }

    fn find(&self, kind: &str) -> Option<&Condition<'a>> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|one| one.kind == kind)
    }

    /// The kind of machine that functions are compiled for; empty before its first session.
    pub fn target(&self) -> &str {
        &self.status.node_info.target
    }

    /// What compiled components must have been made with to be loaded there.
    pub fn wasmtime_version(&self) -> &str {
        &self.status.node_info.wasmtime_version
    }

    pub fn created(&self) -> &str {
        &self.metadata.creation_timestamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects;
    use serde_json::json;

    #[test]
    fn it_reads_what_is_there_and_is_empty_where_nothing_is() {
        let key = objects::node_key("pi");
        let body = objects::fresh(
            &key,
            json!({}),
            json!({
                "spec": { "key": "abc", "unschedulable": true },
                "status": { "session": "s", "nodeInfo": { "target": "arm", "wasmtimeVersion": "48", "os": "linux" }, "conditions": [
                    { "type": "Other", "status": "False" },
                    { "type": "Ready", "status": "True", "message": "a \"quoted\" one" },
                ] },
            }),
        );
        let object = Object::new(key.clone(), body, 1);
        let record = NodeRecord::of(&object);
        assert_eq!(
            (record.key(), record.session(), record.ready()),
            ("abc", "s", Some("True"))
        );
        assert_eq!((record.target(), record.wasmtime_version()), ("arm", "48"));
        assert!(record.created().ends_with('Z'));
        let bare = Object::new(key, json!({ "metadata": {} }), 1);
        let record = NodeRecord::of(&bare);
        assert_eq!(
            (record.key(), record.session(), record.ready()),
            ("", "", None)
        );
    }
}
