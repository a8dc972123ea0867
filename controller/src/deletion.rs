//! What deleting an object means: it goes at once, or is marked and waits for its finalizers.
//!
//! Pure: an object and a propagation policy go in, the command that brings the deletion forward
//! comes out. The API, the garbage collection and the emptying of namespaces all ask here, so that
//! nothing passes by a finalizer.

use std::time::SystemTime;

use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::objects;
use crate::state::{Command, Object};

/// Holds an object until nothing that it owns blocks its deletion any more.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until nothing refers to it as its owner any more.
pub const ORPHAN: &str = "orphan";

/// Namespaces that the swarm itself needs.
const PROTECTED_NAMESPACES: [&str; 2] = ["default", SYSTEM_NAMESPACE];

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go first.
    Foreground,
    /// They go after it.
    Background,
    /// They stay, and lose the reference to it.
    Orphan,
}

impl Propagation {
    pub const ALL: [Propagation; 3] = [Self::Orphan, Self::Background, Self::Foreground];

    pub fn name(self) -> &'static str {
        match self {
            Self::Foreground => "Foreground",
            Self::Background => "Background",
            Self::Orphan => "Orphan",
        }
    }

    fn finalizer(self) -> Option<&'static str> {
        match self {
            Self::Foreground => Some(FOREGROUND),
            Self::Background => None,
            Self::Orphan => Some(ORPHAN),
        }
    }
}

/// What a wish to delete an object comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is being deleted already, and waits for others.
    Nothing,
    Remove,
    /// It stays, with this body, until its finalizers are done.
    Mark(Value),
}

/// The next step of deleting an object. Without a policy, one that was chosen before stays; with
/// one, also a deletion under way changes to it.
pub fn step(current: &Object, propagation: Option<Propagation>, now: SystemTime) -> Step {
    let body = current.to_value();
    let before = finalizers(&body);
    let mut wanted = before.clone();
    if let Some(propagation) = propagation {
        wanted.retain(|finalizer| ![FOREGROUND, ORPHAN].contains(finalizer));
        wanted.extend(propagation.finalizer());
    }
    let is_namespace = current.key().resource == Resource::Namespace;
    // A namespace goes when it is empty, which its reconciler sees to.
    if wanted.is_empty() && !is_namespace {
        return Step::Remove;
    }
    if current.is_being_deleted() && wanted == before {
        return Step::Nothing;
    }
    let finalizers = json!(wanted);
    let mut body = body.into_owned();
    let metadata = &mut body["metadata"];
    if finalizers != json!([]) {
        metadata["finalizers"] = finalizers;
    } else if let Some(fields) = metadata.as_object_mut() {
        fields.remove("finalizers");
    }
    if !current.is_being_deleted() {
        metadata["deletionTimestamp"] = json!(objects::timestamp(now));
        metadata["deletionGracePeriodSeconds"] = json!(0);
    }
    if is_namespace {
        body["status"]["phase"] = json!("Terminating");
    }
    Step::Mark(body)
}

/// The command that performs [`step`] unless the object has changed; `None` when it only waits.
pub fn command(
    current: &Object,
    propagation: Option<Propagation>,
    now: SystemTime,
) -> Option<Command> {
    let (key, expect) = (current.key().clone(), Some(current.revision()));
    match step(current, propagation, now) {
        Step::Nothing => None,
        Step::Remove => Some(Command::Delete {
            key,
            expect,
            uid: None,
        }),
        Step::Mark(body) => Some(Command::Replace {
            key,
            body: body.into(),
            expect,
        }),
    }
}

/// The command that writes `body` over an object, or deletes it if that was all it waited for.
pub fn replacement(current: &Object, body: Value) -> Command {
    let is_released = current.is_being_deleted()
        && current.key().resource != Resource::Namespace
        && finalizers(&body).is_empty();
    let (key, expect) = (current.key().clone(), Some(current.revision()));
    if is_released {
        Command::Delete {
            key,
            expect,
            uid: None,
        }
    } else {
        Command::Replace {
            key,
            body: body.into(),
            expect,
        }
    }
}

/// True for what nobody may delete.
pub fn is_protected(object: &crate::state::Key) -> bool {
    object.resource == Resource::Namespace && PROTECTED_NAMESPACES.contains(&object.name.as_str())
}

pub fn finalizers(body: &Value) -> Vec<&str> {
    body["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Key;

    fn object(resource: Resource, finalizers: &[&str], deleting: bool) -> Object {
        let key = Key::new(resource, "", "x");
        let mut body = objects::fresh(&key, json!({}), json!({}));
        if !finalizers.is_empty() {
            body["metadata"]["finalizers"] = json!(finalizers);
        }
        if deleting {
            body["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Object::new(key, body, 1)
    }

    /// The finalizers of what stays, or nothing.
    fn left(finalizers: &[&str], deleting: bool, policy: Option<Propagation>) -> Option<String> {
        let object = object(Resource::ConfigMap, finalizers, deleting);
        match step(&object, policy, SystemTime::UNIX_EPOCH) {
            Step::Nothing => Some("waits".into()),
            Step::Remove => None,
            Step::Mark(body) => {
                assert!(body["metadata"]["deletionTimestamp"].is_string());
                Some(super::finalizers(&body).join(" "))
            }
        }
    }

    #[test]
    fn a_policy_is_a_finalizer_and_the_last_one_said_counts() {
        use Propagation::{Background, Foreground, Orphan};
        let table: [(&[&str], bool, _, Option<&str>); 11] = [
            (&[], false, None, None),
            (&[], false, Some(Background), None),
            (&[], false, Some(Foreground), Some(FOREGROUND)),
            (&[], false, Some(Orphan), Some(ORPHAN)),
            (&["a/b"], false, Some(Orphan), Some("a/b orphan")),
            (&["a/b"], true, None, Some("waits")),
            // What was chosen at first stays, unless something else is said.
            (&[FOREGROUND], false, None, Some(FOREGROUND)),
            (&[FOREGROUND], true, Some(Foreground), Some("waits")),
            (&[FOREGROUND], true, Some(Orphan), Some(ORPHAN)),
            (&[FOREGROUND], true, Some(Background), None),
            (&[ORPHAN, "a/b"], true, Some(Background), Some("a/b")),
        ];
        for (finalizers, deleting, policy, expected) in table {
            assert_eq!(
                left(finalizers, deleting, policy).as_deref(),
                expected,
                "{finalizers:?} {deleting} {policy:?}"
            );
        }
    }

    #[test]
    fn a_namespace_is_only_marked() {
        let namespace = object(Resource::Namespace, &[], false);
        let Step::Mark(body) = step(&namespace, None, SystemTime::UNIX_EPOCH) else {
            panic!("marked");
        };
        assert_eq!(body["status"]["phase"], "Terminating");
        assert!(body["metadata"].get("finalizers").is_none());
        let marked = Object::new(namespace.key().clone(), body, 2);
        assert_eq!(step(&marked, None, SystemTime::UNIX_EPOCH), Step::Nothing);
    }
}
