//! What people and machines do to the world of a scenario.

use std::fmt::Write;
use std::time::SystemTime;

use hive_manifests::quantity::Bytes;
use hive_manifests::{Resource, apply_defaults, validate_stored};
use hive_proto::holdings::prefix_of_hex;
use hive_proto::v1::Usage;
use serde_json::json;

use super::{World, function_key};
use crate::artifacts::Digest;
use crate::holdings;
use crate::node_conditions;
use crate::node_record::NodeRecord;
use crate::objects;
use crate::reconcile::rollout::proven_artifacts;

/// What nodes are, by the scripts' short names for it.
const TARGETS: [&str; 2] = ["x86", "arm"];

impl World {
    /// `memory=1Gi cpu=4 target=arm label.zone=x taint=gpu:NoSchedule taint=a=b:NoExecute cordoned`; said again, it is another.
    pub(super) fn node(&mut self, name: &str, facts: &[&str]) {
        let (mut labels, mut taints) = (json!({}), json!([]));
        let mut amounts = json!({ "memory": "1Gi", "cpu": "4" });
        let (mut target, mut cordoned) = ("x86", false);
        for fact in facts {
            match fact.split_once('=') {
                None if *fact == "cordoned" => cordoned = true,
                Some(("taint", taint)) => {
                    let (name, effect) = taint.split_once(':').unwrap();
                    let (key, value) = name.split_once('=').unzip();
                    let key = key.unwrap_or(name);
                    let taint = json!({ "key": key, "value": value, "effect": effect });
                    taints.as_array_mut().unwrap().push(taint);
                }
                Some(("target", name)) => target = name,
                Some((amount @ ("memory" | "cpu"), value)) => amounts[amount] = json!(value),
                Some((label, value)) => {
                    labels[label.strip_prefix("label.").unwrap()] = json!(value);
                }
                None => panic!("a node is not {fact:?}"),
            }
        }
        let content = json!({
            "spec": { "key": "", "taints": taints, "unschedulable": cordoned },
            "status": {
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "", "message": "",
                    "lastTransitionTime": "2020-01-01T00:00:00Z",
                }],
                "allocatable": amounts,
                "nodeInfo": { "target": target, "wasmtimeVersion": "48" },
            },
        });
        let key = objects::node_key(name);
        if self.state.get(&key).is_none() {
            self.put(key.clone(), content.clone());
        }
        self.edit(&key, |body| {
            for part in ["spec", "status"] {
                body[part] = content[part].clone();
            }
            body["metadata"]["labels"] = labels.clone();
        });
    }

    /// What a machine says of itself: `heat=80 battery=15 charging memory=40Mi metered`; which conditions of its
    /// node change by that.
    pub(super) fn machine(&mut self, name: &str, facts: &[&str]) -> String {
        let mut usage = Usage {
            memory_used_bytes: 1 << 30,
            memory_available_bytes: 1 << 30,
            ..Usage::default()
        };
        for fact in facts {
            match fact.split_once('=') {
                Some(("heat", degrees)) => usage.temperature_celsius = degrees.parse().ok(),
                Some(("battery", percent)) => {
                    usage.battery_percent = percent.parse().ok();
                    usage.battery_charging = Some(facts.contains(&"charging"));
                }
                Some(("memory", value)) => {
                    let available: Bytes = serde_json::from_value(json!(value)).unwrap();
                    usage.memory_available_bytes = available.0;
                }
                None if *fact == "charging" => {}
                None if *fact == "metered" => usage.metered = Some(true),
                _ => panic!("a machine does not say {fact:?}"),
            }
        }
        let key = objects::node_key(name);
        let changes = {
            let node = NodeRecord::of(self.state.get(&key).unwrap());
            node_conditions::changes(&node, &usage, self.now)
        };
        let now = SystemTime::from(self.now);
        let mut told = String::new();
        self.edit(&key, |body| {
            for change in &changes {
                change.write(&mut body["status"], now);
                let _ = writeln!(told, "{} {}: {}", change.kind, change.holds, change.message);
            }
        });
        told
    }

    /// The components whose compiled forms are on its disk, all of them.
    pub(super) fn holds(&mut self, node: &str, components: &[&str]) {
        let mut artifacts = Vec::new();
        for component in components {
            let source = self.component(component);
            let compiled = TARGETS.map(|target| compiled_digest(&source, target));
            artifacts.extend(compiled.iter().filter_map(|it| prefix_of_hex(it)));
        }
        self.held.hear(1, node, holdings::bounded(artifacts));
    }

    pub(super) fn node_condition(&mut self, name: &str, ready: &str) {
        self.edit(&objects::node_key(name), |body| {
            body["status"]["conditions"][0]["status"] = json!(ready);
        });
    }

    /// Fields of the spec by their paths, as in `replicas=3 resources.memory=64Mi`; `component=v2` is compiled
    /// at once unless it says `compiled=no`. Said again, only what it says changes.
    pub(super) fn function(&mut self, name: &str, fields: &[&str]) {
        let key = function_key(name);
        if self.state.get(&key).is_none() {
            let component = self.component("v1");
            let spec = json!({ "spec": { "artifact": { "sha256": component } } });
            self.put(key.clone(), spec);
        }
        let before = self.body(&key)["spec"].clone();
        let mut compiles = true;
        let mut spec = before.clone();
        for field in fields {
            let (path, value) = field.split_once('=').unwrap();
            match path {
                "compiled" => compiles = value != "no",
                "component" => spec["artifact"]["sha256"] = json!(self.component(value)),
                _ => {
                    let place = path.split('.').fold(&mut spec, |at, step| &mut at[step]);
                    *place = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                }
            }
        }
        self.edit(&key, |body| {
            body["spec"] = spec.clone();
            apply_defaults(Resource::Function, body);
            assert_eq!(validate_stored(Resource::Function, body), []);
            // The first time, its defaults are no change.
            if body["spec"] != before && before["timeout"].is_string() {
                let generation = body["metadata"]["generation"].as_u64().unwrap();
                body["metadata"]["generation"] = json!(generation + 1);
            }
        });
        if compiles {
            self.compile(name);
        }
    }

    pub(super) fn promote(&mut self, name: &str, upto: &str) {
        self.edit(&function_key(name), |body| {
            let rollout = body["status"]["rollout"].clone();
            let started = rollout["startTime"].as_str().unwrap();
            let upto = match upto {
                "full" => "full".to_owned(),
                _ => rollout["canary"]["step"].to_string(),
            };
            body["metadata"]["annotations"]["hive.dev/promote"] =
                json!(format!("{started}/{upto}"));
        });
    }

    pub(super) fn retry(&mut self, name: &str) {
        self.edit(&function_key(name), |body| {
            let at = body["status"]["rollout"]["phaseTime"].clone();
            body["metadata"]["annotations"]["hive.dev/retry"] = at;
        });
    }

    pub(super) fn component(&mut self, name: &str) -> String {
        let digest = Digest::of(name.as_bytes()).hex();
        self.components.insert(digest.clone(), name.to_owned());
        digest
    }

    pub(super) fn compile(&mut self, function: &str) {
        let (state, key) = (self.state.clone(), function_key(function));
        self.edit(&key.clone(), |body| {
            let source = body["spec"]["artifact"]["sha256"]
                .as_str()
                .unwrap()
                .to_owned();
            let mut compiled = proven_artifacts(&state, &key, &body["status"]);
            compiled.retain(|artifact| source != artifact.source_sha256);
            let mut compiled = json!(compiled).as_array().unwrap().clone();
            compiled.extend(TARGETS.map(|target| {
                json!({
                    "target": target, "sourceSha256": source, "sha256": compiled_digest(&source, target),
                    "size": 1, "wasmtimeVersion": "48", "description": "", "signature": "",
                })
            }));
            body["status"]["artifacts"] = json!(compiled);
        });
    }
}

/// The digest of a component's compiled form.
fn compiled_digest(source: &str, target: &str) -> String {
    Digest::of(format!("{source} for {target}").as_bytes()).hex()
}
