//! The part of the state that scheduling looks at, typed.

use std::collections::{BTreeMap, BTreeSet};

use hive_manifests::function::{CompiledArtifact, FunctionSpec};
use hive_manifests::{Assignment, AssignmentSpec, Function, Node, Phase, Resource};
use k8s_openapi::api::core::v1::Taint;

use crate::deletion::{FOREGROUND, finalizers};
use crate::node_record::NodeRecord;
use crate::state::{Key, Object, State};

#[derive(Clone, Debug, Default)]
pub struct View {
    pub nodes: Vec<NodeView>,
    pub functions: Vec<FunctionView>,
    pub assignments: Vec<AssignmentView>,
    /// Namespaces and uids of functions that are there and can't be read: nothing is decided about
    /// their copies.
    pub unreadable: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    /// Its Ready condition is True.
    pub ready: bool,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    /// What compiled components must have been made with to be loaded there.
    pub wasmtime_version: String,
    /// Bytes and thousandths of a core that functions may reserve.
    pub memory: u64,
    pub cpu: u64,
}

#[derive(Clone, Debug)]
pub struct FunctionView {
    pub key: Key,
    pub uid: String,
    pub generation: i64,
    /// Says how, once it is being deleted.
    pub ending: Option<Ending>,
    pub spec: FunctionSpec,
    /// Compiled forms of the component that `spec` names, by target.
    pub artifacts: BTreeMap<String, CompiledArtifact>,
}

/// How a function that is being deleted ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its copies stay until it is gone, and no more come.
    CopiesStay,
    /// It is deleted in the foreground: its copies go first.
    CopiesFirst,
}

impl Ending {
    fn of(function: &Object) -> Option<Self> {
        if !function.is_being_deleted() {
            return None;
        }
        let copies_first = finalizers(function.body()).contains(&FOREGROUND);
        Some(match copies_first {
            true => Self::CopiesFirst,
            false => Self::CopiesStay,
        })
    }
}

#[derive(Clone, Debug)]
pub struct AssignmentView {
    pub key: Key,
    pub revision: u64,
    pub spec: AssignmentSpec,
    pub phase: Phase,
    /// The node answers requests for it, at the generation of its spec.
    pub current: bool,
    /// What its status says to people; empty where all is well.
    pub message: String,
}

impl View {
    /// Objects that don't parse are left out: an older version of this program can't plan for
    /// what a newer one wrote, and must not undo it.
    pub fn of(state: &State) -> Self {
        let nodes = state.list(Resource::Node, None).filter_map(|object| {
            let node: Node = object.parse().ok()?;
            let status = node.status.unwrap_or_default();
            let allocatable = status.allocatable.unwrap_or_default();
            let info = status.node_info.unwrap_or_default();
            Some(NodeView {
                name: object.key().name.clone(),
                ready: NodeRecord::of(object).ready() == Some("True"),
                unschedulable: node.spec.unschedulable,
                taints: node.spec.taints,
                labels: node.metadata.labels.unwrap_or_default(),
                target: info.target,
                wasmtime_version: info.wasmtime_version,
                memory: allocatable.memory.0,
                cpu: allocatable.cpu.0,
            })
        });
        let mut functions = Vec::new();
        let mut unreadable = BTreeSet::new();
        for object in state.list(Resource::Function, None) {
            match FunctionView::of(object) {
                Some(function) => functions.push(function),
                None => {
                    let namespace = object.key().namespace.clone();
                    unreadable.insert((namespace, object.uid().to_owned()));
                }
            }
        }
        let assignments = state.list(Resource::Assignment, None).filter_map(|object| {
            let assignment: Assignment = object.parse().ok()?;
            let status = assignment.status.unwrap_or_default();
            Some(AssignmentView {
                key: object.key().clone(),
                revision: object.revision(),
                phase: status.phase,
                current: status.phase == Phase::Ready
                    && status.observed_generation == Some(assignment.spec.function_generation),
                spec: assignment.spec,
                message: status.message,
            })
        });
        Self {
            nodes: nodes.collect(),
            functions,
            assignments: assignments.collect(),
            unreadable,
        }
    }
}

impl FunctionView {
    fn of(object: &Object) -> Option<Self> {
        let function: Function = object.parse().ok()?;
        let source = source_sha256(&function.spec)?;
        let artifacts = function.status.unwrap_or_default().artifacts;
        Some(Self {
            key: object.key().clone(),
            uid: object.uid().to_owned(),
            ending: Ending::of(object),
            generation: function.metadata.generation.unwrap_or_default(),
            artifacts: artifacts
                .into_iter()
                .filter(|artifact| artifact.source_sha256 == source)
                .map(|artifact| (artifact.target.clone(), artifact))
                .collect(),
            spec: function.spec,
        })
    }
}

/// The digest of a function's component in lower hex, as the state's artifacts are named.
pub fn source_sha256(spec: &FunctionSpec) -> Option<String> {
    let digest: crate::artifacts::Digest = spec.artifact.sha256.as_ref()?.parse().ok()?;
    Some(digest.hex())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan;
    use super::*;
    use crate::objects;
    use crate::state::Command;
    use serde_json::{Value, json};

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
        let steps = plan(&view).steps;
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!(
            matches!(&steps[0], super::super::Step::Delete { key, .. } if key.name == "gone.0")
        );
    }
}
