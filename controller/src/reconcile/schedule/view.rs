//! The part of the state that scheduling looks at, typed.

mod assignment;
mod function;
mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use hive_manifests::Resource;

use crate::holdings::Holdings;
use crate::state::{Object, State, level};

pub use assignment::AssignmentView;
pub use function::{Ending, FunctionView, Told, digest_of, source_sha256};
pub use node::NodeView;

/// In the order of their keys, as all lists of objects.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub nodes: Vec<NodeView>,
    pub functions: Vec<FunctionView>,
    pub assignments: Vec<AssignmentView>,
    /// Namespaces and uids of functions that are there and can't be read: nothing is decided about
    /// their copies.
    pub unreadable: BTreeSet<(String, String)>,
    /// All controllers know of copies that serve where they were until they do where they go.
    pub overlaps: bool,
    /// What nodes have on their disks, as the leader heard it of controllers; not of the state.
    pub held: Holdings<u64>,
}

impl View {
    pub fn of(state: &State) -> Self {
        let mut view = Self::default();
        view.follow(state);
        view
    }

    /// Makes it the view of a state, and reads what is not as it was.
    ///
    /// Objects that don't parse are left out: an older version of this program can't plan for
    /// what a newer one wrote, and must not undo it.
    pub(super) fn follow(&mut self, state: &State) {
        self.unreadable.clear();
        self.overlaps = state.level() >= level::METERING;
        let functions = state.list(Resource::Function, None);
        let known = std::mem::take(&mut self.functions);
        let read = |object: &Object| {
            let function = FunctionView::of(object, state);
            if function.is_none() {
                let namespace = object.key().namespace.clone();
                self.unreadable.insert((namespace, object.uid().to_owned()));
            }
            function
        };
        self.functions = follow(known, functions, FunctionView::version, read);
        for function in &mut self.functions {
            function.look_up_references(state);
        }
        let nodes = state.list(Resource::Node, None);
        let known = std::mem::take(&mut self.nodes);
        self.nodes = follow(known, nodes, NodeView::version, NodeView::of);
        let assignments = state.list(Resource::Assignment, None);
        let known = std::mem::take(&mut self.assignments);
        self.assignments = follow(
            known,
            assignments,
            AssignmentView::version,
            AssignmentView::of,
        );
    }
}

