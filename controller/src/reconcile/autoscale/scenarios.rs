//! Scenarios: how many copies a function has while it is asked for more and less, as scripts that a reviewer
//! reads.
//!
//! `scenarios/*.txt` are lines of a small language (`> `), each with what came of it below. One ingress reports
//! each second, and after each report there is a look. `HIVE_BLESS=1` writes what happens now instead of
//! comparing it.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hive_manifests::duration::GoDuration;
use hive_manifests::{FunctionSpec, Resource, apply_defaults, validate_stored};
use hive_proto::v1::FunctionLoad;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Demand, Scaling, Subject, plan};
use crate::objects;
use crate::state::Key;
use crate::traffic::Traffic;

#[test]
fn scenarios_go_as_they_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reconcile/autoscale/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let happened = played(&written);
        if std::env::var_os("HIVE_BLESS").is_some() {
            std::fs::write(&path, happened).unwrap();
        } else {
            assert_eq!(
                written,
                happened,
                "{}: run again with HIVE_BLESS=1 and read the difference",
                path.display()
            );
        }
    }
}

/// The script with what came of it now in the place of what came of it before.
fn played(script: &str) -> String {
    let mut world = World::new();
    let mut happened = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let _ = writeln!(happened, "{line}\n{}", world.run(command));
            let kept = happened.trim_end().len();
            happened.truncate(kept);
            happened.push('\n');
        } else if line.is_empty() || line.starts_with("# ") {
            let _ = writeln!(happened, "{line}");
        }
    }
    happened
}

struct World {
    key: Key,
    function: Value,
    scaling: Scaling,
    traffic: Traffic,
    /// Requests under way, which end within a second.
    load: u32,
    /// How long all of them wait while there is one copy, in milliseconds; with more of them each waits less.
    wait: u64,
    /// Copies that answer are as many as were wanted so many seconds ago.
    starting: usize,
    wanted_before: Vec<u32>,
    is_rolling: bool,
    start: Instant,
    seconds: u64,
    is_heard: bool,
}

impl World {
    fn new() -> Self {
        let key = Key::new(Resource::Function, "default", "hello");
        let spec = json!({ "artifact": { "sha256": "ab".repeat(32) }, "autoscaling": {} });
        let start = Instant::now();
        Self {
            function: objects::fresh(&key, json!({}), json!({ "spec": spec })),
            key,
            scaling: Scaling::default(),
            traffic: Traffic::beginning_at(start),
            load: 0,
            wait: 0,
            starting: 0,
            wanted_before: Vec::new(),
            is_rolling: false,
            start,
            seconds: 0,
            is_heard: false,
        }
    }

    fn run(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "function" => self.change(rest),
            "load" => self.load = rest.parse().unwrap(),
            "waits" => self.wait = rest.parse().unwrap(),
            "starting" => self.starting = rest.parse().unwrap(),
            "rolling" => self.is_rolling = rest.parse().unwrap(),
            // What it has heard is as if nobody had ever said anything.
            "another-leader" => {
                self.traffic.clear();
                self.is_heard = false;
            }
            "wait" => return self.wait(rest.parse::<GoDuration>().unwrap().0),
            "show" => return self.show(),
            _ => panic!("the script says {line:?}"),
        }
        String::new()
    }

    /// Fields of the spec by their paths: `autoscaling.minReplicas=0 concurrency=10`.
    fn change(&mut self, fields: &str) {
        for field in fields.split_whitespace() {
            let (path, value) = field.split_once('=').unwrap();
            let spec = &mut self.function["spec"];
            let place = path.split('.').fold(spec, |at, step| &mut at[step]);
            *place = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        }
        apply_defaults(Resource::Function, &mut self.function);
        assert_eq!(validate_stored(Resource::Function, &self.function), []);
    }

    fn spec(&self) -> FunctionSpec {
        serde_json::from_value(self.function["spec"].clone()).unwrap()
    }

    fn wanted(&self, spec: &FunctionSpec) -> u32 {
        spec.wanted_replicas(self.scaling.found.as_ref().map(|it| it.replicas))
    }

    /// Second by second; what is written in each.
    fn wait(&mut self, time: Duration) -> String {
        let mut told = String::new();
        for _ in 0..time.as_secs() {
            self.seconds += 1;
            let now = self.start + Duration::from_secs(self.seconds);
            let spec = self.spec();
            let wanted = self.wanted(&spec);
            self.wanted_before.push(wanted);
            let then = self.wanted_before.iter().rev().nth(self.starting);
            let ready = then.map_or(wanted, |then| wanted.min(*then));
            let waited = Duration::from_millis(self.wait) * self.load / ready.max(1).pow(2);
            let load = FunctionLoad {
                namespace: self.key.namespace.clone(),
                function: self.key.name.clone(),
                revision: String::new(),
                in_flight: self.load,
                requests: self.load.into(),
                failures: 0,
                busy_us: u64::from(self.load) * 1_000_000,
                waited_us: waited.as_micros() as u64,
            };
            self.traffic.heard(1, vec![load], !self.is_heard, now);
            self.is_heard = true;
            let rule = spec.autoscaling.as_ref().unwrap();
            let demand = Demand::of(&self.traffic, &self.key, rule, now);
            let subject = Subject {
                spec: &spec,
                wanted,
                ready,
                is_settled: !self.is_rolling,
                scaling: &self.scaling,
            };
            let now = Timestamp::from_second(self.seconds as i64).unwrap();
            let Some(change) = plan(&subject, &demand, now) else {
                continue;
            };
            self.scaling = change.scaling;
            if let Some(notice) = change.notice {
                let (reason, message) = (notice.reason, notice.message);
                let _ = writeln!(told, "{}s {reason}: {message}", self.seconds);
            }
        }
        told
    }

    fn show(&self) -> String {
        let mut shown = format!("{} wanted\n", self.wanted(&self.spec()));
        for (kind, told) in [
            ("ScalingActive", &self.scaling.active),
            ("ScalingLimited", &self.scaling.limited),
        ] {
            if let Some((status, reason, message)) = told {
                let _ = writeln!(shown, "{kind}={status} {reason}: {message}");
            }
        }
        shown
    }
}
