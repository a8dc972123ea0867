//! The world of a scenario: the state, and agents that do as they are told, when they are told.

mod deeds;
mod telling;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use hive_manifests::duration::GoDuration;
use hive_manifests::rollout::Answered;
use hive_manifests::{FunctionSpec, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::run::command;
use super::super::{Plan, Step, View, plan};
use crate::gateway::report::{Reported, set_assignment_status};
use crate::holdings::Holdings;
use crate::objects;
use crate::reconcile::rollout::{self, Rollouts};
use crate::state::{Command, Key, Member, Object, State, level};

/// More looks than any scenario needs: one that goes on never settles.
const MOST_LOOKS: usize = 50;

pub struct World {
    state: State,
    now: Timestamp,
    rollouts: Rollouts,
    /// What was answered for revisions in the last minute, by functions: those tried, and the others.
    answers: BTreeMap<String, (Answered, Answered)>,
    /// What the script calls a component, by its digest.
    components: BTreeMap<String, String>,
    /// What nodes were heard to have on their disks.
    held: Holdings<u64>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            rollouts: Rollouts::default(),
            answers: BTreeMap::new(),
            components: BTreeMap::new(),
            held: Holdings::default(),
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
            ("holds", [name, components @ ..]) => self.holds(name, components),
            ("function", [name, fields @ ..]) => self.function(name, fields),
            ("compile", [name]) => self.compile(name),
            ("secret", [name, field]) => {
                let content = json!({ "data": { *field: "eA==" } });
                self.put(Key::new(Resource::Secret, "default", *name), content);
            }
            ("forget", [secret]) => {
                self.delete(&Key::new(Resource::Secret, "default", *secret));
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
        let view = self.view();
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
        } = plan(&self.view(), self.now);
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

    fn view(&self) -> View {
        View {
            held: self.held.clone(),
            ..View::of(&self.state)
        }
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
