//! The world of a scenario in words: what is there, and what was done.

use std::fmt::Write;

use hive_manifests::Resource;
use serde_json::{Value, json};

use super::{World, function_key};
use crate::reconcile::rollout;
use crate::reconcile::schedule::Step;

impl World {
    pub(super) fn show(&self) -> String {
        let mut shown = String::new();
        for key in self.assignments() {
            let body = self.body(&key);
            let (spec, status) = (&body["spec"], &body["status"]);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let version = self.version(spec);
            let mut line = format!(
                "{} on {}: {version} {}",
                key.name,
                text(&spec["nodeName"]),
                text(&status["phase"]),
            );
            let observed = &status["observedGeneration"];
            if observed.is_u64() && *observed != spec["functionGeneration"] {
                let _ = write!(line, " at {observed}");
            } else if observed.is_u64() && status["observedRevision"] != spec["revision"] {
                line.push_str(" at another version");
            }
            if spec["previous"].is_object() {
                let _ = write!(line, ", serves on {}", text(&spec["previous"]["nodeName"]));
            }
            if status["message"].is_string() {
                let _ = write!(line, " ({})", text(&status["message"]));
            }
            let _ = writeln!(shown, "{line}");
        }
        shown
    }

    /// What the function's status says of its versions.
    pub(super) fn status(&self, name: &str) -> String {
        let status = &self.body(&function_key(name))["status"];
        let conditions = status["conditions"].as_array().unwrap();
        let told = conditions.iter().find(|it| it["type"] == "Progressing");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = told.unwrap();
        format!(
            "{}: Progressing={} {}: {}\n",
            text(&status["rollout"]["phase"]),
            text(&told["status"]),
            text(&told["reason"]),
            text(&told["message"]),
        )
    }

    /// The versions of a function in order, with what each is: now, or to be.
    pub(super) fn history(&self, name: &str) -> String {
        let status = self.body(&function_key(name))["status"].clone();
        let mut lines: Vec<(i64, String)> = Vec::new();
        for object in self.state.list(Resource::ControllerRevision, None) {
            let body = object.to_value();
            if body["metadata"]["labels"]["hive.dev/function"] != name {
                continue;
            }
            let digest = body["data"]["spec"]["artifact"]["sha256"].as_str();
            let mut line = self.components[digest.unwrap()].clone();
            for (field, is) in [("currentRevision", "current"), ("updateRevision", "update")] {
                if status[field] == *object.key().name {
                    let _ = write!(line, " {is}");
                }
            }
            lines.push((body["revision"].as_i64().unwrap(), line));
        }
        lines.sort();
        lines
            .into_iter()
            .map(|(number, line)| format!("{number}: {line}\n"))
            .collect()
    }

    pub(super) fn tell_rollout(&self, step: &rollout::Step) -> String {
        match step {
            rollout::Step::Create { number, .. } => format!("revision {number}"),
            rollout::Step::Renumber { number, .. } => format!("revision {number} again"),
            rollout::Step::Prune { key, .. } => {
                format!("forget revision {}", self.body(key)["revision"])
            }
            rollout::Step::Stand { standing, .. } => {
                let rollout = standing.rollout.as_ref().unwrap();
                let tried = rollout.canary.as_ref().map_or_else(String::new, |canary| {
                    format!(" at step {}, {}%", canary.step + 1, canary.weight)
                });
                format!("rollout {:?}{tried}", rollout.phase)
            }
            rollout::Step::Tell { notice, .. } => {
                format!("event {}: {}", notice.reason, notice.message)
            }
        }
    }

    pub(super) fn tell(&self, step: &Step) -> String {
        let version = |spec| self.version(&json!(spec));
        match step {
            Step::Create { key, spec } => {
                format!(
                    "create {} on {}: {}",
                    key.name,
                    spec.node_name,
                    version(spec)
                )
            }
            Step::Move { key, spec, .. } => {
                let meanwhile = spec.previous.as_ref().map_or_else(String::new, |previous| {
                    format!(", serves on {} until then", previous.node_name)
                });
                let (name, node) = (&key.name, &spec.node_name);
                format!("move {name} to {node}: {}{meanwhile}", version(spec))
            }
            Step::Update { key, spec, .. } => format!("update {}: {}", key.name, version(spec)),
            Step::MarkUnknown { key, .. } => format!("mark {} unknown", key.name),
            Step::Settle { key, .. } => format!("settle {}", key.name),
            Step::Delete { key, .. } => format!("delete {}", key.name),
        }
    }

    /// `v1/3`: the component at the function's generation.
    pub(super) fn version(&self, assignment: &Value) -> String {
        let digest = assignment["function"]["artifact"]["sha256"].as_str();
        let component = &self.components[digest.unwrap()];
        format!("{component}/{}", assignment["functionGeneration"])
    }
}
