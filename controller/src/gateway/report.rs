//! What an agent says, as the statuses of objects. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hive_manifests::Resource;
use hive_manifests::quantity::{Bytes, MilliCpu};
use hive_proto::v1::{AssignmentStatus, NodeInfo, Phase, Report};
use serde_json::{Map, Value, json};

use super::desired::Problem;
use crate::objects;
use crate::state::{Key, State};

/// Of a node's memory, what functions may reserve: the system and the agent need the rest.
const ALLOCATABLE_MEMORY_PERCENT: u64 = 80;

/// Labels that a node says of itself may not pretend to be the system's.
const RESERVED_PREFIX: &str = "hive.dev/";

/// The part of a node's status that the machine itself tells.
pub fn node_status(info: &NodeInfo) -> Value {
    // Whole MiB: what changes below that is of no use to anybody, and would be written each time.
    let whole = |bytes: u64| Bytes(bytes / Bytes::MIB * Bytes::MIB);
    let amounts = |memory: u64| {
        json!({
            "memory": whole(memory),
            "cpu": MilliCpu(info.cpu_millis.into()),
            "storage": whole(info.storage_bytes),
        })
    };
    let mut status = json!({
        "capacity": amounts(info.memory_bytes),
        "allocatable": amounts(info.memory_bytes / 100 * ALLOCATABLE_MEMORY_PERCENT),
        "nodeInfo": {
            "agentVersion": info.agent_version,
            "os": info.os,
            "arch": info.arch,
            "kernel": info.kernel,
            "target": info.target,
            "wasmtimeVersion": info.wasmtime_version,
        },
    });
    if !info.local_address.is_empty() {
        status["localAddress"] = json!(info.local_address);
    }
    status
}

/// Lays the fields of `fresh` over a status, whole.
pub fn merge_status(status: &mut Value, fresh: &Value) {
    if !status.is_object() {
        *status = json!({});
    }
    if let (Some(status), Some(fresh)) = (status.as_object_mut(), fresh.as_object()) {
        if !fresh.contains_key("localAddress") {
            status.remove("localAddress");
        }
        status.extend(fresh.clone());
    }
}

/// Adds the labels that a node was started with. What people set by hand stays.
pub fn merge_labels(node: &mut Value, labels: &BTreeMap<String, String>) {
    let metadata = &mut node["metadata"];
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    let Some(known) = metadata["labels"].as_object_mut() else {
        return;
    };
    for (name, value) in labels {
        if !name.starts_with(RESERVED_PREFIX) {
            known.entry(name).or_insert_with(|| json!(value));
        }
    }
}

/// The status of one assignment as it should be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    pub key: Key,
    pub uid: String,
    pub status: Reported,
    /// Of a copy that never served and is on its way: it has time.
    pub passing: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    pub phase: &'static str,
    pub generation: Option<u64>,
    /// Of the version that serves; may be empty.
    pub revision: String,
    pub reason: String,
    pub message: String,
}

/// Which statuses of a node's assignments differ from what it reported last.
pub fn status_writes(
    state: &State,
    node: &str,
    report: Option<&Report>,
    problems: &[Problem],
) -> Vec<StatusWrite> {
    let mut writes = Vec::new();
    let reported = report.map(|r| &r.assignments[..]).unwrap_or_default();
    for status in reported {
        let key = Key::new(Resource::Assignment, &*status.namespace, &*status.name);
        // Problems are known better here: the agent only knows that it was told nothing.
        if problems.iter().any(|problem| problem.key == key) {
            continue;
        }
        push_if_new(
            state,
            node,
            key,
            &status.uid,
            from_agent(status),
            &mut writes,
        );
    }
    for problem in problems {
        let status = Reported {
            phase: "Failed",
            generation: None,
            revision: String::new(),
            reason: problem.reason.to_owned(),
            message: problem.message.clone(),
        };
        push_if_new(
            state,
            node,
            problem.key.clone(),
            &problem.uid,
            status,
            &mut writes,
        );
    }
    writes
}

fn push_if_new(
    state: &State,
    node: &str,
    key: Key,
    uid: &str,
    mut status: Reported,
    writes: &mut Vec<StatusWrite>,
) {
    let Some(object) = state.get(&key) else {
        return;
    };
    let body = object.to_value();
    if object.uid() != uid || body["spec"]["nodeName"] != node {
        return;
    }
    // Controllers before revisions cannot read a status that names one, and nothing is assigned by one
    // while they are there.
    if body["spec"]["revision"].is_null() {
        status.revision.clear();
    }
    let mut stored = body["status"].clone();
    if set_assignment_status(&mut stored, &status, SystemTime::UNIX_EPOCH) {
        let passing = status.phase == "Fetching" && body["status"]["phase"] == "Pending";
        writes.push(StatusWrite {
            key,
            uid: uid.to_owned(),
            status,
            passing,
        });
    }
}

fn from_agent(status: &AssignmentStatus) -> Reported {
    Reported {
        phase: match status.phase() {
            Phase::Ready => "Ready",
            Phase::Failed => "Failed",
            Phase::Fetching => "Fetching",
            Phase::Unspecified => "Pending",
        },
        generation: (status.function_generation > 0).then_some(status.function_generation),
        revision: status.revision.clone(),
        reason: status.reason.clone(),
        message: status.message.clone(),
    }
}

