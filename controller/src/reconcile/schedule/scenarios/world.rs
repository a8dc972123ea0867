//! The world of a scenario: the state, and agents that do as they are told, when they are told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use hive_manifests::duration::GoDuration;
use hive_manifests::quantity::Bytes;
use hive_manifests::rollout::Answered;
use hive_manifests::{FunctionSpec, Resource, apply_defaults, validate_stored};
use hive_proto::v1::Usage;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::run::command;
use super::super::{Plan, Step, View, plan};
use crate::artifacts::Digest;
use crate::gateway::report::{Reported, set_assignment_status};
use crate::node_conditions;
use crate::node_record::NodeRecord;
use crate::objects;
use crate::reconcile::rollout::{self, Rollouts, proven_artifacts};
use crate::state::{Command, Key, Member, Object, State, level};

/// More looks than any scenario needs: one that goes on never settles.
const MOST_LOOKS: usize = 50;

/// What nodes are, by the scripts' short names for it.
const TARGETS: [&str; 2] = ["x86", "arm"];

pub struct World {
    state: State,
    now: Timestamp,
    rollouts: Rollouts,
    /// What was answered for revisions in the last minute, by functions: those tried, and the others.
    answers: BTreeMap<String, (Answered, Answered)>,
    /// What the script calls a component, by its digest.
    components: BTreeMap<String, String>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            rollouts: Rollouts::default(),
            answers: BTreeMap::new(),
            components: BTreeMap::new(),
        };
        world.apply(Command::AdmitController {
            member: Member::default(),
        });
        world.put(Key::new(Resource::Namespace, "", "default"), json!({}));
        world.apply(Command::RaiseLevel { to: level::OWN });
        world
    }

    /// Does what a line says; what came of it, in lines.
    pub fn run(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (verb, words.as_slice()) {
            ("node", [name, facts @ ..]) => self.node(name, facts),
            ("lose", [name]) => self.node_condition(name, "Unknown"),
            ("find", [name]) => self.node_condition(name, "True"),
            ("machine", [name, facts @ ..]) => return self.machine(name, facts),
            ("remove", [name]) => self.delete(&objects::node_key(name)),
            ("function", [name, fields @ ..]) => self.function(name, fields),
            ("compile", [name]) => self.compile(name),
            ("secret", [name, field]) => {
                let content = json!({ "data": { *field: "eA==" } });
                self.put(Key::new(Resource::Secret, "default", *name), content);
            }
            ("delete", [name]) => self.delete(&function_key(name)),
            ("answer", names) => self.answer(names),
            ("fail", [name, ..]) => {
                let why = rest.split_once(' ').map_or("", |(_, why)| why);
                self.fail(name, why);
            }
            ("wait", [time]) => self.now += time.parse::<GoDuration>().unwrap().0,
            ("plan", []) => {
                let (told, _) = self.look();
                return told;
            }
            ("answered", [name, tried, others]) => {
                let answers = (answers(tried), answers(others));
                self.answers.insert((*name).to_owned(), answers);
            }
            ("promote", [name]) => self.promote(name, "step"),
            ("promote", [name, "full"]) => self.promote(name, "full"),
            ("retry", [name]) => self.retry(name),
            ("status", [name]) => return self.status(name),
            ("history", [name]) => return self.history(name),
            ("settle", []) => return self.settle(),
            ("show", []) => return self.show(),
            _ => panic!("the script says {line:?}"),
        }
        String::new()
    }

    /// `memory=1Gi cpu=4 target=arm label.zone=x taint=gpu:NoSchedule cordoned`; said again, it is another.
    fn node(&mut self, name: &str, facts: &[&str]) {
        let (mut labels, mut taints) = (json!({}), json!([]));
        let mut amounts = json!({ "memory": "1Gi", "cpu": "4" });
        let (mut target, mut cordoned) = ("x86", false);
        for fact in facts {
            match fact.split_once('=') {
                None if *fact == "cordoned" => cordoned = true,
                Some(("taint", taint)) => {
                    let (key, effect) = taint.split_once(':').unwrap();
                    let taint = json!({ "key": key, "effect": effect });
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
    fn machine(&mut self, name: &str, facts: &[&str]) -> String {
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

    fn node_condition(&mut self, name: &str, ready: &str) {
        self.edit(&objects::node_key(name), |body| {
            body["status"]["conditions"][0]["status"] = json!(ready);
        });
    }

    /// Fields of the spec by their paths, as in `replicas=3 resources.memory=64Mi`; `component=v2` is compiled
    /// at once unless it says `compiled=no`. Said again, only what it says changes.
    fn function(&mut self, name: &str, fields: &[&str]) {
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

    fn promote(&mut self, name: &str, upto: &str) {
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

    fn retry(&mut self, name: &str) {
        self.edit(&function_key(name), |body| {
            let at = body["status"]["rollout"]["phaseTime"].clone();
            body["metadata"]["annotations"]["hive.dev/retry"] = at;
        });
    }

    fn component(&mut self, name: &str) -> String {
        let digest = Digest::of(name.as_bytes()).hex();
        self.components.insert(digest.clone(), name.to_owned());
        digest
    }

    fn compile(&mut self, function: &str) {
        let (state, key) = (self.state.clone(), function_key(function));
        self.edit(&key.clone(), |body| {
            let source = body["spec"]["artifact"]["sha256"].clone();
            let mut compiled = proven_artifacts(&state, &key, &body["status"]);
            compiled.retain(|artifact| source != artifact.source_sha256.as_str());
            let mut compiled = json!(compiled).as_array().unwrap().clone();
            compiled.extend(TARGETS.map(|target| {
                let name = format!("{source} for {target}");
                json!({
                    "target": target, "sourceSha256": source, "sha256": Digest::of(name.as_bytes()).hex(),
                    "size": 1, "wasmtimeVersion": "48", "description": "", "signature": "",
                })
            }));
            body["status"]["artifacts"] = json!(compiled);
        });
    }

    /// Whether there is an assignment of that name.
    pub fn has(&self, assignment: &str) -> bool {
        let key = Key::new(Resource::Assignment, "default", assignment);
        self.state.get(&key).is_some()
    }

    /// What holds after every look: the revisions that the status names are there, and few copies serve with
    /// one version while they load another.
    pub fn check(&self, function: &str) {
        let body = self.body(&function_key(function));
        for field in ["currentRevision", "updateRevision"] {
            let name = body["status"][field].as_str().unwrap();
            if name.is_empty() {
                assert_eq!(field, "currentRevision");
                continue;
            }
            let key = Key::new(Resource::ControllerRevision, "default", name);
            assert!(self.state.get(&key).is_some(), "{field} {name}");
        }
        let changing = self.assignments().into_iter().filter(|key| {
            let body = self.body(key);
            let (spec, status) = (&body["spec"], &body["status"]);
            status["phase"] == "Ready"
                && spec["canary"] != true
                && (status["observedGeneration"] != spec["functionGeneration"]
                    || status["observedRevision"] != spec["revision"])
        });
        let spec: FunctionSpec = serde_json::from_value(body["spec"].clone()).unwrap();
        let most = spec.max_unavailable(spec.replicas.unwrap_or(1) as usize);
        assert!(changing.count() <= most, "more than {most} change at once");
    }

    /// What is assigned to nodes that are there runs as it should; of those named, if some are.
    fn answer(&mut self, names: &[&str]) {
        for key in self.assignments() {
            let body = self.body(&key);
            let node = objects::node_key(body["spec"]["nodeName"].as_str().unwrap());
            let is_there = self.state.get(&node).is_some_and(|it| is_ready(it));
            if is_there && (names.is_empty() || names.contains(&&*key.name)) {
                let generation = body["spec"]["functionGeneration"].as_u64();
                let revision = body["spec"]["revision"].as_str().unwrap_or_default();
                self.report(&key, "Ready", (generation, revision), "");
            }
        }
    }

    /// The newest version fails; what served before serves on.
    fn fail(&mut self, name: &str, why: &str) {
        let key = Key::new(Resource::Assignment, "default", name);
        let status = self.body(&key)["status"].clone();
        let serves = status["phase"] == "Ready";
        let generation = status["observedGeneration"].as_u64().filter(|_| serves);
        let revision = status["observedRevision"].as_str().unwrap_or_default();
        let phase = if serves { "Ready" } else { "Failed" };
        self.report(&key, phase, (generation, revision), why);
    }

    fn report(
        &mut self,
        key: &Key,
        phase: &'static str,
        (generation, revision): (Option<u64>, &str),
        why: &str,
    ) {
        let reported = Reported {
            phase,
            generation,
            revision: revision.to_owned(),
            reason: if why.is_empty() { "" } else { "LoadFailed" }.to_owned(),
            message: why.to_owned(),
        };
        let now = SystemTime::from(self.now);
        self.edit(key, |body| {
            set_assignment_status(&mut body["status"], &reported, now);
        });
    }

    /// One look at versions and then of the scheduler: what they did, and whether they did anything.
    fn look(&mut self) -> (String, bool) {
        let mut told = String::new();
        let view = View::of(&self.state);
        let scheduled = plan(&view, self.now);
        let answered = |function: &Key, revision: &str, last: Duration| {
            let known = self.answers.get(&function.name).copied();
            let (tried, others) = known.filter(|_| !last.is_zero()).unwrap_or_default();
            if revision.is_empty() { others } else { tried }
        };
        let (rollouts, _) =
            self.rollouts
                .steps(&self.state, &view, &scheduled, &answered, self.now);
        let is_rolling = !rollouts.is_empty();
        for step in rollouts.into_iter().flatten() {
            let _ = writeln!(told, "{}", self.tell_rollout(&step));
            if let Some(command) = rollout::command(&step, &self.state) {
                self.apply(command);
            }
        }
        let Plan {
            steps,
            unplaced,
            again,
        } = plan(&View::of(&self.state), self.now);
        for step in &steps {
            let _ = writeln!(told, "{}", self.tell(step));
            self.check_move(step);
            self.apply(command(step, &self.state).unwrap());
        }
        for (function, reason) in unplaced {
            let _ = writeln!(told, "unplaced {}: {reason}", function.name);
        }
        if let Some(again) = again {
            let seconds = again.duration_since(self.now).as_secs();
            let _ = writeln!(told, "again in {seconds}s");
        }
        (told, is_rolling || !steps.is_empty())
    }

    /// A copy that serves goes on doing so while it moves, unless others answer for it.
    fn check_move(&self, step: &Step) {
        let Step::Move { key, spec, .. } = step else {
            return;
        };
        let before = self.body(key);
        let node = objects::node_key(before["spec"]["nodeName"].as_str().unwrap());
        let is_there = self.state.get(&node).is_some_and(|it| is_ready(it));
        if before["status"]["phase"] == "Ready" && is_there && !spec.canary {
            let previous = spec.previous.as_ref().unwrap();
            assert_eq!(previous.node_name, node.name);
        }
    }

    /// Looks, and agents that answer, until nothing is left to do.
    fn settle(&mut self) -> String {
        let mut told = String::new();
        for round in 1..MOST_LOOKS {
            let (what, is_busy) = self.look();
            if !is_busy {
                return told + &what;
            }
            let _ = write!(told, "round {round}\n{}", indented(&what));
            self.answer(&[]);
        }
        panic!("this never settles:\n{told}");
    }

    fn show(&self) -> String {
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
    fn status(&self, name: &str) -> String {
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
    fn history(&self, name: &str) -> String {
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

    fn tell_rollout(&self, step: &rollout::Step) -> String {
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

    fn tell(&self, step: &Step) -> String {
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
    fn version(&self, assignment: &Value) -> String {
        let digest = assignment["function"]["artifact"]["sha256"].as_str();
        let component = &self.components[digest.unwrap()];
        format!("{component}/{}", assignment["functionGeneration"])
    }

    fn assignments(&self) -> Vec<Key> {
        self.state
            .list(Resource::Assignment, None)
            .map(|object| object.key().clone())
            .collect()
    }

    fn body(&self, key: &Key) -> Value {
        self.state.get(key).unwrap().to_value().into_owned()
    }

    fn put(&mut self, key: Key, content: Value) {
        let body = objects::fresh(&key, json!({}), content).into();
        self.apply(Command::Create { key, body });
    }

    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut body = self.body(key);
        change(&mut body);
        self.apply(Command::Replace {
            key: key.clone(),
            body: body.into(),
            expect: None,
        });
    }

    fn delete(&mut self, key: &Key) {
        self.apply(Command::Delete {
            key: key.clone(),
            expect: None,
            uid: None,
        });
    }

    fn apply(&mut self, command: Command) {
        self.state.apply(command).unwrap();
    }
}

fn is_ready(node: &Object) -> bool {
    objects::condition(node.body(), "Ready") == Some("True")
}

/// `12/80` for 12 failures of 80 requests.
fn answers(text: &str) -> Answered {
    let (failures, requests) = text.split_once('/').unwrap();
    Answered {
        failures: failures.parse().unwrap(),
        requests: requests.parse().unwrap(),
    }
}

fn function_key(name: &str) -> Key {
    Key::new(Resource::Function, "default", name)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
