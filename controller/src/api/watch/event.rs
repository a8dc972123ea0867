//! One change as a watcher sees it, and its bytes.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use hive_manifests::Resource;
use jiff::Timestamp;
use serde_json::json;

use super::super::errors::ApiError;
use super::super::media::Form;
use super::super::respond::Shape;
use super::super::table;
use crate::state::{Change, Object};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Added,
    Modified,
    Deleted,
}

#[derive(Debug)]
pub(super) struct Event {
    pub kind: Kind,
    pub object: Arc<Object>,
}

/// What a change is to a watcher that sees only what it `selects`: an object that begins to match
/// is added, one that ceases to is deleted.
pub(super) fn transition(change: &Change, selects: impl Fn(&Object) -> bool) -> Option<Event> {
    let before = change.before.as_ref().filter(|object| selects(object));
    let after = change.after.as_ref().filter(|object| selects(object));
    let (kind, object) = match (before, after) {
        (None, None) => return None,
        (None, Some(after)) => (Kind::Added, after.clone()),
        (Some(_), Some(after)) => (Kind::Modified, after.clone()),
        // As it was when it still matched, with the revision at which it ceased to.
        (Some(before), None) => {
            let last = change.tombstone.clone();
            let last = last.unwrap_or_else(|| Arc::new(before.at(change.revision)));
            (Kind::Deleted, last)
        }
    };
    Some(Event { kind, object })
}

/// Writes events in the form that the client asked for.
pub(super) struct Encoder {
    pub resource: Resource,
    pub shape: Shape,
}

impl Encoder {
    pub fn added(&self, chunk: &mut BytesMut, object: &Object) {
        self.write(chunk, "ADDED", object);
    }

    pub fn event(&self, chunk: &mut BytesMut, event: &Event) {
        let kind = match event.kind {
            Kind::Added => "ADDED",
            Kind::Modified => "MODIFIED",
            Kind::Deleted => "DELETED",
        };
        self.write(chunk, kind, &event.object);
    }

    fn write(&self, chunk: &mut BytesMut, kind: &str, object: &Object) {
        match self.shape.form {
            Form::Object => put(chunk, kind, object.encoded()),
            Form::Metadata => put(
                chunk,
                kind,
                table::partial(&object.to_value()).to_string().as_bytes(),
            ),
            Form::Table => {
                let table = table::table(
                    self.resource,
                    [object.to_value()].into_iter(),
                    json!({ "resourceVersion": object.revision().to_string() }),
                    self.shape.include,
                    Timestamp::now(),
                );
                put(chunk, kind, table.to_string().as_bytes());
            }
        }
    }

    /// The revision that the client may go on from. `initial` says that what there was has been sent.
    pub fn bookmark(&self, chunk: &mut BytesMut, revision: u64, initial: bool) {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.shape.form {
            Form::Object => {
                metadata["creationTimestamp"] = serde_json::Value::Null;
                json!({
                    "kind": self.resource.kind(),
                    "apiVersion": self.resource.api_version(),
                    "metadata": metadata,
                })
            }
            Form::Metadata => table::partial(&json!({ "metadata": metadata })),
            Form::Table => table::table(
                self.resource,
                std::iter::empty::<serde_json::Value>(),
                metadata,
                self.shape.include,
                Timestamp::now(),
            ),
        };
        put(chunk, "BOOKMARK", object.to_string().as_bytes());
    }
}

/// The event that says why a watch ends.
pub(super) fn error(error: &ApiError) -> Bytes {
    let status = serde_json::to_vec(&error.status()).expect("a Status is plain data");
    let mut chunk = BytesMut::new();
    put(&mut chunk, "ERROR", &status);
    chunk.freeze()
}

fn put(chunk: &mut BytesMut, kind: &str, object: &[u8]) {
    chunk.reserve(object.len() + 40);
    chunk.put_slice(b"{\"type\":\"");
    chunk.put_slice(kind.as_bytes());
    chunk.put_slice(b"\",\"object\":");
    chunk.put_slice(object);
    chunk.put_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Key;

    fn object(label: &str, revision: u64) -> Arc<Object> {
        Arc::new(Object::new(
            Key::new(Resource::ConfigMap, "a", "c"),
            json!({ "metadata": { "labels": { "app": label } } }),
            revision,
        ))
    }

    fn seen(before: Option<&str>, after: Option<&str>) -> Option<(Kind, u64, String)> {
        let change = Change {
            revision: 9,
            key: Key::new(Resource::ConfigMap, "a", "c"),
            before: before.map(|label| object(label, 5)),
            after: after.map(|label| object(label, 9)),
            tombstone: before
                .filter(|_| after.is_none())
                .map(|label| object(label, 9)),
        };
        let event = transition(&change, |object| {
            object.labels().get("app").is_some_and(|l| l == "x")
        })?;
        let label = event.object.labels()["app"].clone().into_owned();
        Some((event.kind, event.object.revision(), label))
    }

    #[test]
    fn a_watcher_sees_objects_come_into_and_leave_its_selection() {
        let x = || "x".to_owned();
        for (before, after, expected) in [
            (None, Some("x"), Some((Kind::Added, 9, x()))),
            (None, Some("y"), None),
            (Some("x"), Some("x"), Some((Kind::Modified, 9, x()))),
            (Some("y"), Some("x"), Some((Kind::Added, 9, x()))),
            (Some("x"), Some("y"), Some((Kind::Deleted, 9, x()))),
            (Some("x"), None, Some((Kind::Deleted, 9, x()))),
            (Some("y"), None, None),
        ] {
            assert_eq!(seen(before, after), expected, "{before:?} -> {after:?}");
        }
    }
}