/// What is `known` of objects, where they are as they were, and the rest read anew. All are in the order of
/// namespaces and names, which `version` says with the revision.
pub fn follow<'a, T>(
    known: Vec<T>,
    objects: impl Iterator<Item = &'a Arc<Object>>,
    version: impl Fn(&T) -> (&str, &str, u64),
    mut read: impl FnMut(&Object) -> Option<T>,
) -> Vec<T> {
    let mut known = known.into_iter().peekable();
    objects
        .filter_map(|object| {
            let (namespace, name) = (&*object.key().namespace, &*object.key().name);
            let is_before = |one: &T| {
                let (its_namespace, its_name, _) = version(one);
                (its_namespace, its_name) < (namespace, name)
            };
            while known.next_if(is_before).is_some() {}
            known
                .next_if(|one| version(one) == (namespace, name, object.revision()))
                .or_else(|| read(object))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::declare;
    use crate::objects;
    use crate::reconcile::schedule::{Step, plan};
    use crate::state::{Command, Key};

    #[test]
    fn copies_of_a_function_that_cannot_be_read_stay() {
        let mut state = State::default();
        let mut put = |resource, name: &str, extra: Value| {
            let key = Key::new(resource, "default", name);
            let mut body = objects::fresh(&key, json!({}), extra);
            body["metadata"]["uid"] = json!(name);
            state
                .apply(Command::Create {
                    key,
                    body: body.into(),
                })
                .unwrap();
        };
        put(
            Resource::Function,
            "later",
            json!({ "spec": { "artifact": { "sha256": "a".repeat(64) }, "replicas": "as many as needed" } }),
        );
        for function in ["later", "gone"] {
            put(
                Resource::Assignment,
                &format!("{function}.0"),
                json!({ "spec": {
                    "functionName": function, "functionUid": function, "functionGeneration": 1,
                    "nodeName": "pi", "slot": "0",
                    "function": { "artifact": { "sha256": "a".repeat(64) } },
                    "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                        "wasmtimeVersion": "48", "description": "", "signature": "" },
                }}),
            );
        }
        let view = View::of(&state);
        assert_eq!((view.functions.len(), view.assignments.len()), (0, 2));
        let steps = plan(&view, Timestamp::UNIX_EPOCH).steps;
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!(matches!(&steps[0], Step::Delete { key, .. } if key.name == "gone.0"));
    }

    #[test]
    fn a_view_that_follows_is_the_view_of_the_state() {
        let mut state = State::default();
        let mut seen = View::default();
        let spec = |resource, value: u64| match resource {
            Resource::Node => json!({ "spec": { "key": "k", "unschedulable": value == 1 } }),
            Resource::Function => json!({ "spec": {
                "artifact": { "sha256": "a".repeat(64) }, "replicas": value,
            } }),
            _ => json!({ "spec": {
                "functionName": "f", "functionUid": "f", "functionGeneration": value,
                "nodeName": "pi", "slot": "0",
                "function": { "artifact": { "sha256": "a".repeat(64) } },
                "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                    "wasmtimeVersion": "48", "description": "", "signature": "" },
            }}),
        };
        // A walk through all three kinds in which things come, change, go and come back.
        for step in 0..600_u64 {
            let draw = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let resource =
                [Resource::Node, Resource::Function, Resource::Assignment][(draw % 3) as usize];
            let namespace = match resource {
                Resource::Node => "",
                _ => ["a", "b"][(draw / 3 % 2) as usize],
            };
            let key = Key::new(resource, namespace, format!("n{}", draw / 6 % 5));
            let body = objects::fresh(&key, json!({}), spec(resource, draw / 30 % 2)).into();
            let _ = state.apply(match draw / 60 % 3 {
                0 => Command::Delete {
                    key,
                    expect: None,
                    uid: None,
                },
                _ if state.get(&key).is_some() => Command::Replace {
                    key,
                    body,
                    expect: None,
                },
                _ => Command::Create { key, body },
            });
            if draw / 180 % 3 == 0 {
                seen.follow(&state);
                assert_eq!(format!("{seen:?}"), format!("{:?}", View::of(&state)));
            }
        }
        seen.follow(&state);
        assert!(!seen.nodes.is_empty() && !seen.assignments.is_empty());
    }

    #[test]
    fn until_its_image_is_here_a_function_is_the_version_before() {
        let mut state = State::default();
        let old = "a".repeat(64);
        let pinned = json!({ "oci": "ghcr.io/a/b@sha256:0", "sha256": old });
        let mut put = |resource, name: &str, extra: Value| {
            let key = Key::new(resource, "default", name);
            declare(&mut state, key, extra);
        };
        put(
            Resource::ControllerRevision,
            "hello-1",
            json!({ "revision": 1, "data": { "spec": { "artifact": pinned, "timeout": "3s" } } }),
        );
        let compiled = json!({ "target": "t", "sourceSha256": old, "sha256": "11", "size": 1,
            "wasmtimeVersion": "48", "description": "", "signature": "" });
        let waits =
            json!({ "artifact": { "oci": "ghcr.io/a/b:2" }, "timeout": "9s", "replicas": 4 });
        let status = json!({ "artifacts": [compiled], "updateRevision": "hello-1" });
        put(
            Resource::Function,
            "hello",
            json!({ "spec": waits, "status": status }),
        );
        put(Resource::Function, "new", json!({ "spec": waits }));

        let view = View::of(&state);
        let [hello, new] = &view.functions[..] else {
            panic!("{:?}", view.functions);
        };
        assert_eq!(json!(hello.spec.artifact), pinned);
        assert_eq!(hello.spec.timeout.to_string(), "3s");
        // Where and how often is as it is said now.
        assert_eq!(hello.spec.replicas, Some(4));
        assert_eq!(hello.artifacts.len(), 1);
        assert_eq!(new.spec.artifact.sha256, None);
        assert!(new.artifacts.is_empty());
    }
}