/// Brings a stored status up to date; false when it says the same already.
pub fn set_assignment_status(status: &mut Value, reported: &Reported, now: SystemTime) -> bool {
    let before = status.clone();
    if !status.is_object() {
        *status = json!({});
    }
    let ready = reported.phase == "Ready";
    let reason = if reported.reason.is_empty() {
        reported.phase
    } else {
        &reported.reason
    };
    objects::set_condition(
        status,
        "Ready",
        if ready { "True" } else { "False" },
        reason,
        &reported.message,
        now,
    );
    let generation = reported.generation.map(Value::from);
    let text = |text: &str| (!text.is_empty()).then(|| json!(text));
    let revision = text(&reported.revision);
    let served = before["phase"] == "Ready"
        && before.get("observedGeneration") == generation.as_ref()
        && before.get("observedRevision") == revision.as_ref();
    if let Some(fields) = status.as_object_mut() {
        // Of one that has served since before this was noted it stays unknown.
        if !ready {
            fields.remove("readySince");
        } else if !served {
            fields.insert("readySince".into(), json!(objects::timestamp(now)));
        }
        fields.insert("phase".into(), json!(reported.phase));
        set_or_remove(fields, "observedGeneration", generation);
        set_or_remove(fields, "observedRevision", revision);
        set_or_remove(fields, "reason", text(&reported.reason));
        set_or_remove(fields, "message", text(&reported.message));
    }
    *status != before
}

fn set_or_remove(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(name.into(), value),
        None => fields.remove(name),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::edit;
    use crate::state::Command;

    fn state() -> (State, String) {
        let key = Key::new(Resource::Assignment, "default", "hello.0");
        let body = objects::fresh(&key, json!({}), json!({ "spec": { "nodeName": "pi" } }));
        let uid = body["metadata"]["uid"].as_str().unwrap().to_owned();
        let mut state = State::default();
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
        (state, uid)
    }

    fn report(uid: &str, phase: Phase) -> Report {
        Report {
            assignments: vec![AssignmentStatus {
                namespace: "default".into(),
                name: "hello.0".into(),
                uid: uid.into(),
                function_generation: 3,
                phase: phase.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_report_is_written_once() {
        let (mut state, uid) = state();
        let report = report(&uid, Phase::Ready);
        let writes = status_writes(&state, "pi", Some(&report), &[]);
        assert_eq!(writes.len(), 1);
        let object = state.get(&writes[0].key).unwrap().clone();
        let mut body = object.body().clone();
        assert!(set_assignment_status(
            &mut body["status"],
            &writes[0].status,
            SystemTime::now()
        ));
        assert_eq!(body["status"]["observedGeneration"], 3);
        let command = Command::Replace {
            key: writes[0].key.clone(),
            body: body.into(),
            expect: None,
        };
        state.apply(command).unwrap();
        assert_eq!(status_writes(&state, "pi", Some(&report), &[]), []);
    }

    #[test]
    fn since_when_a_copy_answers_is_of_its_version() {
        let mut status = Value::Null;
        let mut say = |phase, generation, at| {
            let reported = Reported {
                phase,
                generation,
                revision: if at == 7 { "back" } else { "" }.to_owned(),
                reason: String::new(),
                message: if at == 3 { "the next one fails" } else { "" }.to_owned(),
            };
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
            set_assignment_status(&mut status, &reported, at);
            status["readySince"]
                .as_str()
                .map(|time| time[17..].to_owned())
        };
        assert_eq!(say("Fetching", None, 1), None);
        assert_eq!(say("Ready", Some(1), 2).as_deref(), Some("02Z"));
        assert_eq!(say("Ready", Some(1), 3).as_deref(), Some("02Z"));
        assert_eq!(say("Ready", Some(2), 4).as_deref(), Some("04Z"));
        assert_eq!(say("Unknown", Some(2), 5), None);
        assert_eq!(say("Ready", Some(2), 6).as_deref(), Some("06Z"));
        assert_eq!(say("Ready", Some(2), 7).as_deref(), Some("07Z"));
    }

    #[test]
    fn only_what_comes_after_pending_has_time() {
        for (before, reported, passing) in [
            ("Pending", Phase::Fetching, true),
            ("Pending", Phase::Ready, false),
            ("Pending", Phase::Failed, false),
            ("Ready", Phase::Fetching, false),
            ("Unknown", Phase::Fetching, false),
        ] {
            let (mut state, uid) = state();
            let key = Key::new(Resource::Assignment, "default", "hello.0");
            edit(&mut state, &key, |body| {
                body["status"] = json!({ "phase": before });
            });
            let writes = status_writes(&state, "pi", Some(&report(&uid, reported)), &[]);
            assert_eq!(writes[0].passing, passing, "{before} to {reported:?}");
        }
    }

    #[test]
    fn a_node_speaks_only_of_what_is_assigned_to_it() {
        let (state, uid) = state();
        assert_eq!(
            status_writes(&state, "other", Some(&report(&uid, Phase::Ready)), &[]),
            []
        );
        assert_eq!(
            status_writes(&state, "pi", Some(&report("stale", Phase::Ready)), &[]),
            []
        );
    }

    #[test]
    fn a_problem_here_outweighs_what_the_agent_says() {
        let (state, uid) = state();
        let problem = Problem {
            key: Key::new(Resource::Assignment, "default", "hello.0"),
            uid: uid.clone(),
            reason: "MissingReference",
            message: "no such secret".into(),
        };
        let writes = status_writes(&state, "pi", Some(&report(&uid, Phase::Ready)), &[problem]);
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].status.phase, "Failed");
    }

    #[test]
    fn labels_set_by_people_stay() {
        let mut node = json!({ "metadata": { "labels": { "room": "attic" } } });
        let own = [
            ("room", "cellar"),
            ("disk", "ssd"),
            ("hive.dev/role", "boss"),
        ];
        let own = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        merge_labels(&mut node, &own);
        assert_eq!(
            node["metadata"]["labels"],
            json!({ "room": "attic", "disk": "ssd" })
        );
    }
}
