//! Which component is to be compiled for which target. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hive_manifests::function::CompiledArtifact;
use hive_manifests::{Function, Resource};

use crate::node_record::NodeRecord;
use crate::reconcile::schedule::source_sha256;
use crate::state::{Key, Object, State};

/// Names one compilation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    /// Of the component, lower hex.
    pub source: String,
    pub target: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Records to write into functions' statuses, whole.
    pub records: BTreeMap<Key, Vec<CompiledArtifact>>,
    /// What has to be compiled, and for which functions.
    pub jobs: BTreeMap<Job, Vec<Key>>,
}

/// The kinds of machines that there are, as of a revision: followed change by change, since each node
/// changes when it joins.
#[derive(Debug, Default)]
pub struct Targets {
    seen: Option<u64>,
    known: BTreeSet<String>,
}

impl Targets {
    /// Of the nodes in a state, which is no older than the one before.
    pub fn of(&mut self, state: &State) -> &BTreeSet<String> {
        if !self.follow(state).unwrap_or(false) {
            let nodes = state.list(Resource::Node, None);
            self.known = nodes.filter_map(|object| target(object)).collect();
        }
        self.seen = Some(state.revision());
        &self.known
    }

    /// False where a kind may have gone; `None` where the changes are not known.
    fn follow(&mut self, state: &State) -> Option<bool> {
        let changes = state.changes_since(self.seen?).ok()?;
        for change in changes.filter(|change| change.key.resource == Resource::Node) {
            let [was, is] =
                [&change.before, &change.after].map(|object| target(object.as_deref()?));
            if was.is_some() && was != is {
                return Some(false);
            }
            self.known.extend(is);
        }
        Some(true)
    }
}

fn target(node: &Object) -> Option<String> {
    let record = NodeRecord::of(node);
    (!record.target().is_empty()).then(|| record.target().to_owned())
}

/// `own_target` is compiled for although no such node is there yet: a component that does not
/// compile is found at once.
pub fn plan(
    state: &State,
    targets: &BTreeSet<String>,
    own_target: &str,
    wasmtime_version: &str,
) -> Plan {
    let mut targets: BTreeSet<&str> = targets.iter().map(String::as_str).collect();
    targets.insert(own_target);
    let functions: Vec<(Key, String, Vec<CompiledArtifact>)> = state
        .list(Resource::Function, None)
        .filter_map(|object| {
            let function: Function = object.parse().ok()?;
            let source = source_sha256(&function.spec)?;
            let artifacts = function.status.unwrap_or_default().artifacts;
            Some((object.key().clone(), source, artifacts))
        })
        .collect();
    let usable = |artifact: &&CompiledArtifact| artifact.wasmtime_version == wasmtime_version;
    let compiled: BTreeMap<Job, &CompiledArtifact> = functions
        .iter()
        .flat_map(|(_, _, artifacts)| artifacts.iter().filter(usable))
        .map(|artifact| {
            let job = Job {
                source: artifact.source_sha256.clone(),
                target: artifact.target.clone(),
            };
            (job, artifact)
        })
        .collect();
    let mut plan = Plan::default();
    for (key, source, known) in &functions {
        let mut records = Vec::new();
        for target in &targets {
            let job = Job {
                source: source.clone(),
                target: (*target).to_owned(),
            };
            match compiled.get(&job) {
                Some(artifact) => records.push((*artifact).clone()),
                None => plan.jobs.entry(job).or_default().push(key.clone()),
            }
        }
        if records != *known && !records.is_empty() {
            plan.records.insert(key.clone(), records);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use crate::state::Command;
    use serde_json::{Value, json};

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
        let namespace = if resource.namespaced() { "default" } else { "" };
        let key = Key::new(resource, namespace, name);
        let body = objects::fresh(&key, json!({}), extra);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    fn compiled(source: &str, target: &str, version: &str) -> Value {
        json!({ "target": target, "sourceSha256": source, "sha256": format!("{target}-{version}"),
            "size": 1, "wasmtimeVersion": version, "description": "", "signature": "" })
    }

    fn function(state: &mut State, name: &str, source: &str, artifacts: Vec<Value>) {
        put(
            state,
            Resource::Function,
            name,
            json!({
                "spec": { "artifact": { "sha256": source } },
                "status": { "artifacts": artifacts },
            }),
        );
    }

    fn jobs(plan: &Plan) -> Vec<String> {
        plan.jobs
            .iter()
            .map(|(job, functions)| {
                format!(
                    "{} for {} x{}",
                    &job.source[..1],
                    job.target,
                    functions.len()
                )
            })
            .collect()
    }

    #[test]
    fn each_component_is_compiled_once_for_each_kind_of_node() {
        let mut state = State::default();
        put(
            &mut state,
            Resource::Node,
            "pi",
            json!({
                "spec": { "key": "" }, "status": { "nodeInfo": { "target": "arm" } },
            }),
        );
        function(&mut state, "one", A, vec![]);
        function(&mut state, "two", A, vec![]);
        function(&mut state, "three", B, vec![compiled(B, "x86", "48")]);
        let plan = plan(&state, Targets::default().of(&state), "x86", "48");
        assert_eq!(
            jobs(&plan),
            ["a for arm x2", "a for x86 x2", "b for arm x1"]
        );
        assert!(plan.records.is_empty());
    }

    #[test]
    fn what_another_function_has_is_not_compiled_again() {
        let mut state = State::default();
        function(&mut state, "old", A, vec![compiled(A, "x86", "48")]);
        function(&mut state, "new", A, vec![]);
        let plan = plan(&state, Targets::default().of(&state), "x86", "48");
        assert!(plan.jobs.is_empty());
        let key = Key::new(Resource::Function, "default", "new");
        assert_eq!(plan.records[&key][0].sha256, "x86-48");
    }

    #[test]
    fn kinds_of_machines_are_followed() {
        let (mut state, mut targets) = (State::default(), Targets::default());
        let node = |target: &str| json!({ "spec": { "key": "" }, "status": { "nodeInfo": { "target": target } } });
        let mut after = |state: &State| {
            let known = targets.of(state).clone();
            assert_eq!(known, *Targets::default().of(state));
            Vec::from_iter(known)
        };
        assert_eq!(after(&state), [""; 0]);
        put(&mut state, Resource::Node, "a", node(""));
        assert_eq!(after(&state), [""; 0]);
        put(&mut state, Resource::Node, "b", node("arm"));
        put(&mut state, Resource::Node, "c", node("x86"));
        assert_eq!(after(&state), ["arm", "x86"]);
        let key = objects::node_key("c");
        let body = objects::fresh(&key, json!({}), node("riscv")).into();
        let (expect, uid) = (None, None);
        state.apply(Command::Replace { key, body, expect }).unwrap();
        assert_eq!(after(&state), ["arm", "riscv"]);
        let key = objects::node_key("b");
        state.apply(Command::Delete { key, expect, uid }).unwrap();
        assert_eq!(after(&state), ["riscv"]);
    }

    #[test]
    fn a_new_component_or_compiler_makes_old_results_useless() {
        let mut state = State::default();
        function(&mut state, "changed", B, vec![compiled(C, "x86", "48")]);
        function(&mut state, "upgraded", A, vec![compiled(A, "x86", "47")]);
        let plan = plan(&state, Targets::default().of(&state), "x86", "48");
        assert_eq!(jobs(&plan), ["a for x86 x1", "b for x86 x1"]);
    }
}
