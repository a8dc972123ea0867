//! How the controller itself writes objects: fresh metadata, and edits by compare-and-swap.

use std::time::SystemTime;

use hive_manifests::Resource;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::state::{Command, Key, Rejection};
use crate::store::{ProposeError, Replica};

/// Attempts of an edit that others keep overtaking. Each means that somebody else succeeded, so
/// more than a few say that two writers fight.
const EDIT_ATTEMPTS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("{0} does not exist")]
    NotFound(Key),
    #[error("{0} kept changing while it was edited")]
    Contended(Key),
    #[error("cannot write {key}")]
    Propose {
        key: Key,
        #[source]
        source: ProposeError,
    },
}

/// A random (version 4) UUID.
pub fn fresh_uid() -> String {
    let mut b = [0u8; 16];
    SystemRandom::new()
        .fill(&mut b)
        .expect("the system's random source works");
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let text = hex::encode(b);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

/// RFC 3339 in UTC with whole seconds, as Kubernetes writes times.
pub fn timestamp(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// A new object of a kind with `extra` fields beside apiVersion, kind and metadata.
pub fn fresh(key: &Key, labels: Value, extra: Value) -> Value {
    let mut object = json!({
        "apiVersion": key.resource.api_version(),
        "kind": key.resource.kind(),
        "metadata": {
            "name": key.name,
            "uid": fresh_uid(),
            "creationTimestamp": timestamp(SystemTime::now()),
            "generation": 1,
        },
    });
    if !key.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(key.namespace);
    }
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        object["metadata"]["labels"] = labels;
    }
    if let (Value::Object(object), Value::Object(extra)) = (&mut object, extra) {
        object.extend(extra);
    }
    object
}

/// Creates an object; one that exists already is as good.
pub async fn ensure(replica: &Replica, key: Key, body: Value) -> Result<(), EditError> {
    let command = Command::Create {
        key: key.clone(),
        body: body.into(),
    };
    match replica.propose(command).await {
        Ok(_) | Err(ProposeError::Rejected(Rejection::AlreadyExists)) => Ok(()),
        Err(source) => Err(EditError::Propose { key, source }),
    }
}

/// Where a command goes: into an entry of its own, or into one with those of others.
pub trait Writer {
    fn replica(&self) -> &Replica;

    /// See [`Replica::propose`].
    fn write(&self, command: Command) -> impl Future<Output = Result<(), ProposeError>> + Send;
}

impl Writer for Replica {
    fn replica(&self) -> &Replica {
        self
    }

    async fn write(&self, command: Command) -> Result<(), ProposeError> {
        self.propose(command).await.map(drop)
    }
}

/// Rereads, changes and writes an object until nobody came in between. `change` says whether
/// there is anything to write.
pub async fn edit(
    writer: &impl Writer,
    key: &Key,
    mut change: impl FnMut(&mut Value) -> bool,
) -> Result<(), EditError> {
    for _ in 0..EDIT_ATTEMPTS {
        let state = writer.replica().state();
        let current = state
            .get(key)
            .ok_or_else(|| EditError::NotFound(key.clone()))?;
        let mut body = current.to_value().into_owned();
        if !change(&mut body) {
            return Ok(());
        }
        let command = Command::Replace {
            key: key.clone(),
            body: body.into(),
            expect: Some(current.revision()),
        };
        match writer.write(command).await {
            Ok(()) => return Ok(()),
            Err(ProposeError::Rejected(Rejection::Conflict { .. })) => {}
            Err(ProposeError::Rejected(Rejection::NotFound)) => {
                return Err(EditError::NotFound(key.clone()));
            }
            Err(source) => {
                return Err(EditError::Propose {
                    key: key.clone(),
                    source,
                });
            }
        }
    }
    Err(EditError::Contended(key.clone()))
}

/// Sets a condition as Kubernetes' convention has it: `lastTransitionTime` moves only when
/// `status` does. True when anything changed.
pub fn set_condition(
    status: &mut Value,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: SystemTime,
) -> bool {
    if !status.is_object() {
        *status = json!({});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let conditions = status["conditions"]
        .as_array_mut()
        .expect("made an array above");
    let fresh = json!({
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(now),
    });
    let Some(known) = conditions.iter_mut().find(|c| c["type"] == kind) else {
        conditions.push(fresh);
        return true;
    };
    if known["status"] != value {
        *known = fresh;
        return true;
    }
    let changed = known["reason"] != reason || known["message"] != message;
    known["reason"] = json!(reason);
    known["message"] = json!(message);
    changed
}

/// The status ("True", "False", "Unknown") of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)?["status"]
        .as_str()
}

/// The key of a node.
pub fn node_key(name: &str) -> Key {
    Key::new(Resource::Node, "", name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_condition_keeps_its_transition_time_while_its_status_stays() {
        let mut status = Value::Null;
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        assert!(set_condition(&mut status, "Ready", "True", "Up", "", at(1)));
        assert!(!set_condition(
            &mut status,
            "Ready",
            "True",
            "Up",
            "",
            at(2)
        ));
        assert!(set_condition(
            &mut status,
            "Ready",
            "True",
            "Up",
            "linked",
            at(3)
        ));
        assert_eq!(
            status["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:01Z"
        );
        assert!(set_condition(
            &mut status,
            "Ready",
            "Unknown",
            "Lost",
            "",
            at(4)
        ));
        assert_eq!(
            status["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:04Z"
        );
        assert_eq!(status["conditions"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn uids_are_version_4_and_differ() {
        let uid = fresh_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert_ne!(uid, fresh_uid());
    }
}
